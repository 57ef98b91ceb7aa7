"""Poisson regression with a log link, many outputs at once."""

from __future__ import annotations

import torch
from torch import Tensor


def poisson_regression(
    features: Tensor, counts: Tensor, alpha: float, iterations: int = 100, exposure: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Ridge-penalised maximum likelihood of ``counts ~ Poisson(exp(features @ weight + bias))``.

    For each output the objective is ``mean(mu - n log mu) + alpha / 2 |w|^2``, the bias unpenalised: that of
    scikit-learn's ``PoissonRegressor``. All outputs are fitted together by L-BFGS in coordinates in which the
    Hessian at the mean rate is the identity, so that a few dozen passes over the data suffice.

    Args:
        features: (R, P), one row for each bin.
        counts: (R, Q) spike counts.
        alpha: ridge penalty.
        iterations: at most so many L-BFGS steps.
        exposure: (R, Q) bins that each count was collected in, 0 where none was observed; None is one everywhere.
            The expected count is ``exposure * exp(features @ weight + bias)``.

    Returns:
        weight (P, Q) and bias (Q,).
    """
    center = features.mean(0)
    x = features - center
    variances, axes = torch.linalg.eigh((x.T @ x / len(x)).double())
    x = x @ axes.to(x)
    mean = counts.mean(0).clamp_min(1e-6)
    start = mean if exposure is None else mean / exposure.mean(0).clamp_min(1e-6)
    # scale of each coordinate: the inverse root of the Hessian at the mean rate
    scale = (mean.double() * variances.clamp_min(0)[:, None] + alpha + 1e-12).rsqrt().to(x)
    theta = torch.zeros(x.shape[1] + 1, counts.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias_scale = mean.rsqrt()

    def coefficients() -> tuple[Tensor, Tensor]:
        return theta[:-1] * scale, start.log() + theta[-1] * bias_scale

    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=iterations,
        history_size=10,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()  # the optimizer turns it on: a graph behind theta.grad would keep theta, and the data, for ever
    def closure() -> Tensor:
        optimizer.zero_grad()
        weight, bias = coefficients()
        eta = torch.addmm(bias, x, weight)
        # the derivative by hand: autograd would keep three more arrays of the size of the data
        mu = eta.exp() if exposure is None else exposure * eta.exp()
        residual = (mu - counts) / len(x)
        penalty = 0.5 * alpha * weight.square().sum()
        loss = (mu - counts * eta).mean(0).sum() + penalty
        theta.grad = torch.cat([(x.T @ residual + alpha * weight) * scale, (residual.sum(0) * bias_scale)[None]])
        return loss

    with torch.no_grad():
        optimizer.step(closure)
        weight, bias = coefficients()
        weight = axes.to(x) @ weight
        return weight, bias - center @ weight
