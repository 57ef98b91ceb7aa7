"""A recording as numpy arrays: what every reader returns and every data module serves."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from neuro_lightning.data.images import ImageTrials

TRIAL_ARRAYS = (
    "heldin",
    "heldout",
    "heldin_forward",
    "heldout_forward",
    "behavior",
    "decode_mask",
    "scored",
    "condition",
    "jitter",
    "rates",
    "row",
)


@dataclass
class Trials:
    """The trials of one split. The first axis of every array is the trial, in the order of the trial table.

    Attributes:
        heldin: (B, T, N_in) spike counts, uint8 where they fit, or activity as float32.
        heldout: (B, T, N_out) spike counts, or None where they are hidden (the benchmark's test split).
        heldin_forward: (B, F, N_in) spike counts after the window, or None.
        heldout_forward: (B, F, N_out), or None.
        behavior: (B, T, K) float, NaN where unknown; trial-level behavior (dmfc_rsg) is (B, K). None without.
        decode_mask: (B, M) bool, the groups of trials that are decoded apart; None means one group with every trial.
        scored: (B, T) bool, the bins in which held-out spikes are scored; None means all (dmfc_rsg: set to go).
        condition: (B,) int64, the trial's condition, -1 for none; None without conditions.
        jitter: (B,) int64, bins by which each window was shifted; None for none.
        rates: (B, T + F, N) float32, the true rates in spikes per bin; simulated data only.
        row: (B,) int64, the trial's row in the recording's trial table.
    """

    heldin: np.ndarray
    heldout: np.ndarray | None = None
    heldin_forward: np.ndarray | None = None
    heldout_forward: np.ndarray | None = None
    behavior: np.ndarray | None = None
    decode_mask: np.ndarray | None = None
    scored: np.ndarray | None = None
    condition: np.ndarray | None = None
    jitter: np.ndarray | None = None
    rates: np.ndarray | None = None
    row: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.heldin)

    def take(self, index: np.ndarray) -> Trials:
        """The trials at ``index`` (integers or a boolean mask), in that order."""
        values = {name: getattr(self, name) for name in TRIAL_ARRAYS}
        return Trials(**{name: None if v is None else v[index] for name, v in values.items()})


@dataclass
class Recording:
    """A recording cut into trials or images, with what is needed to score predictions of it.

    Attributes:
        name: the dataset's name.
        bin_ms: bin width in ms; 0 for images.
        splits: ``train`` and ``val``, and ``test`` where there is one.
        unit_ids: (N,) the neurons' numbers in the file, held-in first.
        psth: (C, T, N) target PSTHs in spikes per bin, NaN where undefined; None without conditions.
        kind: ``spikes`` or ``traces``, whose splits are :class:`Trials`, or ``images``, with
            :class:`neuro_lightning.data.images.ImageTrials`.
        behavior_kind: ``velocity``, ``interval`` or ``none`` (see ``DataSpec``).
        simulated: whether the responses are simulated.
        sources: the files it was made from, each a dictionary with ``path``, ``size`` and, where known, ``sha256``.
        info: anything else worth keeping, plain values (the trial split, the sampled neurons, ...).
    """

    name: str
    bin_ms: int
    splits: dict[str, Trials] | dict[str, ImageTrials]
    unit_ids: np.ndarray
    psth: np.ndarray | None = None
    kind: str = "spikes"
    behavior_kind: str = "none"
    simulated: bool = False
    sources: list[dict[str, Any]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


def compact(counts: np.ndarray) -> np.ndarray:
    """Spike counts as uint8 where every value is a whole number from 0 to 255, else as float32."""
    if counts.dtype == np.uint8:
        return counts
    if counts.size and (np.isnan(counts).any() or counts.min() < 0 or counts.max() > 255 or (counts % 1).any()):
        return counts.astype(np.float32)
    return counts.astype(np.uint8)


assert tuple(f.name for f in fields(Trials)) == TRIAL_ARRAYS
