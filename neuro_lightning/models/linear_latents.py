"""Principal components and factor analysis: linear models with a given number of latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.factors import Factors, factor_analysis, principal_components
from neuro_lightning.functional.ridge import contiguous_folds, fold_grams, ridge_search
from neuro_lightning.models.fitted import FittedModule, needs_all_inputs
from neuro_lightning.models.regressed_latents import whole_steps
from neuro_lightning.models.spike_factors import SpikeFactorsNet

# of held-out neurons' regression, per sample and in variances of the strongest latent
PENALTIES = tuple(10.0**k for k in range(-6, 1))


class LinearLatentsNet(nn.Module):
    """Traces -> a few latents -> all neurons, linear both ways; every bin by itself.

    Args:
        n_in: neurons that are shown.
        n_neurons: all neurons N, of which those shown come first.
        latent_dim: latents D.
        n_groups: imaging planes with a map of their own; 1 for one that all share.
    """

    def __init__(self, n_in: int, n_neurons: int, latent_dim: int, n_groups: int = 1) -> None:
        super().__init__()
        self.n_in, self.by_condition = n_in, n_groups > 1
        self.register_buffer("mean", torch.zeros(n_groups, 1, n_in))
        self.register_buffer("encoder", torch.zeros(n_groups, n_in, latent_dim))
        self.register_buffer("loadings", torch.zeros(n_groups, latent_dim, n_neurons))
        self.register_buffer("bias", torch.zeros(n_groups, 1, n_neurons))

    def forward(self, inputs: Tensor, condition: Tensor | None = None) -> Output:
        """(B, T, N_in) traces, and the plane of each (B,) -> rates (B, T, N) and latents (B, T, D)."""
        maps = (self.mean, self.encoder, self.loadings, self.bias)
        mean, encoder, loadings, bias = (part[condition] for part in maps) if self.by_condition else maps
        latents = (inputs - mean) @ encoder
        return {"rates": latents @ loadings + bias, "latents": latents}

    @torch.no_grad()
    def set_fit(self, group: int, factors: Factors, readout: Tensor, bias: Tensor) -> None:
        """Store the fitted factors of a group's shown neurons, and the map (D, N_out), (N_out,) to those held out."""
        self.mean[group] = factors.mean
        self.encoder[group] = factors.encoder
        self.loadings[group] = torch.cat([factors.loadings, readout], dim=1)
        self.bias[group] = torch.cat([factors.mean, bias])


class LinearLatents(FittedModule):
    """Base class of :class:`PCA` and :class:`FactorAnalysis`.

    The bins of all training sequences are pooled: imaging planes that share a network share the components too, unless
    each is to have its own. Held-out neurons are predicted from the latents by ridge regression, its penalty chosen by
    cross-validation over stretches of time.

    Args:
        spec: the description of the data.
        n_components: latents; more than there are neurons to show make no difference.
        per_plane: each imaging plane has components of its own.

    Raises:
        ConfigError: fewer than one component.
    """

    kinds: ClassVar[tuple[str, ...]] = ("traces",)

    def __init__(self, spec: DataSpec, *, n_components: int, per_plane: bool = False) -> None:
        if n_components < 1:
            raise ConfigError(f"n_components={n_components}: there must be at least one")
        groups = spec.decode_groups if per_plane else 1
        super().__init__(LinearLatentsNet(spec.n_in, spec.n_neurons, min(n_components, spec.n_in), groups), spec)
        self.n_components = min(n_components, spec.n_in)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Every bin is described by itself."""
        return f"it predicts none of the {spec.n_forward} forward bins" if spec.n_forward else needs_all_inputs(spec)

    def factors(self, x: Tensor) -> Factors:
        """The latents of (n, N_in) samples."""
        raise NotImplementedError

    def fit_net(self, train: TrialDataset, val: TrialDataset | None = None) -> None:
        """Fit the network on the training sequences alone."""
        batch = train[list(range(len(train)))]
        for group in range(len(self.net.encoder)):
            chosen = batch["condition"] == group if self.net.by_condition else slice(None)
            x, y = observed_rows({name: batch[name][chosen] for name in ("inputs", "targets", "mask")}, self.spec)
            factors = self.factors(x)
            self.net.set_fit(group, factors, *regress_linearly((x - factors.mean) @ factors.encoder, y))


class PCA(LinearLatents):
    """The best linear description of the activity by a few latents, in squared error on the training data.

    Args:
        spec: the description of the data.
        n_components: latents; more than there are neurons to show make no difference.
        per_plane: each imaging plane has components of its own.
    """

    def factors(self, x: Tensor) -> Factors:
        """Principal components of (n, N_in) samples."""
        return principal_components(x, self.n_components)


class FactorAnalysis(LinearLatents):
    """A few latents for what neurons share, and private noise for each of them.

    It reconstructs what is shared: a neuron's own noise, which PCA spends components on, is left out. Latents are
    posterior means. Spikes are smoothed first, and rates are a Poisson regression on the latents.

    Args:
        spec: the description of the data.
        n_components: latents; more than there are neurons to show make no difference.
        per_plane: each imaging plane has factors of its own.
        max_iterations: of the maximum-likelihood fit.
        step_ms: of spikes, the width of a step, in which counts are summed; None is one bin.
        kernel_sd_ms: of spikes, standard deviations of the smoothing kernel; chosen on the last fifth of the trials.
        alpha: of spikes, ridge penalties of the regression, likewise.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes", "traces")

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_components: int,
        per_plane: bool = False,
        max_iterations: int = 200,
        step_ms: int | None = 20,
        kernel_sd_ms: Sequence[float] = (40, 60, 100),
        alpha: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    ) -> None:
        super().__init__(spec, n_components=n_components, per_plane=per_plane)
        self.max_iterations, self.alpha = max_iterations, list(alpha)
        if spec.kind == "spikes":
            stride = whole_steps(spec, step_ms)
            self.kernel_sd = [sd / (stride * spec.bin_ms) for sd in kernel_sd_ms]
            self.net = SpikeFactorsNet(spec, self.n_components, stride, max_iterations=max_iterations)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Traces' forward bins are not predicted, spikes' are."""
        return needs_all_inputs(spec) if spec.kind == "spikes" else super().refuse(spec)

    def factors(self, x: Tensor) -> Factors:
        """Factors of (n, N_in) samples."""
        return factor_analysis(x, self.n_components, max_iterations=self.max_iterations)[0]

    def fit_net(self, train: TrialDataset, val: TrialDataset | None = None) -> None:
        """Fit the network on the training trials or sequences alone."""
        if self.spec.kind == "spikes":
            self.net.fit(train[list(range(len(train)))], self.kernel_sd, self.alpha)
        else:
            super().fit_net(train, val)


def observed_rows(batch: Batch, spec: DataSpec) -> tuple[Tensor, Tensor]:
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


def regress_linearly(latents: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (D, N_out) and biases (N_out,) that predict ``y`` (n, N_out) from centered latents (n, D)."""
    if not y.shape[1]:
        return y.new_zeros(latents.shape[1], 0), y.new_zeros(0)
    mean, strongest = y.mean(0), float(latents.square().mean(0).max())
    fold = contiguous_folds(torch.ones(len(y), dtype=torch.bool))
    penalties = tuple(len(y) * max(strongest, 1e-12) * penalty for penalty in PENALTIES)
    fit, _ = ridge_search(fold_grams(latents, y - mean, fold), y.shape[1], penalties)
    return fit.weight, fit.bias + mean
