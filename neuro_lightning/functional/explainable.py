"""Responses to repeated images: how much of them a model could explain, and how much of that it does.

A neuron's response to an image is its true mean for the image plus noise. Repeats of the same image tell the two apart:

- noise variance ``s_n``: variance (ddof 1) over an image's repeats, mean over the images with at least two;
- total variance ``s_t``: variance (ddof 1) over all single responses;
- FEV, the fraction of explainable variance: ``(s_t - s_n) / s_t``;
- FEVE, the fraction of it that is explained: ``1 - (mse - s_n) / (s_t - s_n)``, where ``mse`` is the mean squared error
  of a prediction against the single responses. The true means score about 1, the best constant about 0;
- signal power ``sp``: mean covariance over images of two different repeats, an unbiased estimate of the true means'
  variance; with equal numbers of repeats it is that of Schoppe et al. (2016);
- ``cc_max = sqrt(sp / var(averages))``: what the true means' correlation with the averages over repeats is expected to
  be, and ``cc_norm = cc_abs / cc_max``, a prediction's correlation with the averages as a share of it (Schoppe et al.);
- oracles: correlation of single responses with the mean of the image's other repeats (leave-one-out, too low since
  that mean is noisy itself), and ``sqrt(S / (S + s_n))`` with ``S`` the variance (ddof 0) of the averages
  ("conservative" since it is too high: ``S`` holds what noise is left in the averages).

Axes: B images, R repeats, N neurons. A repeat that was not shown is NaN; images may differ in their numbers of repeats,
and one without any counts nowhere. Where a quantity is undefined (one repeat only, a neuron that never varies,
no signal power) it is NaN; the means over neurons say what they make of that. Everything is float64.

Sources: Schoppe et al. 2016 (Frontiers in Computational Neuroscience 10:10) for cc_max and cc_norm; Cadena et al. 2019
(PLoS Computational Biology 15:e1006897) for FEV and FEVE; Walker et al. 2019 and Lurz et al. 2021 for the oracles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from neuro_lightning.functional.correlation import variation

MIN_FEV = 0.15
"""Neurons below it are left out of mean FEVE, as in the Sensorium competition: there is next to nothing to explain."""


# ---- pairs of numbers: sums that add up over batches


def moment_sums(x: Tensor, y: Tensor, observed: Tensor) -> Tensor:
    """Sums from which correlations and squared errors of each neuron are read; they add up over batches.

    Args:
        x: (..., N) one side of the pairs; what is not observed may be anything, NaN included.
        y: (..., N) the other side.
        observed: (..., N) bool, the pairs that count.

    Returns:
        (7, N) float64: count, sums of x, y, x^2, y^2, x y and (x - y)^2.
    """
    x, y, observed = (part.flatten(0, -2) for part in torch.broadcast_tensors(x, y, observed))
    x, y = torch.where(observed, x.double(), 0.0), torch.where(observed, y.double(), 0.0)
    return torch.stack([observed.double(), x, y, x * x, y * y, x * y, (x - y).square()]).sum(1)


def correlation(moments: Tensor) -> Tensor:
    """Pearson's correlation.

    Args:
        moments: (7, N) of :func:`moment_sums`.

    Returns:
        (N,) in [-1, 1]; NaN where a side does not vary, for fewer than two pairs, or for numbers that are not finite.
    """
    count, x, y, xx, yy, xy, _ = moments
    product = variation(count, x, xx) * variation(count, y, yy)
    r = (xy - x * y / count) / product.sqrt()
    return torch.where((count > 1) & (product > 0), r.clamp(-1, 1), torch.nan)


def variance(moments: Tensor, *, ddof: int) -> Tensor:
    """(N,) variance of x of :func:`moment_sums`; NaN for too few pairs."""
    count, x, _, xx = moments[:4]
    return torch.where(count > ddof, variation(count, x, xx) / (count - ddof), torch.nan)


def mean_correlation(moments: Tensor) -> Tensor:
    """Mean correlation over neurons; one that is undefined since a side does not vary counts as 0.

    Neurons with fewer than two pairs are left out. The mean is NaN if there are no others, or if any number is not
    finite: a diverged model has no score.

    Args:
        moments: (7, N) of :func:`moment_sums`.
    """
    if not moments.isfinite().all():
        return moments.new_tensor(math.nan)
    return correlation(moments).nan_to_num()[moments[0] > 1].mean()


# ---- repeats: sums that add up over batches


class RepeatSums(NamedTuple):
    """The sums over images that :func:`explainable_from_sums` needs; each adds up over batches.

    Attributes:
        averages: (7, N) moments of the averages over repeats (with themselves), images as samples.
        trials: (7, N) moments of the single responses (with themselves).
        others: (7, N) moments of single responses with the mean of the image's other repeats.
        noise: (3, N) images with at least two repeats, the sum of their variances (ddof 1) over repeats, and the sum
            over all shown images of 1 / number of repeats.
        pairs: (3, R, R, N) of repeats r and s: images with both, the sums of response r and of r times s over these.
    """

    averages: Tensor
    trials: Tensor
    others: Tensor
    noise: Tensor
    pairs: Tensor

    @staticmethod
    def shapes(n_repeats: int, n_neurons: int) -> dict[str, tuple[int, ...]]:
        """The sums' shapes by name."""
        moments = {name: (7, n_neurons) for name in ("averages", "trials", "others")}
        return {**moments, "noise": (3, n_neurons), "pairs": (3, n_repeats, n_repeats, n_neurons)}


