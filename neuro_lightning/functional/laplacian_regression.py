"""Linear and Poisson regression of responses on images with smooth weights, many neurons at once.

The penalty is ``strength * |S w|^2`` with S the five-point Laplacian of the image grid (4 on the diagonal, -1 to each
existing neighbour), so that ``w = (X'X + strength * S S')^-1 X'y``: the regularised linear model that Antolik et al.
(2016) compare with. S is diagonal in the sine transform. In the coordinates ``v = |S| w`` of that basis, which two
small matrix products reach, the problem is an ordinary ridge regression, and no matrix of pixels by pixels is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

JUDGES = 512  # neurons that choose a strength shared by all


class SmoothFit(NamedTuple):
    """Weights and what they were chosen by.

    Attributes:
        weight: (N, C, H, W).
        bias: (N,).
        strength: (N,) the penalty taken for each neuron, as a share of the mean eigenvalue (see the functions).
    """

    weight: Tensor
    bias: Tensor
    strength: Tensor


class SmoothBasis:
    """Turns images into coordinates in which the Laplacian penalty is the sum of squares, and weights back.

    Args:
        image_shape: (C, H, W).
    """

    def __init__(self, image_shape: Sequence[int]) -> None:
        self.image_shape = tuple(image_shape)
        (self.rows, rows), (self.columns, columns) = _sines(self.image_shape[1]), _sines(self.image_shape[2])
        self.scale = rows[:, None] + columns  # the Laplacian's eigenvalues, all positive

    def coordinates(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, P), float64."""
        return ((self.rows.T @ images.double() @ self.columns) / self.scale).flatten(1)

    def weights(self, coefficients: Tensor) -> Tensor:
        """(N, P) coefficients of :meth:`coordinates` -> (N, C, H, W) weights of pixels."""
        maps = coefficients.view(-1, *self.image_shape) / self.scale
        return self.rows @ maps @ self.columns.T


def _sines(n: int) -> tuple[Tensor, Tensor]:
    """The sine basis (n, n) of the second difference with zeros beyond the ends, and its eigenvalues (n,)."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    basis = (2 / (n + 1)) ** 0.5 * torch.sin(torch.pi * k[:, None] * k / (n + 1))
    return basis, 2 - 2 * torch.cos(torch.pi * k / (n + 1))


class _Spectrum(NamedTuple):
    """Centered coordinates as ``u * sqrt(values) @ axes``."""

    u: Tensor  # (B, r)
    values: Tensor  # (r,)
    axes: Tensor  # (r, P)
    mean: Tensor  # (P,)


def _spectrum(coordinates: Tensor) -> _Spectrum:
    """By the smaller of the two Gram matrices."""
    mean = coordinates.mean(0)
    x = coordinates - mean
    wide = x.shape[0] <= x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    keep = values > 1e-12 * values[-1].clamp_min(1e-300)
    values, vectors = values[keep], vectors[:, keep]
    root = values.sqrt()
    if wide:
        return _Spectrum(vectors, values, vectors.T @ x / root[:, None], mean)
    return _Spectrum(x @ vectors / root, values, vectors.T, mean)


def group_by_mask(mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The neurons in groups that were observed at the same images.

    Args:
        mask: (B, N) bool.

    Yields:
        The images (b,) and the neurons (n,) of a group.

    Example:
        >>> mask = torch.tensor([[True, True, True], [True, False, True]])
        >>> [(images.tolist(), neurons.tolist()) for images, neurons in group_by_mask(mask)]
        [([0], [1]), ([0, 1], [0, 2])]
    """
    kinds, member = torch.unique(mask, dim=1, return_inverse=True)
    for k in range(kinds.shape[1]):
        yield kinds[:, k].nonzero()[:, 0], (member == k).nonzero()[:, 0]


