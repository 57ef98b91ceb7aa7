"""The validation trials in two halves: one selects an ensemble's members, the other measures what that has gained.

A score on the trials that selected is too optimistic, the more so the more was tried. Spikes are scored by bits per
spike: of the held-out neurons (co-bps) where there are any, else of the forward bins, else of all. Everything else is
scored by the squared error.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.likelihood import ZERO_RATE
from neuro_lightning.metrics.catalog import label
from neuro_lightning.metrics.collection import bits_of


class ValidationHalves:
    """Scores predictions of the validation trials on both halves, and extracts what members are selected by.

    Trials are split at random within each condition. Traces have few and long validation sequences: each is cut in
    the middle, and one of its two parts selects.

    Args:
        data: whose split ``val`` it is.
        seed: of the random split.
        space: ``rate``, or ``log_rate`` where log-rates are averaged.

    Attributes:
        selecting: (P,) bool of each trial (or part of a sequence), True in the half that selects.
        part: the number of the trial or part that each entry of the targets, but for neurons, belongs to.
        metric: the label of the score.

    Raises:
        ConfigError: there are too few validation trials, or nothing of them was observed.
    """

    def __init__(self, data: PopulationDataModule, *, seed: int, space: str) -> None:
        spec, dataset = data.spec, data.dataset("val", evaluate=True)
        batch = dataset[list(range(len(dataset)))]
        self.spikes, self.log_space = spec.kind == "spikes", space == "log_rate"
        self.bins, self.neurons, metric = slice(None), slice(None), "mse"
        if self.spikes:
            forward = not spec.n_out and spec.n_forward
            self.bins = slice(spec.n_bins, None) if forward else slice(spec.n_bins)
            self.neurons = slice(spec.n_in if spec.n_out else 0, None)
            metric = "co_bps" if spec.n_out else "fp_bps" if forward else bits_of(spec)[0]
        self.metric = label(metric)
        self.targets = self._region(batch["targets"].numpy())
        self.mask = self._region(batch["mask"].numpy())
        condition = batch["condition"].numpy() if "condition" in batch else np.zeros(len(dataset), int)
        self.part = _parts(self.targets.shape, spec.kind)
        if spec.kind == "traces":
            condition = np.repeat(np.arange(len(dataset)), 2)
        self.selecting = split_in_halves(condition, seed)
        self._selected = self.mask & self.selecting[self.part][..., None]
        self._sums = self._reference()
        if not all(self._sums["weight"] > 0):
            raise ConfigError(
                f"{spec.dataset} has {len(dataset)} validation trials: too few to choose an ensemble with one half of "
                "them and to score it on the other; give ensemble=mean"
            )

    @property
    def description(self) -> str:
        """How many trials are in each half, in a line."""
        unit = "images" if self.part.ndim == 1 else "trials" if self.spikes else "sequence parts"
        others = (~self.selecting).sum()
        return f"{self.selecting.sum()} validation {unit} selected, the scores of the {others} others are independent"

    def losses(self, rates: ndarray) -> ndarray:
        """The loss of each part: ``rate - count ln(rate)``, or the squared error, summed.

        Args:
            rates: (B, L, N) or (B, N) predictions of the validation split.

        Returns:
            (P,) float64, NaN where a prediction is not finite, or a rate negative.
        """
        total = np.zeros(len(self.selecting))
        rates = self._region(rates)
        for rows in row_blocks(self.targets):
            predicted = rates[rows].astype(np.float64)
            targets, mask = self.targets[rows], self.mask[rows]
            with np.errstate(invalid="ignore"):
                if self.spikes:
                    loss = predicted - targets * np.log(np.where(predicted == 0, ZERO_RATE, predicted))
                else:
                    loss = np.square(predicted - targets)
            loss = np.where(mask, loss, 0.0).sum(-1)
            total += np.bincount(self.part[rows].ravel(), loss.ravel(), minlength=len(total))
        return total

    def scores(self, losses: ndarray) -> tuple[float, float]:
        """The scores on the selecting half and on the other, from (P,) losses."""
        loss = np.array([losses[self.selecting].sum(), losses[~self.selecting].sum()])
        score = (self._sums["null"] - loss) / self._sums["weight"] if self.spikes else loss / self._sums["weight"]
        return float(score[0]), float(score[1])

    def gain(self, losses: ndarray, reference: ndarray) -> tuple[float, float | None]:
        """How much better predictions score than a reference on the half that did not select.

        Args:
            losses: (P,) of the predictions.
            reference: (P,) of the reference.

        Returns:
            The gain, positive where the predictions are better, and its standard error over trials or parts; None
            where there are fewer than ten.
        """
        better = (reference - losses)[~self.selecting] / self._sums["weight"][1]
        error = np.sqrt(len(better)) * better.std(ddof=1) if len(better) >= 10 else None
        return float(better.sum()), None if error is None else float(error)

    @property
    def family(self) -> str:
        """The form of the loss, see :mod:`neuro_lightning.functional.selection`."""
        return ("log" if self.log_space else "poisson") if self.spikes else "squared"

    def selection_entries(self) -> tuple[ndarray, ndarray, ndarray]:
        """The entries of the selecting half, neuron by neuron.

        Returns:
            Where they lie in a flattened region, (K,); their targets, (K,) float64; and the first one of each neuron
            and the end, (N + 1,).
        """
        selected = self._selected
        if self.family == "poisson":  # of entries without spikes the sum of rates is enough
            selected = selected & (self.targets > 0)
        counts = selected.reshape(-1, selected.shape[-1]).sum(0)
        neuron_first = np.nonzero(np.moveaxis(selected, -1, 0))
        where = np.ravel_multi_index((*neuron_first[1:], neuron_first[0]), selected.shape)
        targets = np.ravel(self.targets)[where].astype(np.float64)
        return where, targets, np.concatenate([[0], np.cumsum(counts)])

    def member_entries(self, rates: ndarray, where: ndarray) -> tuple[ndarray, ndarray]:
        """A member's predictions at the entries of the selecting half.

        Args:
            rates: (B, L, N) or (B, N) predictions of the validation split.
            where: from :meth:`selection_entries`.

        Returns:
            (K,) float32 rates or log-rates, and (N,) float64 what is linear in the member's weight.
        """
        rates = self._region(rates)
        linear = np.zeros(rates.shape[-1])
        if self.log_space:
            rates = np.log(np.where(rates == 0, np.float32(ZERO_RATE), rates))
        if self.spikes:
            for rows in row_blocks(rates):
                part = rates[rows].astype(np.float64)
                part = np.where(self._selected[rows], -part * self.targets[rows] if self.log_space else part, 0.0)
                linear += part.reshape(-1, len(linear)).sum(0)
        return rates.reshape(-1)[where].astype(np.float32), linear

    def _region(self, values: ndarray) -> ndarray:
        return values[:, self.neurons] if values.ndim == 2 else values[:, self.bins, self.neurons]

    def _reference(self) -> dict[str, ndarray]:
        """For both halves the null model's loss, and what losses are divided by."""
        null, weight = np.zeros(2), np.zeros(2)
        for half, seen in enumerate((self._selected, self.mask & ~self._selected)):
            bins = seen.reshape(-1, seen.shape[-1]).sum(0).astype(np.float64)
            if not self.spikes:
                weight[half] = bins.sum()
                continue
            spikes = np.where(seen, self.targets, 0.0).reshape(-1, len(bins)).sum(0, dtype=np.float64)
            rate = spikes / np.maximum(bins, 1)
            rate = np.where(rate == 0, ZERO_RATE, rate)
            null[half] = (bins * rate - spikes * np.log(rate)).sum()
            weight[half] = spikes.sum() * np.log(2)
        return {"null": null, "weight": weight}


def split_in_halves(condition: ndarray, seed: int) -> ndarray:
    """Which trials are in the selecting half: every second one, in a random order within each condition.

    Args:
        condition: (P,) of each trial.
        seed: of the order.

    Returns:
        (P,) bool; halves differ by one trial at most, in all and in every condition.
    """
    order = np.random.default_rng(seed).permutation(len(condition))
    order = order[np.argsort(condition[order], kind="stable")]
    selecting = np.zeros(len(condition), bool)
    selecting[order[::2]] = True
    return selecting


def _parts(shape: tuple[int, ...], kind: str) -> ndarray:
    """The number of the trial, image or part of a sequence that each bin or image belongs to."""
    trials = np.arange(shape[0])
    if kind == "images":
        return trials
    if kind == "spikes":
        return np.repeat(trials[:, None], shape[1], axis=1)
    return 2 * trials[:, None] + (np.arange(shape[1]) >= shape[1] / 2)