def repeat_sums(repeats: Tensor) -> RepeatSums:
    """The sums of some images.

    Args:
        repeats: (B, R, N) single responses, NaN where there was none. Subtracting about each neuron's mean beforehand
            changes no result and keeps it precise.
    """
    seen = ~repeats.isnan()
    y = repeats.double().nan_to_num()
    counts = seen.double()
    count = counts.sum(1)
    total = y.sum(1)
    average = total / count
    deviation = torch.where(seen, y - average[:, None], 0.0)
    several = count > 1
    noise = torch.where(several, deviation.square().sum(1) / (count - 1), 0.0)
    others = (total[:, None] - y) / (count - 1)[:, None]
    noises = torch.stack([several.double(), noise, torch.where(count > 0, 1 / count, 0.0)])
    both = torch.einsum("brn,bsn->rsn", counts, counts)
    first = torch.einsum("brn,bsn->rsn", y, counts)
    product = torch.einsum("brn,bsn->rsn", y, y)
    return RepeatSums(
        averages=moment_sums(average, average, count > 0),
        trials=moment_sums(y, y, seen),
        others=moment_sums(y, others, seen & several[:, None]),
        noise=noises.sum(1),
        pairs=torch.stack([both, first, product]),
    )


class Explainable(NamedTuple):
    """What there is to explain, of each neuron (N,); NaN where it is undefined.

    Attributes:
        noise_variance: s_n; NaN without an image shown twice.
        total_variance: s_t.
        fev: fraction of explainable variance, at most 1 and negative where noise happens to exceed the total.
        signal_power: mean covariance of two repeats over images; negative by chance where there is no signal.
        cc_max: expected correlation of the true means with the averages over repeats; NaN without signal power.
        trial_max: expected correlation of the true means with single responses, sqrt(sp / s_t); NaN likewise.
        oracle: leave-one-out oracle correlation.
        conservative_oracle: sqrt(S / (S + s_n)).
        average_noise: mean over images of the noise variance left in their averages, s_n / number of repeats.
    """

    noise_variance: Tensor
    total_variance: Tensor
    fev: Tensor
    signal_power: Tensor
    cc_max: Tensor
    trial_max: Tensor
    oracle: Tensor
    conservative_oracle: Tensor
    average_noise: Tensor


