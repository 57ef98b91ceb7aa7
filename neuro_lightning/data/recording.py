"""A recording as numpy arrays: what every reader returns and every data module serves."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.split_arrays import SplitArrays


@dataclass
class Trials(SplitArrays):
    """The trials of one split. The first axis of every array is the trial, in the order of the trial table.

    Attributes:
        heldin: (B, T, N_in) spike counts, uint8 where they fit, or activity as float32.
        heldout: (B, T, N_out) spike counts, or None where they are hidden (the benchmark's test split).
        heldin_forward: (B, F, N_in) spike counts after the window, or None.
        heldout_forward: (B, F, N_out), or None.
        behavior: (B, T, K) float, NaN where unknown; trial-level behavior (dmfc_rsg) is (B, K). None without.
        decode_mask: (B, M) bool, the groups of trials that are decoded apart; None means one group with every trial.
        observed: (B, T, N) bool, held-in neurons first, True where a neuron was recorded in that bin of that trial;
            None means everything. What other arrays hold elsewhere is no measurement. Trials that are shorter than T
            have no True in their last bins.
        scored: (B, T) bool, the bins in which spikes of held-out and withheld neurons are scored; None means all
            (dmfc_rsg: set to go).
        withheld: (B, N_in) bool, held-in neurons that are hidden from the input of a trial and alone are scored in the
            observed bins, where the split is evaluated; without a True no observed bin is scored. None scores all.
        condition: (B,) int64, the trial's condition, -1 for none; None without conditions.
        jitter: (B,) int64, bins by which each window was shifted; None for none.
        rates: (B, T + F, N) float32, the true rates in spikes per bin; simulated data only.
        labels: (B, J) float, what is known of each trial, NaN where unknown, a column for each of ``info["labels"]``,
            which says how text is written as numbers; None without.
        row: (B,) int64, the trial's row in the recording's trial table.
    """

    heldin: np.ndarray
    heldout: np.ndarray | None = None
    heldin_forward: np.ndarray | None = None
    heldout_forward: np.ndarray | None = None
    behavior: np.ndarray | None = None
    decode_mask: np.ndarray | None = None
    observed: np.ndarray | None = None
    scored: np.ndarray | None = None
    withheld: np.ndarray | None = None
    condition: np.ndarray | None = None
    jitter: np.ndarray | None = None
    rates: np.ndarray | None = None
    labels: np.ndarray | None = None
    row: np.ndarray | None = None

    def joined(self, other: Trials) -> Trials:
        """The trials of both, with those arrays that both have, and with ``observed`` if one has it."""
        if (self.observed is None) == (other.observed is None):
            return super().joined(other)
        known = self if other.observed is None else other
        full = [np.ones((len(trials), *known.observed.shape[1:]), bool) for trials in (self, other)]
        pairs = zip((self, other), full, strict=True)
        one, two = (trials if trials is known else replace(trials, observed=ones) for trials, ones in pairs)
        return one.joined(two)

    def blank_padding(self, values: np.ndarray) -> np.ndarray:
        """Values of bins (B, L, D) with NaN after each trial's end; unchanged where all trials are of one length.

        Forward bins are predicted in every trial: with some, there is no padding.
        """
        if self.observed is None or values.shape[1] != self.observed.shape[1]:
            return values
        return np.where(padding(self.observed)[..., None], np.array(np.nan, values.dtype), values)

    @classmethod
    def from_counts(cls, counts: np.ndarray, n_bins: int, n_in: int, **others: np.ndarray | None) -> Trials:
        """Trials of (B, L, N) counts: the first ``n_bins`` are observed, the first ``n_in`` neurons are held in.

        Args:
            counts: spike counts.
            n_bins: observed bins T; what follows are forward bins.
            n_in: held-in neurons; the others are held out.
            others: the other arrays, by name.
        """
        seen, ahead = counts[:, :n_bins], counts[:, n_bins:] if n_bins < counts.shape[1] else None
        has_out = n_in < counts.shape[2]
        return cls(
            heldin=seen[:, :, :n_in],
            heldout=seen[:, :, n_in:] if has_out else None,
            heldin_forward=None if ahead is None else ahead[:, :, :n_in],
            heldout_forward=ahead[:, :, n_in:] if has_out and ahead is not None else None,
            **others,
        )


@dataclass
class Recording:
    """A recording cut into trials or images, with what is needed to score predictions of it.

    Attributes:
        name: the dataset's name.
        bin_ms: bin width in ms; 0 for images.
        splits: ``train`` and ``val``, and ``test`` where there is one.
        unit_ids: (N,) the neurons' numbers or names in the file, held-in first.
        unit_positions: (N, 2) where each neuron lies, in any unit; None where unknown.
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
    unit_positions: np.ndarray | None = None
    psth: np.ndarray | None = None
    kind: str = "spikes"
    behavior_kind: str = "none"
    simulated: bool = False
    sources: list[dict[str, Any]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, those of the splits as ``splits/train/heldin``."""
        found = {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), np.ndarray)}
        for split, part in self.splits.items():
            found |= {f"splits/{split}/{name}": values for name, values in part.arrays().items()}
        return found


def padding(observed: np.ndarray) -> np.ndarray:
    """(B, T) bool, the bins after a trial's end: no neuron was recorded from there on.

    Args:
        observed: (B, T, N) bool.
    """
    return ~np.logical_or.accumulate(observed.any(2)[:, ::-1], axis=1)[:, ::-1]


def compact(counts: np.ndarray) -> np.ndarray:
    """Spike counts as uint8 where every value is a whole number from 0 to 255, else as float32."""
    if counts.dtype == np.uint8:
        return counts
    if counts.size and (np.isnan(counts).any() or counts.min() < 0 or counts.max() > 255 or (counts % 1).any()):
        return counts.astype(np.float32)
    return counts.astype(np.uint8)
