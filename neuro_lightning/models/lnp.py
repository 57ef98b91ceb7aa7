"""Linear models of responses to images with smooth filters: regularised least squares (rLN) and LNP."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from neuro_lightning.contracts import DataSpec, Output
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.laplacian_regression import LINKS, SmoothFit, laplacian_poisson, laplacian_regression
from neuro_lightning.losses import poisson
from neuro_lightning.models.fitted import FittedModule, as_list

log = logging.getLogger(__name__)


class LinearFilters(nn.Module):
    """One filter and a bias for each neuron, and what follows them.

    Args:
        image_shape: (C, H, W).
        n_neurons: N.
        link: ``identity``, ``softplus`` or ``exp``.
    """

    def __init__(self, image_shape: Sequence[int], n_neurons: int, link: str = "identity") -> None:
        super().__init__()
        self.image_shape, self.link = tuple(image_shape), link
        self.register_buffer("weight", torch.zeros(n_neurons, *image_shape))
        self.register_buffer("bias", torch.zeros(n_neurons))
        self.register_buffer("strength", torch.zeros(n_neurons))  # of the penalty that was chosen

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> ``rates`` (B, N), or ``log_rates`` with the link ``exp``."""
        values = F.linear(images.flatten(1), self.weight.flatten(1), self.bias)
        if self.link == "exp":
            return {"log_rates": values}
        return {"rates": F.softplus(values) if self.link == "softplus" else values}

    @torch.no_grad()
    def set_fit(self, fit: SmoothFit) -> None:
        """Store the fitted weights, biases and penalties."""
        for name, values in fit._asdict().items():
            getattr(self, name).copy_(values)

    def filters(self) -> Tensor:
        """Each neuron's filter, (N, C, H, W)."""
        return self.weight


class RegularisedLinear(FittedModule):
    """Least squares with smooth filters in closed form: rLN of Antolik et al. (2016).

    Args:
        spec: the description of the data.
        strengths: of the Laplacian penalty, of which leave-one-out over the training images chooses.
        per_neuron: choose for each neuron instead of for all.
    """

    kinds = ("images",)

    def __init__(self, spec: DataSpec, *, strengths: Sequence[float], per_neuron: bool = False) -> None:
        super().__init__(LinearFilters(spec.image_shape, spec.n_neurons), spec)
        self.strengths, self.per_neuron = _checked(strengths), per_neuron

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Fit on the training images alone."""
        batch = train[list(range(len(train)))]
        fit = laplacian_regression(
            batch["inputs"], batch["targets"], batch["mask"], self.strengths, per_neuron=self.per_neuron
        )
        self.net.set_fit(fit)


class LNP(FittedModule):
    """A smooth linear filter, a softplus or an exponential, and Poisson noise, for each neuron.

    Args:
        spec: the description of the data.
        strengths: of the Laplacian penalty, of which a fifth of the training images chooses.
        link: ``softplus`` or ``exp``.
        iterations: quasi-Newton steps for each strength.
    """

    kinds = ("images",)

    def __init__(
        self, spec: DataSpec, *, strengths: Sequence[float], link: str = "softplus", iterations: int = 60
    ) -> None:
        if link not in LINKS:
            raise ConfigError(f"model.link={link} is none of {', '.join(LINKS)}")
        super().__init__(LinearFilters(spec.image_shape, spec.n_neurons, link), spec, loss=poisson)
        self.strengths, self.iterations = _checked(strengths), iterations

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Poisson counts are not negative."""
        if not spec.nonnegative:
            return "LNP predicts responses that are never negative, and these are: take model=rln"
        return None

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Fit on the training images alone."""
        batch = train[list(range(len(train)))]
        fit = laplacian_poisson(
            batch["inputs"],
            batch["targets"],
            batch["mask"],
            self.strengths,
            link=self.net.link,
            iterations=self.iterations,
        )
        self.net.set_fit(fit)


def _checked(strengths: float | Sequence[float]) -> list[float]:
    values = [float(strength) for strength in as_list(strengths)]
    if not values or not all(value > 0 for value in values):
        raise ConfigError(f"model.strengths={list(values)} must be positive numbers, one at least")
    return values