def explainable_from_sums(sums: RepeatSums) -> Explainable:
    """The ceilings of each neuron from the sums over all images."""
    shown_twice, noise, inverse = sums.noise
    noise_variance = noise / shown_twice  # 0 / 0 is the NaN of a neuron without repeats
    total_variance = variance(sums.trials, ddof=1)
    signal_power = _signal_power(sums.pairs)
    averages = variance(sums.averages, ddof=0)
    return Explainable(
        noise_variance=noise_variance,
        total_variance=total_variance,
        fev=_ratio(total_variance - noise_variance, total_variance),
        signal_power=signal_power,
        cc_max=_ratio(signal_power.clamp_min(0), variance(sums.averages, ddof=1), positive=True).clamp(max=1).sqrt(),
        trial_max=_ratio(signal_power.clamp_min(0), total_variance, positive=True).clamp(max=1).sqrt(),
        oracle=correlation(sums.others),
        conservative_oracle=_ratio(averages, averages + noise_variance).sqrt(),
        average_noise=noise_variance * inverse / sums.averages[0],
    )


def explainable(repeats: Tensor) -> Explainable:
    """The ceilings of each neuron.

    Args:
        repeats: (B, R, N) single responses, NaN where there was none.
    """
    return explainable_from_sums(repeat_sums(centred(repeats)[0]))


def centred(repeats: Tensor) -> tuple[Tensor, Tensor]:
    """``(repeats - mean, mean)`` in float64 with each neuron's mean (N,) over what was observed, 0 for nothing."""
    mean = repeats.double().nanmean((0, 1)).nan_to_num()
    return repeats.double() - mean, mean


def _signal_power(pairs: Tensor) -> Tensor:
    """(N,) mean covariance of repeats r != s over the images that have both, weighted by degrees of freedom."""
    both, first, product = pairs
    scatter = torch.where(both > 1, product - first * first.transpose(0, 1) / both, 0.0)
    freedom = (both - 1).clamp_min(0)
    apart = ~torch.eye(both.shape[0], dtype=torch.bool, device=both.device)
    return scatter[apart].sum(0) / freedom[apart].sum(0)


def _ratio(numerator: Tensor, denominator: Tensor, *, positive: bool = False) -> Tensor:
    """NaN instead of a division by zero, and, if it must be ``positive``, instead of a zero too."""
    defined = (denominator > 0) & ((numerator > 0) | (not positive))
    return torch.where(defined, numerator / denominator, torch.nan)


# ---- predictions against repeats


def trial_moments(repeats: Tensor, predictions: Tensor) -> Tensor:
    """(7, N) moments of single responses with predictions (B, N); see :func:`moment_sums`."""
    return moment_sums(repeats, predictions[:, None], ~repeats.isnan())


def feve_from_sums(trials: Tensor, found: Explainable) -> Tensor:
    """(N,) FEVE of the predictions in ``trials`` (of :func:`trial_moments`); NaN without explainable variance."""
    error = trials[6] / trials[0]
    left = found.total_variance - found.noise_variance
    return torch.where(left > 0, 1 - (error - found.noise_variance) / left, torch.nan)


def feve(repeats: Tensor, predictions: Tensor) -> Tensor:
    """Fraction of the explainable variance that predictions explain.

    Args:
        repeats: (B, R, N) single responses, NaN where there was none.
        predictions: (B, N) expected responses.

    Returns:
        (N,), NaN where there is no explainable variance (``s_t <= s_n``, one repeat only).

    Example:
        >>> repeats = torch.tensor([[[1.0], [1.2]], [[3.0], [2.8]], [[5.0], [5.0]]])  # 3 images, 2 repeats, 1 neuron
        >>> feve(repeats, repeats.mean(1)).round(decimals=2)  # the best that can be predicted
        tensor([1.], dtype=torch.float64)
    """
    repeats, mean = centred(repeats)
    return feve_from_sums(trial_moments(repeats, predictions - mean), explainable_from_sums(repeat_sums(repeats)))


def reliable(fev: Tensor) -> Tensor:
    """(N,) bool, the neurons over which FEVE is averaged: FEV of at least 0.15."""
    return fev >= MIN_FEV


def mean_feve(feve: Tensor, fev: Tensor) -> tuple[Tensor, int]:
    """Mean FEVE over the neurons with FEV of at least 0.15, and how many these are; NaN over none."""
    chosen = reliable(fev)
    return feve[chosen].mean(), int(chosen.sum())


