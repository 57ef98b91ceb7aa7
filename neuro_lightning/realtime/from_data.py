"""What a stream takes from the data of its run: the decoder that the run is scored by, and what is usual."""

from __future__ import annotations

import torch
from torch import nn

from neuro_lightning.contracts import DataSpec, rates_of, run_network
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.drift import Usual, usual
from neuro_lightning.functional.ridge import Ridge
from neuro_lightning.metrics.collection import MetricSet
from neuro_lightning.metrics.decoding import VelocityR2
from neuro_lightning.nn.stepping import Stepwise


def fit_decoder(net: nn.Module, spec: DataSpec, data: PopulationDataModule) -> Ridge:
    """The ridge regression from a network's rates to behavior, which ``vel R2`` scores, from the training trials.

    Args:
        net: a trained network.
        spec: the description of its data.
        data: its data.

    Raises:
        ConfigError: there is no behavior to decode bin by bin, or groups of trials are decoded apart.
    """
    if spec.behavior_kind != "velocity" or spec.decode_groups != 1:
        raise ConfigError(
            f"behavior=True: {spec.dataset} has no behavior that one decoder reads out of all bins; leave it out"
        )
    metric = VelocityR2(spec.n_neurons, spec.behavior_dim, mean_rates=spec.mean_rates)
    scores = MetricSet(spec, {"vel_r2": metric})
    for batch in data.eval_dataloader("train"):
        scores.update_train(run_network(net.eval(), batch), batch)  # type: ignore[arg-type]
    return metric.decoders()[0]


def usual_of(net: Stepwise, spec: DataSpec, data: PopulationDataModule) -> Usual:
    """How the counts of the validation trials, which trained nothing, compare with a network's rates a bin earlier.

    Without such trials (``refit=true`` trained on them) it is the training trials that are compared.

    Args:
        net: a trained network.
        spec: the description of its data.
        data: its data.
    """
    counts, rates, observed = [], [], []
    later = 1 + net.lag  # the bin whose counts the rates are compared with is so much later than theirs
    split = "val" if "val" in data.recording.splits else "train"
    for batch in data.eval_dataloader(split):
        inputs = batch["inputs"]
        counts.append(inputs[:, later:])
        rates.append(rates_of(run_network(net.eval(), batch))[:, : inputs.shape[1] - later, : spec.n_in])  # type: ignore[arg-type]
        observed.append(batch.get("observed", torch.ones_like(inputs, dtype=torch.bool))[:, later:])
    return usual(torch.cat(counts), torch.cat(rates), torch.cat(observed))
