"""What transformers over steps of time share: how counts enter, and how log-rates are read out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import Output, split_readout
from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.relative_bias import RelativeBias, log_spaced
from neuro_lightning.nn.steps import to_bins
from neuro_lightning.nn.windows import in_windows


class StepTransformer(nn.Module, ABC):
    """Counts of the held-in neurons -> latents of steps, which subclasses say -> log-rates of all neurons in bins.

    Of traces the readout gives the expected values themselves, and sequences longer than ``n_bins`` are read window
    by window.

    Args:
        n_neurons: all neurons N.
        n_bins: observed bins T.
        n_forward: forward bins F.
        width: channels D of the latents.
        stride: bins in a step.
        causal: bin t depends on bins up to t only.
        dropout: after the embedding, before the readout.
        mean_rates: (N,) spikes per bin; the readout starts there.
        names: what the readout gives of each entry, see ``neuro_lightning.losses.readout_names``.
    """

    def __init__(
        self,
        n_neurons: int,
        n_bins: int,
        n_forward: int,
        *,
        width: int,
        stride: int,
        causal: bool,
        dropout: tuple[float, float],
        mean_rates: Sequence[float],
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self.n_bins, self.n_forward, self.stride, self.names = n_bins, n_forward, stride, tuple(names)
        self.causal, self.width = causal, width
        self.embedding_dropout, self.readout_dropout = (Dropout(p) for p in dropout)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, n_neurons * len(self.names))
        nn.init.uniform_(self.readout.weight, -0.01, 0.01)
        nn.init.zeros_(self.readout.bias)
        start_at_mean_rates(self.readout, mean_rates, log=names[0] == "log_rates")

    @abstractmethod
    def encode(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) counts -> latents (B, S, width) of all steps, and maybe of some after them."""

    def extra_losses(self, inputs: Tensor) -> dict[str, Tensor]:
        """Terms of the training loss beside that of the rates, by name."""
        return {}

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation, latents (B, L, width)."""
        if inputs.shape[1] > self.n_bins and not self.n_forward:
            return in_windows(self, inputs, self.n_bins)
        n_total = inputs.shape[1] + self.n_forward
        latents = self.encode(inputs)
        values = self._in_bins(F.linear(self.readout_dropout(latents), self.readout.weight), n_total)
        output = split_readout(values + self.readout.bias, self.names)  # also of the bins that no step precedes
        if not self.training:
            return {**output, "latents": self._in_bins(latents, n_total)}
        losses = self.extra_losses(inputs)
        return {**output, "losses": losses} if losses else output

    def _in_bins(self, steps: Tensor, n_total: int) -> Tensor:
        return to_bins(steps, n_total, self.stride, causal=self.causal)[:, :n_total]


def make_relative_bias(reach: tuple[float, float] | None, heads: int, steps: int) -> RelativeBias | None:
    """A layer's bias, with its heads' reaches from the nearest to the farthest; None without.

    Args:
        reach: the nearest and the farthest, in steps, or None.
        heads: of the attention.
        steps: of the longest sequence.
    """
    return None if reach is None else RelativeBias(steps, log_spaced(*reach, heads))


def reach_in_steps(reach_ms: Sequence[float] | None, step_ms: float) -> tuple[float, float] | None:
    """The nearest and the farthest reach in steps; None stays.

    Args:
        reach_ms: the same in ms.
        step_ms: width of a step.

    Raises:
        ConfigError: they are not two numbers above 0, in order.
    """
    if reach_ms is None:
        return None
    if len(reach_ms) != 2 or not 0 < reach_ms[0] <= reach_ms[1]:
        raise ConfigError(
            f"model.reach_ms={list(reach_ms)}: the nearest head's reach and the farthest's, above 0 and in order, such "
            "as [20,320]; null for none"
        )
    return reach_ms[0] / step_ms, reach_ms[1] / step_ms