def laplacian_regression(
    images: Tensor, targets: Tensor, mask: Tensor, strengths: Sequence[float], *, per_neuron: bool = False
) -> SmoothFit:
    """Least squares with smooth weights and a free intercept; the strength has the least leave-one-out error.

    Leaving an image out changes its residual by a factor that the fit itself knows, so that the error of all
    leave-one-out fits costs no more than one fit. Neurons that were observed at other images are fitted apart.

    Args:
        images: (B, C, H, W).
        targets: (B, N), anything where ``mask`` is False.
        mask: (B, N) bool.
        strengths: of the penalty, as shares of the mean eigenvalue of the images' Gram matrix in these coordinates.
        per_neuron: choose a strength for each neuron instead of one for all that were observed at the same images.

    Returns:
        The fit; weights are zero and the bias is the mean for neurons with fewer than three observations.
    """
    basis = SmoothBasis(images.shape[1:])
    coordinates = basis.coordinates(images)
    n_neurons = targets.shape[1]
    coefficients = coordinates.new_zeros(n_neurons, coordinates.shape[1])
    bias, taken = coordinates.new_zeros(n_neurons), coordinates.new_full((n_neurons,), torch.nan)
    for rows, neurons in group_by_mask(mask):
        if len(rows) == 0:
            continue
        y = targets[rows][:, neurons].double()
        bias[neurons] = y.mean(0)
        if len(rows) < 3:
            continue
        spectrum = _spectrum(coordinates[rows])
        grid = torch.tensor(list(strengths), dtype=torch.float64) * spectrum.values.sum() / len(rows)
        best = _best_leave_one_out(spectrum, y - y.mean(0), grid, per_neuron)
        # X w = u sqrt(s) (axes w), and the ridge solution along an axis is sqrt(s) / (s + strength) u'y
        along = spectrum.u.T @ (y - y.mean(0)) * spectrum.values.sqrt()[:, None]
        along = along / (spectrum.values[:, None] + grid[best])
        coefficients[neurons] = along.T @ spectrum.axes
        bias[neurons] -= coefficients[neurons] @ spectrum.mean
        taken[neurons] = torch.tensor(list(strengths), dtype=torch.float64)[best].expand(len(neurons))
    return SmoothFit(basis.weights(coefficients), bias, taken)


def _best_leave_one_out(spectrum: _Spectrum, y: Tensor, grid: Tensor, per_neuron: bool) -> Tensor:
    """The place in the grid with the least leave-one-out error: (1,), or (N,) for each neuron."""
    if not per_neuron and y.shape[1] > JUDGES:
        y = y[:, torch.linspace(0, y.shape[1] - 1, JUDGES).long()]
    projected = spectrum.u.T @ y
    errors: list[Tensor] = []
    for strength in grid:
        shrink = spectrum.values / (spectrum.values + strength)
        leverage = 1 / len(y) + spectrum.u.square() @ shrink
        residual = (y - spectrum.u @ (shrink[:, None] * projected)) / (1 - leverage).clamp_min(1e-9)[:, None]
        errors.append(residual.square().mean(0))
    relative = torch.stack(errors) / y.square().mean(0).clamp_min(1e-12)
    return relative.argmin(0) if per_neuron else relative.mean(1, keepdim=True).argmin(0)


# ---- Poisson

LINKS: dict[str, Callable[[Tensor], Tensor]] = {"softplus": F.softplus, "exp": torch.exp}
LEAST_MEAN = 1e-3  # of a neuron's responses, where a logarithm of it is taken


def laplacian_poisson(
    images: Tensor,
    targets: Tensor,
    mask: Tensor,
    strengths: Sequence[float],
    *,
    link: str = "softplus",
    iterations: int = 60,
    folds: int = 5,
) -> SmoothFit:
    """Poisson regression with smooth weights: linear filter, ``link``, Poisson (LNP); convex for both links.

    For each neuron the objective is the mean negative log-likelihood over its images divided by its mean response,
    plus the penalty. All neurons are fitted together by L-BFGS. The strength is chosen on every ``folds``-th image,
    which the fits that are compared do not see; strengths are tried from the greatest down, each from where the last
    one ended.

    Args:
        images: (B, C, H, W).
        targets: (B, N) non-negative, anything where ``mask`` is False.
        mask: (B, N) bool.
        strengths: of the penalty, as shares of the mean eigenvalue of the images' covariance in these coordinates.
        link: ``softplus`` or ``exp``.
        iterations: of L-BFGS at most, for each strength.
        folds: see above.

    Returns:
        The fit, with one strength for all neurons.
    """
    basis = SmoothBasis(images.shape[1:])
    coordinates = basis.coordinates(images)
    y = torch.where(mask, targets, 0.0).double()
    order = sorted((float(s) for s in strengths), reverse=True)
    strength = order[0]
    if len(order) > 1 and len(images) >= 2 * folds:
        outer = torch.arange(len(images)) % folds == folds - 1
        inner = _PoissonProblem(coordinates[~outer], y[~outer], mask[~outer], link, min(order))
        errors = []
        for candidate in order:
            inner.fit(candidate, iterations)
            errors.append(inner.nll(coordinates[outer], y[outer], mask[outer]))
        strength = order[int(torch.tensor(errors).argmin())]
    problem = _PoissonProblem(coordinates, y, mask, link, strength)
    problem.fit(strength, 2 * iterations)
    coefficients, bias = problem.solution()
    taken = torch.full((y.shape[1],), strength, dtype=torch.float64)
    return SmoothFit(basis.weights(coefficients), bias, taken)


