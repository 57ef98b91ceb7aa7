"""Few-shot co-smoothing: how well held-out neurons are read from frozen latents with few trials.

Models that tie in co-bps can differ in what their latents hold beside what the held-out neurons need. Read from such
latents with few trials, a regression catches the rest, too, and predicts worse.

Source: Dabholkar and Barak 2025, "When predict can also explain: few-shot prediction to select better neural latents",
PLoS Computational Biology, doi 10.1371/journal.pcbi.1013789.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.functional.poisson_regression import poisson_regression

PENALTY = 2.0
"""Best of 0.1 to 10 with 16, 64 and 256 trials of mc_maze (430 trials), for the latents of a GRU and an NDT alike."""
DRAWS = 10


def k_shot_bits(
    train: tuple[Tensor, Tensor, Tensor],
    evaluated: tuple[Tensor, Tensor, Tensor],
    k: int,
    *,
    draws: int = DRAWS,
    penalty: float = PENALTY,
    seed: int = 0,
) -> Tensor:
    """Bits per spike of held-out neurons whose rates are regressed from latents with ``k`` training trials.

    Latents are centered and scaled by the drawn trials; the regression is Poisson with a log link. Trials are drawn
    anew ``draws`` times; if ``k`` is all of them there is one draw.

    Args:
        train: latents (B, T, D), counts (B, T, N_out) and mask (B, T, N_out) of the training trials.
        evaluated: the same of the trials that are scored.
        k: training trials to learn from.
        draws: how often.
        penalty: of the regression's squared weights on scaled latents, in units of one trial's mean loss: ``k`` trials
            have the ``alpha`` of ``penalty / k``, as the same prior on the weights has in sums.
        seed: of the draws.

    Returns:
        (draws,) float64.

    Raises:
        ValueError: there are fewer than ``k`` training trials.
    """
    n_trials = len(train[0])
    if not 0 < k <= n_trials:
        raise ValueError(f"{k} of {n_trials} training trials")
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for _ in range(draws if k < n_trials else 1):
        chosen = torch.randperm(n_trials, generator=generator)[:k]
        latents, counts, mask = (values[chosen].flatten(0, 1) for values in train)
        center, scale = latents.mean(0), latents.std(0).clamp_min(1e-6)
        exposure = mask.to(latents)
        observed = torch.where(mask, counts, 0.0).to(latents)
        weight, bias = poisson_regression((latents - center) / scale, observed, penalty / k, exposure=exposure)
        rates = (((evaluated[0] - center) / scale) @ weight + bias).exp()
        scores.append(bits_per_spike(rates, *evaluated[1:]))
    return torch.stack(scores)
