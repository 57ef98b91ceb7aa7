"""From the latents of a core to the rates of one session's neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.steps import Steps

FLOOR = 1e-4  # expected value in a bin of a neuron that was never seen to fire


@dataclass(frozen=True)
class ReadoutSettings:
    """How rates are read out of a core's latents.

    Attributes:
        dropout: of the latents.
        start_at_mean: let the biases begin at the neurons' mean rates, which training would otherwise have to learn
            first.
    """

    dropout: float = 0.0
    start_at_mean: bool = True

    def build(
        self, spec: DataSpec, steps: Steps, width: int, names: Sequence[str], init: Callable[[nn.Linear], object]
    ) -> RateReadout:
        """The readout of a session.

        Args:
            spec: the description of the session.
            steps: of the network.
            width: of the latents.
            names: the values that are read out for each entry, see ``neuro_lightning.losses.readout_names``.
            init: changes the weights that torch has drawn; called before the biases are set.
        """
        return RateReadout(spec, steps, width, names, self, init)


class RateReadout(nn.Module):
    """Latents of steps -> linear map -> values of all neurons in bins; of traces these are the expected values.

    Args:
        spec: the description of the session.
        steps: of the network.
        width: channels D of the latents.
        names: the values that are read out for each entry.
        settings: see its class.
        init: of the weights, see :meth:`ReadoutSettings.build`.
    """

    def __init__(
        self,
        spec: DataSpec,
        steps: Steps,
        width: int,
        names: Sequence[str],
        settings: ReadoutSettings,
        init: Callable[[nn.Linear], object],
    ) -> None:
        super().__init__()
        self.steps, self.names = steps, tuple(names)
        self.dropout = Dropout(settings.dropout)
        self.linear = nn.Linear(width, spec.n_neurons * len(self.names))
        with torch.no_grad():
            init(self.linear)
        if settings.start_at_mean:
            start_at_mean_rates(self.linear, spec.mean_rates, log=names[0] == "log_rates")

    def unit_weights(self) -> list[Tensor]:
        """Views (N, D) and (N,) of the linear map's weights and biases, for each value that is read out."""
        return [*self.linear.weight.chunk(len(self.names)), *self.linear.bias.chunk(len(self.names))]

    def forward(self, latents: Tensor, n_total: int) -> Output:
        """(B, S, D) latents of steps -> values (B, L, N) by name."""
        values = self.steps.interpolate(F.linear(self.dropout(latents), self.linear.weight), n_total)
        return split_readout(values + self.linear.bias, self.names)  # the bias also in bins that no step precedes

    def step(self, latents: Tensor) -> Output:
        """(B, D) latents of the last step that has ended, zeros before the first -> values (B, N) of the bin."""
        return split_readout(self.linear(self.dropout(latents)), self.names)


@torch.no_grad()
def start_at_mean_rates(readout: nn.Linear, mean_rates: Sequence[float], *, log: bool) -> None:
    """Set a readout's biases to the mean rates.

    Args:
        readout: to N neurons first, and to whatever else is said of them.
        mean_rates: (N,) expected values in a bin; empty leaves the readout as it is.
        log: the readout gives log-rates.
    """
    if len(mean_rates):
        rates = torch.tensor(mean_rates)
        readout.bias[: len(rates)] = rates.clamp_min(FLOOR).log() if log else rates


def shrink_weights(readout: nn.Linear) -> None:
    """Make torch's weights ten times smaller, so that rates begin near their mean."""
    readout.weight.mul_(0.1)


def small_weights(readout: nn.Linear) -> None:
    """Draw weights between -0.01 and 0.01, and set the biases to zero, as the published transformers do."""
    nn.init.uniform_(readout.weight, -0.01, 0.01)
    nn.init.zeros_(readout.bias)