def trial_correlation(repeats: Tensor, predictions: Tensor) -> Tensor:
    """(N,) correlation of predictions (B, N) with all single responses (B, R, N), NaN where one side is constant."""
    repeats, mean = centred(repeats)
    return correlation(trial_moments(repeats, predictions - mean))


def average_correlation(repeats: Tensor, predictions: Tensor) -> Tensor:
    """(N,) correlation of predictions (B, N) with the averages over repeats (B, R, N), NaN where one is constant."""
    repeats, mean = centred(repeats)
    average = repeats.nanmean(1)
    return correlation(moment_sums(average, predictions - mean, ~average.isnan()))


def cc_norm(repeats: Tensor, predictions: Tensor) -> Tensor:
    """(N,) correlation with the averages as a share of ``cc_max``; noise can lift it above 1. NaN without a ceiling."""
    return average_correlation(repeats, predictions) / explainable(repeats).cc_max


def mean_cc_norm(correlations: Tensor, cc_max: Tensor, fev: Tensor) -> Tensor:
    """Mean of ``cc_norm`` over the neurons with FEV of at least 0.15 and a ceiling: near 0 it is all noise.

    Args:
        correlations: (N,) with the averages; NaN (a constant prediction) counts as 0.
        cc_max: (N,).
        fev: (N,).

    Returns:
        A scalar, NaN over none.
    """
    chosen = reliable(fev) & cc_max.isfinite()
    return (correlations.nan_to_num() / cc_max)[chosen].mean()


def oracle_fraction(correlations: Tensor, oracle: Tensor) -> Tensor:
    """Slope, through the origin, of a model's single-trial correlations on the oracle's, over neurons.

    Args:
        correlations: (N,) the model's; NaN (a constant prediction) counts as 0.
        oracle: (N,) leave-one-out oracle; neurons for which it is NaN are left out.

    Returns:
        A scalar, NaN without an oracle.
    """
    known = oracle.isfinite()
    x, y = oracle[known], correlations[known].nan_to_num()
    return (x @ y) / (x @ x)


# ---- ceilings


def ceilings(repeats: Tensor) -> dict[str, float]:
    """What the true mean responses are expected to score, by the name of the metric; NaN where no image was repeated.

    =================== ============================================================================================
    ``corr``            mean over neurons of ``cc_max``
    ``trial_corr``      mean over neurons of ``sqrt(sp / s_t)``
    ``rmse``            root of the noise variance left in the averages, ``s_n`` / number of repeats, over all entries
    ``rmse_columns``    its root for each neuron, mean over neurons
    ``feve``            1 by definition
    ``feve_neurons``    how many neurons have FEV >= 0.15: FEVE and ``cc_norm`` are means over these
    ``cc_norm``         1 by definition
    ``oracle_fraction`` slope of ``sqrt(sp / s_t)`` on the leave-one-out oracle; above 1 since that oracle is too low
    =================== ============================================================================================

    Neurons without a repeated image are left out; those without signal power, or without any variance, have a ceiling
    of 0. Estimates from few images are noisy: a good model can pass them by chance.

    Args:
        repeats: (B, R, N) single responses (tensor or array), NaN where there was none.
    """
    repeats, _ = centred(torch.as_tensor(repeats))
    sums = repeat_sums(repeats)
    found = explainable_from_sums(sums)
    known = sums.noise[0] > 0
    if not known.any():
        names = ("corr", "trial_corr", "rmse", "rmse_columns", "feve", "feve_neurons", "cc_norm", "oracle_fraction")
        return dict.fromkeys(names, math.nan)
    noise, images = found.average_noise[known], sums.averages[0][known]
    n_reliable = int(reliable(found.fev).sum())
    return {
        "corr": float(found.cc_max.nan_to_num()[known].mean()),
        "trial_corr": float(found.trial_max.nan_to_num()[known].mean()),
        "rmse": float(((noise @ images) / images.sum()).sqrt()),
        "rmse_columns": float(noise.sqrt().mean()),
        "feve": 1.0 if n_reliable else math.nan,
        "feve_neurons": float(n_reliable),
        "cc_norm": 1.0 if n_reliable else math.nan,
        "oracle_fraction": float(oracle_fraction(found.trial_max, found.oracle)),
    }
