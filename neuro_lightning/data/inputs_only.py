"""Training on the inputs of trials that are to be predicted: their held-in spikes are known, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import ConfigError

UNKNOWN = {"condition": -1, "jitter": 0, "decode_fold": -1}
"""What stands in a batch for a trial of which a whole number is not known; other values are NaN."""


def check_inputs_only(splits: Sequence[str], recording: Recording, spec: DataSpec) -> None:
    """Refuse to train on inputs that are scored themselves.

    Args:
        splits: whose inputs are to be trained on.
        recording: of the splits.
        spec: its description.

    Raises:
        ConfigError: there is no such split; or nothing of it would be left to predict.
    """
    if not splits:
        return
    key = f"data.train_on_inputs=[{','.join(splits)}]"
    if unknown := [split for split in splits if split == "train" or split not in recording.splits]:
        others = [split for split in recording.splits if split != "train"]
        raise ConfigError(f"{key}: no split {unknown[0]} whose inputs could be added; there are {', '.join(others)}")
    if spec.kind != "spikes" or not (spec.n_out or spec.n_forward):
        raise ConfigError(
            f"{key}: {recording.name} has no held-out neurons and no forward bins, so that the inputs themselves are "
            "scored; leave it out"
        )


def inputs_only(trials: Trials) -> Trials:
    """The trials without anything but the spikes of the held-in neurons in the window."""
    observed = trials.observed
    if trials.withheld is not None:
        seen = np.ones(trials.heldin.shape, bool) if observed is None else observed[:, :, : trials.heldin.shape[2]]
        observed = seen & ~trials.withheld[:, None]
    return Trials(heldin=trials.heldin, observed=observed)


class WithInputs(Dataset):
    """The training trials, and after them trials of which the inputs alone are known.

    Args:
        train: the training split, see :class:`~neuro_lightning.data.dataset.TrialDataset`.
        inputs: trials of other splits, see :func:`inputs_only`.
    """

    def __init__(self, train: Dataset, inputs: Sequence[Dataset]) -> None:
        self.parts = [train, *inputs]
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: list[int]) -> dict[str, Tensor]:
        chosen = np.asarray(index)
        batches = []
        for part, first, last in zip(self.parts, self.starts, self.starts[1:], strict=False):
            own = chosen[(chosen >= first) & (chosen < last)] - first
            batch = part[own.tolist()]
            batches.append({**batch, "index": batch["index"] + int(first)})
        example = batches[0]
        return {name: torch.cat([_values(batch, name, example[name]) for batch in batches]) for name in example}


def _values(batch: dict[str, Tensor], name: str, example: Tensor) -> Tensor:
    """A batch's values of a name, or what says that they are not known."""
    if name in batch:
        return batch[name]
    unknown = UNKNOWN.get(name, torch.nan)
    return torch.full((len(batch["inputs"]), *example.shape[1:]), unknown, dtype=example.dtype)
