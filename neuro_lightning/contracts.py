"""The few agreements between data, models and metrics.

Axes, the same letters everywhere:

==========  ==============================================================
``B``       trials in a batch (or in a split)
``T``       observed bins
``F``       forward bins, predicted beyond the observed window
``L``       ``T + F``
``N_in``    held-in neurons, the model's input
``N_out``   held-out neurons, predicted from the held-in ones (co-smoothing)
``N``       ``N_in + N_out``, held-in first
``K``       behavior channels
``M``       groups of trials that are decoded apart (area2_bump has two, others one)
``C H W``   image channels, height, width; ``C`` also counts conditions in PSTHs
==========  ==============================================================

Times are in ms (``bin_ms``), rates in **spikes per bin** (``rates``, ``log_rates``); Hz appears only in names that
end in ``_hz``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from neuro_lightning.errors import DataError


class Batch(TypedDict):
    """What a data module hands to a model, one dictionary of tensors.

    Attributes:
        inputs: (B, T, N_in) spike counts.
        targets: (B, L, N) spike counts; where ``mask`` is False the number means nothing.
        mask: (B, L, N) bool, True where the value was observed and counts.
        index: (B,) the trial's number in its split.
        behavior: (B, T, K) behavior at the bins' times, NaN where unknown.
        decode_fold: (B, T, M) int8, the cross-validation fold of each bin in decoding, -1 where it is not used.
        condition: (B,) the trial's condition, -1 for none.
        jitter: (B,) bins by which the trial's window was shifted (dmfc_rsg).
        rates: (B, L, N) the true rates in spikes per bin, simulated data only.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    index: Tensor
    behavior: NotRequired[Tensor]
    decode_fold: NotRequired[Tensor]
    condition: NotRequired[Tensor]
    jitter: NotRequired[Tensor]
    rates: NotRequired[Tensor]


class Output(TypedDict):
    """What a network returns.

    Attributes:
        log_rates: (B, L, N) natural log of the expected spikes per bin, shaped like the targets.
        latents: (B, L, D) the network's own description of the population's state.
        losses: extra loss terms by name (a KL divergence, say), scalars.
    """

    log_rates: Tensor
    latents: NotRequired[Tensor]
    losses: NotRequired[dict[str, Tensor]]


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data: plain values, saved in the checkpoint.

    Attributes:
        dataset: the dataset's name, as in ``data=...``.
        n_in: held-in neurons.
        n_out: held-out neurons.
        n_bins: observed bins T.
        n_forward: forward bins F.
        bin_ms: bin width in ms.
        mean_rates: (N,) mean spikes per bin in the training split.
        unit_ids: (N,) the neurons' numbers in the recording, held-in first.
        behavior_dim: behavior channels K, 0 without behavior.
        behavior_kind: ``velocity`` (decoded bin by bin), ``interval`` (dmfc_rsg's trial columns) or ``none``.
        decode_groups: groups of trials M that are decoded apart.
        n_conditions: conditions with a target PSTH, 0 without.
        true_rates: whether the rates behind the spikes are known.
        simulated: whether the recording is simulated.
    """

    dataset: str
    n_in: int
    n_out: int
    n_bins: int
    n_forward: int
    bin_ms: int
    mean_rates: tuple[float, ...] = ()
    unit_ids: tuple[int, ...] = ()
    behavior_dim: int = 0
    behavior_kind: str = "none"
    decode_groups: int = 1
    n_conditions: int = 0
    true_rates: bool = False
    simulated: bool = False

    @property
    def n_neurons(self) -> int:
        """All neurons, N."""
        return self.n_in + self.n_out

    @property
    def n_total(self) -> int:
        """All bins, L = T + F."""
        return self.n_bins + self.n_forward

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, so that a checkpoint opens with ``weights_only=True``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """The inverse of :meth:`to_dict`; unknown keys are refused.

        Raises:
            DataError: a key is unknown or a needed one is missing.
        """
        known = {f.name for f in fields(cls)}
        if extra := set(values) - known:
            raise DataError(
                f"the checkpoint's data description has unknown keys {sorted(extra)}: "
                "it was written by a newer version; upgrade neuro_lightning"
            )
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise DataError(f"the checkpoint's data description is incomplete: {error}") from None
