"""The smoothing baseline: Gaussian smoothing and a Poisson regression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.functional.likelihood import poisson_nll
from neuro_lightning.functional.poisson_regression import poisson_regression
from neuro_lightning.functional.smoothing import (
    gaussian_smooth,
    gaussian_weights,
    kernels_of_past,
    length_of_past,
    smooth_observed,
)
from neuro_lightning.models.fitted import FittedModule, as_list
from neuro_lightning.nn.stepping import State, Stepwise

FLOOR = 1e-4  # spikes per bin added before the logarithm, as in the benchmark's baseline


class SmoothingNet(Stepwise):
    """Held-in rates are the smoothed counts; held-out and forward rates a Poisson regression on their logarithms.

    The benchmark's own baseline (repository neurallatents/nlb_tools, example "basic smoothing"), with two additions:
    the forward bins are regressed on the last observed bin, and held-in rates have a kernel width of their own, the
    one that best predicts each count from the counts around it.

    Args:
        n_in: held-in neurons.
        n_neurons: all neurons N.
        n_forward: forward bins F.
        causal: smooth with past bins only.
        mean_rates: (N_in,) what is shown of held-in neurons where the kernel meets no recorded bin; empty is zero.
    """

    causal_words = "model.causal=true"
    fill: Tensor

    def __init__(
        self,
        n_in: int,
        n_neurons: int,
        n_forward: int,
        *,
        causal: bool = False,
        mean_rates: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.n_in, self.n_forward, self.causal = n_in, n_forward, causal
        self.register_buffer("sd_bins", torch.tensor(10.0))  # of the features that held-out rates are regressed on
        self.register_buffer("heldin_sd_bins", torch.tensor(10.0))
        self.register_buffer("weight", torch.zeros(n_in, n_neurons - n_in))
        self.register_buffer("bias", torch.zeros(n_neurons - n_in))
        self.register_buffer("forward_weight", torch.zeros(n_in, n_neurons))
        self.register_buffer("forward_bias", torch.zeros(n_neurons))
        fill = torch.tensor(mean_rates, dtype=torch.float32) if len(mean_rates) else torch.zeros(n_in)
        self.register_buffer("fill", fill, persistent=False)

    def features(self, inputs: Tensor, sd_bins: float, observed: Tensor | None = None) -> Tensor:
        """Log of the smoothed counts, (B, T, N_in); of those that were ``observed``, bool like the inputs."""
        if observed is None:
            smooth = gaussian_smooth(inputs.float(), sd_bins, causal=self.causal)
        else:
            weights = gaussian_weights(inputs.shape[1], inputs.shape[1], sd_bins, causal=self.causal).to(inputs.device)
            smooth = smooth_observed(weights, inputs.float(), observed.float(), self.fill)
        return (smooth + FLOOR).log()

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        """(B, T, N_in) counts, and which were recorded, bool likewise -> log-rates (B, L, N)."""
        features = self.features(inputs, float(self.sd_bins), observed)
        heldin = self.heldin(inputs, float(self.heldin_sd_bins), observed)
        observed = torch.cat([heldin, features @ self.weight + self.bias], dim=2)
        ahead = features[:, -1:] @ self.forward_weight + self.forward_bias
        return {"log_rates": torch.cat([observed, ahead.expand(-1, self.n_forward, -1)], dim=1), "latents": heldin}

    def heldin(self, inputs: Tensor, sd_bins: float, observed: Tensor | None = None) -> Tensor:
        """Log-rates of the held-in neurons, (B, T, N_in).

        Where no neuron is held out they are what is scored: a count is then left out of its own rate.
        """
        alone = self.weight.shape[1] == 0
        return self.left_out(inputs, sd_bins, observed).log() if alone else self.features(inputs, sd_bins, observed)

    def left_out(self, inputs: Tensor, sd_bins: float, observed: Tensor | None = None) -> Tensor:
        """The smoothed counts of the other bins around each bin, (B, T, N_in)."""
        n_bins = inputs.shape[1]
        weights = gaussian_weights(n_bins, n_bins, sd_bins, causal=self.causal).to(inputs.device)
        others = weights.masked_fill(torch.eye(n_bins, dtype=torch.bool, device=inputs.device), 0.0)
        if observed is None and self.causal:  # of the first bin there are no others
            observed = torch.ones_like(inputs, dtype=torch.bool)
        if observed is not None:
            return smooth_observed(others, inputs.float(), observed.float(), self.fill) + FLOOR
        return (others / others.sum(1, keepdim=True).clamp_min(1e-12)) @ inputs.float() + FLOOR

    # ---- bin by bin

    @property
    def looks_ahead(self) -> bool:
        """Whether the kernel does."""
        return not self.causal

    def initial_state(self, batch: int) -> State:
        """The counts under the longer kernel, none of which has been seen."""
        longest = length_of_past(torch.stack([self.sd_bins, self.heldin_sd_bins]))
        nothing = self.fill.new_zeros(batch, longest, self.n_in)
        return {"past": nothing, "share": nothing}

    def step(self, inputs: Tensor, state: State, observed: Tensor | None = None) -> tuple[Output, State]:
        """See :class:`Stepwise`; the latents are the held-in neurons' log-rates."""
        share = torch.ones_like(inputs) if observed is None else observed.to(inputs.dtype)
        now = {"past": inputs, "share": share}
        state = {name: torch.cat([state[name][:, 1:], value[:, None].float()], dim=1) for name, value in now.items()}
        features = self._of_past(state, self.sd_bins, itself=True).log()
        heldin = self._of_past(state, self.heldin_sd_bins, itself=self.weight.shape[1] > 0).log()
        log_rates = torch.cat([heldin, features @ self.weight + self.bias], dim=1)
        return {"log_rates": log_rates, "latents": heldin}, state

    def _of_past(self, state: State, sd_bins: Tensor, *, itself: bool) -> Tensor:
        """Smoothed counts of the last bin, (B, N_in), with the bin itself or without."""
        until = state["past"].shape[1] - (not itself)
        weights = kernels_of_past(sd_bins[None], state["past"].shape[1])[:, :until]
        past, share = (state[name][:, :until] for name in ("past", "share"))
        return smooth_observed(weights, past, share, self.fill)[:, 0] + FLOOR

    # ---- the fit

    @torch.no_grad()
    def fit(self, data: TrialDataset, *, sd_bins: Sequence[float], alpha: Sequence[float]) -> None:
        """Choose the kernel and the penalty on the last fifth of the training trials, then fit on all of them.

        The held-out neurons choose, or the forward bins where no neuron is held out.

        Args:
            data: the training trials.
            sd_bins: standard deviations of the kernel to try, in bins.
            alpha: ridge penalties to try.
        """
        batch = data[list(range(len(data)))]
        sd, penalty = sd_bins[len(sd_bins) // 2], max(alpha)  # of too few trials to choose with
        if len(data) >= 10 and (self.weight.shape[1] or self.n_forward):
            middle = alpha[len(alpha) // 2]
            if len(sd_bins) > 1:
                sd = max(sd_bins, key=lambda sd: self._inner_score(batch, sd, middle))
            if len(alpha) > 1:
                penalty = max(alpha, key=lambda penalty: self._inner_score(batch, sd, penalty))
        self.sd_bins.fill_(sd)
        self.heldin_sd_bins.fill_(max(sd_bins, key=lambda sd: self._left_out_score(batch, sd)))
        if self.weight.shape[1]:
            self.weight, self.bias = _regress(*self._rows(batch, sd, ahead=False), penalty)
        if self.n_forward:
            self.forward_weight, self.forward_bias = _regress(*self._rows(batch, sd, ahead=True), penalty)

    def _rows(self, batch: Batch, sd: float, *, ahead: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Features, counts and mask, a row for each bin: of the held-out neurons, or of all neurons in bins ahead."""
        features, bins = self.features(batch["inputs"], sd, batch.get("observed")), batch["inputs"].shape[1]
        if ahead:
            last = features[:, -1].repeat_interleave(self.n_forward, 0)
            return last, *_part(batch, slice(bins, None), slice(None))
        return features.flatten(0, 1), *_part(batch, slice(0, bins), slice(self.n_in, None))

    def _left_out_score(self, batch: Batch, sd: float) -> float:
        """Log-likelihood of each held-in count given the smoothed counts of the other bins."""
        counts, seen = _part(batch, slice(0, batch["inputs"].shape[1]), slice(0, self.n_in))
        rates = self.left_out(batch["inputs"], sd, batch.get("observed"))
        return -float(poisson_nll(rates.flatten(0, 1), counts, seen))

    def _inner_score(self, batch: Batch, sd: float, alpha: float) -> float:
        """Log-likelihood of the last fifth of the trials, of a regression fitted to the others."""
        cut, ahead = len(batch["index"]) * 4 // 5, self.weight.shape[1] == 0
        inner, outer = ({k: v[s] for k, v in batch.items()} for s in (slice(0, cut), slice(cut, None)))
        weight, bias = _regress(*self._rows(inner, sd, ahead=ahead), alpha)
        features, counts, seen = self._rows(outer, sd, ahead=ahead)
        return -float(poisson_nll((features @ weight + bias).exp(), counts, seen))


def _part(batch: Batch, bins: slice, neurons: slice) -> tuple[Tensor, Tensor]:
    """Counts and mask of some bins and neurons, (trials x bins, neurons)."""
    return batch["targets"][:, bins, neurons].flatten(0, 1), batch["mask"][:, bins, neurons].flatten(0, 1)


def _regress(features: Tensor, counts: Tensor, seen: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Weights and biases of a Poisson regression, each neuron's on the rows in which it was seen."""
    rows = seen.any(1)
    features, counts, seen = features[rows], counts[rows].float(), seen[rows]
    if seen.all():
        return poisson_regression(features, counts, alpha)
    return poisson_regression(features, torch.where(seen, counts, 0.0), alpha, exposure=seen.float())


class Smoothing(FittedModule):
    """The smoothing baseline as a model: fitted in closed form before the first validation.

    Args:
        spec: the description of the data.
        kernel_sd_ms: standard deviations of the kernel to choose from, ms.
        alpha: ridge penalties to choose from.
        causal: smooth with past bins only.
    """

    def __init__(
        self, spec: DataSpec, *, kernel_sd_ms: Sequence[float], alpha: Sequence[float], causal: bool = False
    ) -> None:
        mean = spec.mean_rates[: spec.n_in]
        super().__init__(SmoothingNet(spec.n_in, spec.n_neurons, spec.n_forward, causal=causal, mean_rates=mean), spec)
        self.kernel_sd_ms, self.alpha = as_list(kernel_sd_ms), as_list(alpha)

    def fit_net(self, train: TrialDataset, val: TrialDataset | None = None) -> None:
        """Fit the network on the training trials alone."""
        self.net.fit(train, sd_bins=[sd / self.spec.bin_ms for sd in self.kernel_sd_ms], alpha=self.alpha)
