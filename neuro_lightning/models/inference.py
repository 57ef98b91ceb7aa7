"""What a trained network returns for all trials of a split, batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import torch

from neuro_lightning.contracts import Batch, rates_of, run_network
from neuro_lightning.data.module import PopulationDataModule

RATES = ("rates",)
LATENTS = ("latents", "inferred_inputs", "initial_condition")


def predict_split(
    net: torch.nn.Module,
    data: PopulationDataModule,
    split: str,
    device: torch.device | str = "cpu",
    names: Collection[str] = RATES,
) -> dict[str, np.ndarray]:
    """A network's outputs for every trial of a split, in the order of the trial table.

    Args:
        net: it is put on ``device`` and into evaluation mode.
        data: the data module.
        split: ``train``, ``val`` or ``test``.
        device: where the network runs.
        names: which outputs: ``rates``, the expected targets whichever link the network has, (B, L, N) or (B, N);
            ``LATENTS`` and others, see :class:`~neuro_lightning.contracts.Output`; ``heads/NAME`` what a head decodes.

    Returns:
        Arrays by name; those that the network does not have are left out.
    """
    n_trials = len(data.dataset(split, evaluate=True))
    return predict_batches(net.to(device).eval(), data.eval_dataloader(split), n_trials, device, names)


def predict_batches(
    net: torch.nn.Module,
    batches: Iterable[Batch],
    n_trials: int,
    device: torch.device | str = "cpu",
    names: Collection[str] = RATES,
) -> dict[str, np.ndarray]:
    """A network's outputs for ``n_trials`` trials that come in batches; see :func:`predict_split`.

    Args:
        net: on ``device``, in evaluation mode.
        batches: on the CPU.
        n_trials: in all of them together.
        device: where the network is.
        names: which outputs.
    """
    found: dict[str, np.ndarray] = {}
    done = 0
    for batch in batches:
        output = run_network(net, batch, device)
        if "rates" in names:
            output["rates"] = rates_of(output)
        output |= {f"heads/{name}": values for name, values in output.pop("heads", {}).items()}
        for name in set(names) & set(output):
            part = output[name].numpy()
            if name not in found:  # one array at once: joining the parts would take twice the memory
                found[name] = np.empty((n_trials, *part.shape[1:]), part.dtype)
            found[name][done : done + len(part)] = part
        done += len(batch["inputs"])
    return found
