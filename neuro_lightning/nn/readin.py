"""From the counts of one session's neurons to the channels that a core reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from neuro_lightning.errors import ConfigError
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.smoothed import kernels_in_steps, smoothed_copies
from neuro_lightning.nn.steps import Steps, to_steps


@dataclass(frozen=True)
class ReadInSettings:
    """What a core reads of a step.

    Attributes:
        counts: the neurons' counts in the step.
        smoothed_ms: standard deviations of Gaussian kernels; counts smoothed with each are read beside the counts, or
            alone: what each layer passes on is then smooth from the start.
        count_width: width of an embedding of each count; 0 takes counts as they are.
        max_count: larger counts share an embedding.
        width: channels after a linear map; ``auto`` is the core's own width; None has no map.
        dropout: of the counts in bins; of embedded counts, which must stay whole, of their vectors.

    Raises:
        ConfigError: there is no input, no such width, or an embedding of counts that are not read.
    """

    counts: bool = True
    smoothed_ms: Sequence[float] = ()
    count_width: int = 0
    max_count: int = 8
    width: int | Literal["auto"] | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts and not self.smoothed_ms:
            raise ConfigError(
                "model.readin.counts=false leaves no input without model.readin.smoothed_ms, such as [20,50,120]"
            )
        if self.width not in ("auto", None) and (not isinstance(self.width, int) or self.width < 1):
            raise ConfigError(f"model.readin.width={self.width}: a number of channels, auto or null")
        if self.count_width and not self.counts:
            raise ConfigError(
                f"model.readin.count_width={self.count_width} embeds counts: it needs model.readin.counts=true"
            )

    def build(self, n_in: int, steps: Steps, core_width: int) -> ReadIn:
        """The read-in of a session.

        Args:
            n_in: held-in neurons of the session.
            steps: of the network.
            core_width: of the core, which ``auto`` stands for.
        """
        return ReadIn(n_in, steps, self, core_width)


class CountEmbedding(nn.Module):
    """Each neuron's count becomes a vector from one table, and a step the vectors of its neurons in a row.

    Args:
        max_count: larger counts share a row of the table.
        width: of a vector.
    """

    def __init__(self, max_count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_count + 2, width)
        nn.init.uniform_(self.table.weight, -0.1, 0.1)

    def forward(self, counts: Tensor) -> Tensor:
        """(B, S, N) -> (B, S, N * width)."""
        return self.table(counts.long().clamp(0, self.table.num_embeddings - 1)).flatten(2)


class ReadIn(nn.Module):
    """Counts in bins -> sums in steps, and copies smoothed over time -> maybe a linear map -> channels of a step.

    Args:
        n_in: held-in neurons.
        steps: of the network.
        settings: what is read.
        core_width: the width of the core.
    """

    def __init__(self, n_in: int, steps: Steps, settings: ReadInSettings, core_width: int) -> None:
        super().__init__()
        self.steps, self.counts = steps, settings.counts
        self.kernels = kernels_in_steps(settings.smoothed_ms, steps.ms)
        embedded, dropout = settings.count_width > 0, Dropout(settings.dropout)
        self.dropout = nn.Identity() if embedded else dropout
        self.embedding = (
            nn.Sequential(CountEmbedding(settings.max_count, settings.count_width), dropout)
            if embedded
            else nn.Identity()
        )
        channels = n_in * (max(1, settings.count_width) * self.counts + len(self.kernels))
        width = core_width if settings.width == "auto" else settings.width
        self.linear = nn.Linear(channels, width) if width else nn.Identity()
        self.width = width or channels

    def unit_weights(self, n_in: int) -> list[Tensor]:
        """Views (N_in, ..., width) of the linear map's weights: of the counts, and of each smoothed copy of them."""
        if not isinstance(self.linear, nn.Linear):
            return []
        copies = len(self.kernels)
        of_counts, *smoothed = self.linear.weight.T.split([self.linear.in_features - n_in * copies, *[n_in] * copies])
        return [*([of_counts.unflatten(0, (n_in, -1))] if self.counts else []), *smoothed]

    def forward(self, inputs: Tensor, n_total: int) -> Tensor:
        """(B, T, N_in) counts -> channels (B, S, width) of the steps that cover ``n_total`` bins."""
        return self.embed(self.in_steps(inputs, n_total), inputs.shape[1])

    def in_steps(self, inputs: Tensor, n_total: int) -> Tensor:
        """(B, T, N_in) counts -> their sums (B, S, N_in) in steps, zeros after the observed bins."""
        return to_steps(self.dropout(inputs), n_total, self.steps.stride)

    def embed(self, steps: Tensor, observed: int) -> Tensor:
        """Sums in steps (B, S, N_in), of which the first ``observed`` bins hold something -> (B, S, width)."""
        copies = smoothed_copies(steps, self.steps.cover(observed), self.kernels, causal=self.steps.causal)
        shown = [self.embedding(steps), *copies] if self.counts else copies
        return self.linear(torch.cat(shown, dim=2))
