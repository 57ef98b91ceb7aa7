"""The decoder of velocity that a run is scored by, kept to be used."""

from __future__ import annotations

from torch import nn

from neuro_lightning.contracts import DataSpec, run_network
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.ridge import Ridge
from neuro_lightning.metrics.collection import MetricSet
from neuro_lightning.metrics.decoding import VelocityR2


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