class _PoissonProblem:
    """The fit of one set of images, in the coordinates in which its Hessian at the mean response is the identity."""

    def __init__(self, coordinates: Tensor, y: Tensor, mask: Tensor, link: str, least: float) -> None:
        self.spectrum, self.link = _spectrum(coordinates), link
        self.unit = self.spectrum.values.sum() / len(coordinates) ** 2
        # axes along which even the weakest penalty leaves next to nothing
        keep = self.spectrum.values / len(coordinates) > 1e-3 * least * self.unit
        s = self.spectrum
        self.spectrum = _Spectrum(s.u[:, keep], s.values[keep], s.axes[keep], s.mean)
        self.x = self.spectrum.u * self.spectrum.values.sqrt()
        self.y = y
        count = mask.sum(0).clamp_min(1)
        self.mean = (y.sum(0) / count).clamp_min(LEAST_MEAN)
        self.share = mask / (count * self.mean)  # of each entry in its neuron's objective
        self.start = self.mean.log() if link == "exp" else self.mean.expm1().log()
        self.theta = torch.zeros(self.x.shape[1] + 1, y.shape[1], dtype=torch.float64)
        self.scale = torch.ones_like(self.theta)

    def _eta(self, theta: Tensor) -> Tensor:
        return torch.addmm(self.start + theta[-1], self.x, theta[:-1])

    def _terms(self, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Each entry's negative log-likelihood and its derivative by ``eta``."""
        if self.link == "exp":
            rate = eta.clamp_max(20.0).exp()
            return rate - y * eta, rate - y
        rate = F.softplus(eta).clamp_min(1e-12)
        return rate - y * rate.log(), eta.sigmoid() * (1 - y / rate)

    def fit(self, strength: float, iterations: int) -> None:
        """Move ``theta`` to the least objective, from where it is."""
        penalty = strength * self.unit
        slope = 1.0 if self.link == "exp" else self.start.sigmoid().square() / self.mean.square()
        curvature = slope * self.spectrum.values[:, None] / len(self.x) + penalty
        scale = torch.cat([curvature, torch.ones_like(curvature[:1]) * slope]).rsqrt()
        scaled = (self.theta / scale).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [scaled], max_iter=iterations, history_size=10, tolerance_change=1e-9, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            theta = scaled.detach() * scale
            nll, slope_of_eta = self._terms(self._eta(theta), self.y)
            slope_of_eta = slope_of_eta * self.share
            gradient = torch.cat([self.x.T @ slope_of_eta + penalty * theta[:-1], slope_of_eta.sum(0, keepdim=True)])
            scaled.grad = gradient * scale
            return (nll * self.share).sum() + 0.5 * penalty * theta[:-1].square().sum()

        optimizer.step(closure)
        self.theta = scaled.detach() * scale

    def nll(self, coordinates: Tensor, y: Tensor, mask: Tensor) -> float:
        """The objective without the penalty on other images, mean over neurons."""
        coefficients, bias = self.solution()
        nll, _ = self._terms(coordinates @ coefficients.T + bias, y)
        per_neuron = (nll * mask).sum(0) / mask.sum(0).clamp_min(1) / self.mean
        return float(per_neuron.mean())

    def solution(self) -> tuple[Tensor, Tensor]:
        """(N, P) coefficients of the coordinates, and biases (N,)."""
        coefficients = self.theta[:-1].T @ self.spectrum.axes
        return coefficients, self.start + self.theta[-1] - coefficients @ self.spectrum.mean
