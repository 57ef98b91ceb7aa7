"""Principal components and factor analysis: what a linear model makes of as many latents."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.factors import Factors, factor_analysis, principal_components
from neuro_lightning.functional.ridge import contiguous_folds, fold_grams, ridge_search
from neuro_lightning.models.fitted import FittedModule

# of held-out neurons' regression, per sample and in variances of the strongest latent
PENALTIES = tuple(10.0**k for k in range(-6, 1))


class LinearLatentsNet(nn.Module):
    """Traces -> a few latents -> all neurons, linear both ways; every bin by itself.

    Args:
        n_in: neurons that are shown.
        n_neurons: all neurons N, of which those shown come first.
        latent_dim: latents D.
    """

    def __init__(self, n_in: int, n_neurons: int, latent_dim: int) -> None:
        super().__init__()
        self.n_in = n_in
        self.register_buffer("mean", torch.zeros(n_in))
        self.register_buffer("encoder", torch.zeros(n_in, latent_dim))
        self.register_buffer("loadings", torch.zeros(latent_dim, n_neurons))
        self.register_buffer("bias", torch.zeros(n_neurons))

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) traces -> rates (B, T, N) and latents (B, T, D)."""
        latents = (inputs - self.mean) @ self.encoder
        return {"rates": latents @ self.loadings + self.bias, "latents": latents}

    @torch.no_grad()
    def set(self, factors: Factors, readout: Tensor, bias: Tensor) -> None:
        """Take over fitted factors of the shown neurons, and the map (D, N_out), (N_out,) to those held out."""
        self.mean.copy_(factors.mean)
        self.encoder.copy_(factors.encoder)
        self.loadings.copy_(torch.cat([factors.loadings, readout], dim=1))
        self.bias.copy_(torch.cat([factors.mean, bias]))


class LinearLatents(FittedModule):
    """What :class:`PCA` and :class:`FactorAnalysis` share.

    The bins of all training sequences are pooled: recordings that share a network (the imaging planes of one session)
    share the components too. Held-out neurons are predicted from the latents by ridge regression, its penalty chosen by
    cross-validation over stretches of time.

    Args:
        spec: what to know of the data.
        n_components: latents; more than there are neurons to show make no difference.

    Raises:
        ConfigError: fewer than one component.
    """

    kinds: ClassVar[tuple[str, ...]] = ("traces",)

    def __init__(self, spec: DataSpec, *, n_components: int) -> None:
        if n_components < 1:
            raise ConfigError(f"n_components={n_components}: there must be at least one")
        super().__init__(LinearLatentsNet(spec.n_in, spec.n_neurons, min(n_components, spec.n_in)), spec)
        self.n_components = min(n_components, spec.n_in)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Every bin is described by itself."""
        return f"it predicts none of the {spec.n_forward} forward bins" if spec.n_forward else None

    def factors(self, x: Tensor) -> Factors:
        """The latents of (n, N_in) samples."""
        raise NotImplementedError

    def fit_net(self, train: TrialDataset, val: TrialDataset | None = None) -> None:
        """Fit the network on the training sequences alone."""
        x, y = _rows(train[list(range(len(train)))], self.spec)
        factors = self.factors(x)
        self.net.set(factors, *_regress((x - factors.mean) @ factors.encoder, y))


class PCA(LinearLatents):
    """The best linear description of the activity by a few latents, in squared error on the training data.

    Args:
        spec: what to know of the data.
        n_components: latents; more than there are neurons to show make no difference.
    """

    def factors(self, x: Tensor) -> Factors:
        """Principal components of (n, N_in) samples."""
        return principal_components(x, self.n_components)


class FactorAnalysis(LinearLatents):
    """A few latents for what neurons share, and private noise for each of them.

    It reconstructs what is shared: a neuron's own noise, which PCA spends components on, is left out. Latents are
    posterior means.

    Args:
        spec: what to know of the data.
        n_components: latents; more than there are neurons to show make no difference.
        max_iterations: of the maximum-likelihood fit.
    """

    def __init__(self, spec: DataSpec, *, n_components: int, max_iterations: int = 200) -> None:
        super().__init__(spec, n_components=n_components)
        self.max_iterations = max_iterations

    def factors(self, x: Tensor) -> Factors:
        """Factors of (n, N_in) samples."""
        return factor_analysis(x, self.n_components, max_iterations=self.max_iterations)[0]


def _rows(batch: Batch, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Bins with everything observed: shown activity (n, N_in) and held-out activity (n, N_out), float64.

    Raises:
        DataError: there are fewer than two.
    """
    bins = batch["inputs"].shape[1]
    seen = batch["mask"][:, :bins].all(2)
    x, y = batch["inputs"][seen].double(), batch["targets"][:, :bins, spec.n_in :][seen].double()
    if len(x) < 2:
        raise DataError(f"{spec.dataset}: no two training bins in which every neuron was observed; mend the recording")
    return x, y


def _regress(latents: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (D, N_out) and biases (N_out,) that predict ``y`` (n, N_out) from centered latents (n, D)."""
    if not y.shape[1]:
        return y.new_zeros(latents.shape[1], 0), y.new_zeros(0)
    mean, strongest = y.mean(0), float(latents.square().mean(0).max())
    fold = contiguous_folds(torch.ones(len(y), dtype=torch.bool))
    penalties = tuple(len(y) * max(strongest, 1e-12) * penalty for penalty in PENALTIES)
    fit, _ = ridge_search(fold_grams(latents, y - mean, fold), y.shape[1], penalties)
    return fit.weight, fit.bias + mean
