"""From the counts of one session's neurons to the channels that a core reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.smoothing import kernels_of_past, length_of_past, smooth_observed
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.smoothed import kernels_in_steps, smoothed_copies, smoothed_shares
from neuro_lightning.nn.stepping import State
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
        start: where the maps of several sessions begin: at ``random``, or with factors of the ``conditions`` that the
            sessions share, see ``neuro_lightning.runs.stitching``.

    Raises:
        ConfigError: there is no input, no such width or start, or an embedding of counts that are not read.
    """

    counts: bool = True
    smoothed_ms: Sequence[float] = ()
    count_width: int = 0
    max_count: int = 8
    width: int | Literal["auto"] | None = None
    dropout: float = 0.0
    start: Literal["random", "conditions"] = "random"

    def __post_init__(self) -> None:
        if self.start not in ("random", "conditions"):
            raise ConfigError(f"model.readin.start={self.start}: random or conditions")
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

    def build(self, spec: DataSpec, steps: Steps, core_width: int) -> ReadIn:
        """The read-in of a session.

        Args:
            spec: the description of the session.
            steps: of the network.
            core_width: of the core, which ``auto`` stands for.
        """
        return ReadIn(spec, steps, self, core_width)


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

    A count that was not recorded is no zero, which would read as silence. Where some are missing, a step's sum is that
    of its recorded bins, scaled to the whole step; without any the neuron shows a value that is learnt, ``token``, and
    begins at its mean. Embedded counts have a row of the table for it.

    Args:
        spec: the description of the session.
        steps: of the network.
        settings: what is read.
        core_width: the width of the core.
    """

    past_kernels: Tensor
    stand_in: Tensor

    def __init__(self, spec: DataSpec, steps: Steps, settings: ReadInSettings, core_width: int) -> None:
        super().__init__()
        self.steps, self.counts = steps, settings.counts
        self.most = settings.max_count + 1  # the row of all larger counts
        self.kernels = kernels_in_steps(settings.smoothed_ms, steps.ms)
        embedded, dropout = settings.count_width > 0, Dropout(settings.dropout)
        sds = torch.tensor(self.kernels)
        past = kernels_of_past(sds, length_of_past(sds)) if self.kernels else torch.empty(0, 0)
        self.register_buffer("past_kernels", past, persistent=False)  # of a step that has a past, for causal kernels
        self.dropout = nn.Identity() if embedded else dropout
        self.embedding = (
            nn.Sequential(CountEmbedding(settings.max_count + spec.partial, settings.count_width), dropout)
            if embedded
            else nn.Identity()
        )
        channels = spec.n_in * (max(1, settings.count_width) * self.counts + len(self.kernels))
        width = core_width if settings.width == "auto" else settings.width
        self.linear = nn.Linear(channels, width) if width else nn.Identity()
        self.width = width or channels
        needed = spec.partial and (len(self.kernels) > 0 or not embedded)
        self.token = nn.Parameter(_mean_in_step(spec, steps)) if needed else None
        self.has_row = spec.partial  # of the table, for counts that were not recorded
        mean = _mean_in_step(spec, steps)
        self.register_buffer("stand_in", torch.zeros_like(mean) if spec.partial else mean, persistent=False)

    def unit_weights(self, n_in: int) -> list[Tensor]:
        """Views (N_in, ..., width) of the linear map's weights: of the counts, and of each smoothed copy of them."""
        if not isinstance(self.linear, nn.Linear):
            return []
        copies = len(self.kernels)
        of_counts, *smoothed = self.linear.weight.T.split([self.linear.in_features - n_in * copies, *[n_in] * copies])
        return [*([of_counts.unflatten(0, (n_in, -1))] if self.counts else []), *smoothed]

    def forward(self, inputs: Tensor, n_total: int, observed: Tensor | None = None) -> Tensor:
        """(B, T, N_in) counts -> channels (B, S, width) of the steps that cover ``n_total`` bins.

        Args:
            inputs: the counts.
            n_total: bins L, T or more.
            observed: bool like the inputs, True where they were recorded; None is everywhere.
        """
        return self.embed(self.in_steps(inputs, n_total, observed), inputs.shape[1], observed)

    def in_steps(self, inputs: Tensor, n_total: int, observed: Tensor | None = None) -> Tensor:
        """(B, T, N_in) counts -> their sums (B, S, N_in) in steps, zeros after the T bins; see :meth:`forward`."""
        if observed is None:
            return to_steps(self.dropout(inputs), n_total, self.steps.stride)
        sums = to_steps(self.dropout(torch.where(observed, inputs, 0.0)), n_total, self.steps.stride)
        share = self._share(observed, sums)
        return self._whole_steps(sums, share, self._missing(share, observed))

    def embed(self, steps: Tensor, n_bins: int, observed: Tensor | None = None) -> Tensor:
        """Sums in steps (B, S, N_in), of which the first ``n_bins`` bins hold something -> (B, S, width)."""
        return self.linear(self.channels(steps, n_bins, observed))

    def channels(self, steps: Tensor, n_bins: int, observed: Tensor | None = None) -> Tensor:
        """What the linear map reads, (B, S, P); see :meth:`embed`."""
        seen, causal = self.steps.cover(n_bins), self.steps.causal
        if observed is None:
            return self._side_by_side(steps, smoothed_copies(steps, seen, self.kernels, causal=causal))
        share = self._share(observed, steps)
        copies = smoothed_shares(steps, share, seen, self.kernels, self.unseen, causal=causal)
        return self._side_by_side(steps, copies, self._missing(share, observed))

    def initial_state(self, batch: int) -> State:
        """What :meth:`step` needs before a trial's first step, for ``batch`` trials."""
        if not self.kernels:
            return {}
        nothing = self.unseen.new_zeros(batch, self.past_kernels.shape[1], len(self.unseen))
        return {"past": nothing, "share": nothing}

    def step(self, sums: Tensor, share: Tensor, state: State) -> tuple[Tensor, State]:
        """What :meth:`forward` says of the next step, (B, 1, width), and the state after it; the read-in is causal.

        Args:
            sums: (B, N_in) of the step's recorded counts.
            share: (B, N_in) their recorded share, 0 to 1.
            state: after the step before.
        """
        missing = (share == 0)[:, None]
        steps, copies = self.in_step(sums, share), []
        share = share[:, None]
        if self.kernels:
            now = {"past": steps, "share": share}
            state = {name: torch.cat([state[name][:, 1:], value], dim=1) for name, value in now.items()}
            copies = list(
                smooth_observed(self.past_kernels, state["past"], state["share"], self.unseen).split(1, dim=1)
            )
        return self.linear(self._side_by_side(steps, copies, missing)), state

    def in_step(self, sums: Tensor, share: Tensor) -> Tensor:
        """What :meth:`in_steps` says of one step, (B, 1, N_in); see :meth:`step`."""
        share = share[:, None]
        return self._whole_steps(sums[:, None], share, share == 0)

    @property
    def unseen(self) -> Tensor:
        """(N_in,) what neurons show that were not recorded: their token, or their mean where training saw them all."""
        return self.stand_in if self.token is None else self.token

    def _whole_steps(self, sums: Tensor, share: Tensor, missing: Tensor) -> Tensor:
        """Sums of the recorded bins (B, S, N_in), of which so large a share was recorded, scaled to whole steps."""
        return torch.where(missing, self.unseen, sums / share.clamp_min(1 / self.steps.stride))

    def _side_by_side(self, steps: Tensor, copies: list[Tensor], missing: Tensor | None = None) -> Tensor:
        """Steps (B, S, N_in), embedded if they are to be, and copies of them, as channels (B, S, P)."""
        if not self.counts:
            return torch.cat(copies, dim=2)
        counts = steps
        if not isinstance(self.embedding, nn.Identity):
            counts = steps.round().clamp_max(self.most)
            if self.has_row and missing is not None:
                counts = torch.where(missing, self.most + 1, counts)
        return torch.cat([self.embedding(counts), *copies], dim=2)

    def _share(self, observed: Tensor, steps: Tensor) -> Tensor:
        """The recorded share of each step, like ``steps`` (B, S, N_in); 0 after the T bins."""
        stride = self.steps.stride
        return to_steps(observed.to(steps.dtype), steps.shape[1] * stride, stride) / stride

    def _missing(self, share: Tensor, observed: Tensor) -> Tensor:
        """Steps without any recorded bin, bool like ``share``; the forward bins are not among them."""
        first = torch.arange(share.shape[1], device=share.device) < self.steps.cover(observed.shape[1])
        return (share == 0) & first[:, None]


def _mean_in_step(spec: DataSpec, steps: Steps) -> Tensor:
    """(N_in,) mean counts of the held-in neurons in a step; zeros where they are not known."""
    mean = torch.tensor(spec.mean_rates[: spec.n_in]) * steps.stride
    return mean if len(mean) else torch.zeros(spec.n_in)
