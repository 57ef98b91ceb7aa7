"""Latents of the held-in neurons, and a Poisson regression from them to the rates of all neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.likelihood import log_rate_nll
from neuro_lightning.functional.poisson_regression import poisson_regression
from neuro_lightning.models.fitted import FittedModule, as_list, needs_all_inputs
from neuro_lightning.nn.stepping import State, Stepwise, add_bin, bins_to_come
from neuro_lightning.nn.steps import bins_in_step, to_bins, to_steps


class RegressedLatentsNet(Stepwise):
    """Counts in steps -> latents -> log-rates in steps -> log-rates in bins.

    The steps end with the last observed bin: bins before the first whole step share its rates. A subclass
    defines the latents and fits them to the held-in neurons; the regression is fitted to all neurons.

    Of latents that look back only (``causal``) the steps begin with the first bin, and a bin is read from the last step
    that ended at it or before; before the first one from ``self.start``. The regression is fitted to just that.

    Args:
        spec: the description of the data.
        n_latents: D, at most N_in.
        stride: bins in a step.
        causal: the latents look back only.
        fit: options of the fit of the latents.
    """

    def __init__(self, spec: DataSpec, n_latents: int, stride: int, *, causal: bool = False, **fit: float) -> None:
        super().__init__()
        self.causal = causal
        self.n_in, self.n_forward, self.stride, self.fit_options = spec.n_in, spec.n_forward, stride, fit
        ahead = spec.n_neurons if spec.n_forward else 0
        self.register(
            weight=torch.zeros(n_latents, spec.n_neurons),
            bias=torch.zeros(spec.n_neurons),
            forward_weight=torch.zeros(n_latents, ahead),
            forward_bias=torch.zeros(ahead),
        )
        self.register_load_state_dict_pre_hook(take_saved_shapes)

    def register(self, **buffers: Tensor) -> None:
        """Register buffers by name, in float64."""
        for name, values in buffers.items():
            self.register_buffer(name, values.double())

    def infer(self, counts: Tensor, ahead: int) -> Tensor:
        """Counts of held-in neurons in steps (B, S, N_in) -> latents (B, S + ahead, D)."""
        raise NotImplementedError

    def learn(self, counts: Tensor) -> None:
        """Fit the latents to counts of held-in neurons in steps, (B, S, N_in)."""
        raise NotImplementedError

    def in_steps(self, inputs: Tensor) -> Tensor:
        """(B, T, N_in) counts -> (B, S, N_in) in the whole steps that end with the last bin, float64."""
        rest = inputs.shape[1] % self.stride
        whole = slice(0, inputs.shape[1] - rest) if self.causal else slice(rest, None)
        return to_steps(inputs[:, whole].double(), inputs.shape[1] - rest, self.stride)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and latents (B, L, D)."""
        if self.causal:
            return self._look_back(inputs)
        steps = inputs.shape[1] // self.stride
        latents = self.infer(self.in_steps(inputs), -(-self.n_forward // self.stride))
        log_rates = latents[:, :steps] @ self.weight + self.bias
        if self.n_forward:
            ahead = latents[:, steps:] @ self.forward_weight + self.forward_bias
            log_rates = torch.cat([log_rates, ahead], dim=1)
        return {name: self._in_bins(v, inputs) for name, v in (("log_rates", log_rates), ("latents", latents))}

    def _in_bins(self, values: Tensor, inputs: Tensor) -> Tensor:
        lead = inputs.shape[1] % self.stride
        bins = to_bins(values, inputs.shape[1] - lead + self.n_forward, self.stride).to(inputs.dtype)
        return torch.cat([bins[:, :1].expand(-1, lead, -1), bins], dim=1) if lead else bins

    def _look_back(self, inputs: Tensor) -> Output:
        bins = inputs.shape[1]
        ended = torch.arange(1, bins + self.n_forward + 1, device=inputs.device) // self.stride
        latents = self._since_start(inputs).index_select(1, ended)
        log_rates = latents[:, :bins] @ self.weight + self.bias
        if self.n_forward:
            ahead = latents[:, bins:] @ self.forward_weight + self.forward_bias
            log_rates = torch.cat([log_rates, ahead], dim=1)
        return {"log_rates": log_rates.to(inputs.dtype), "latents": latents.to(inputs.dtype)}

    def _since_start(self, inputs: Tensor) -> Tensor:
        """The start and the latents of all steps that end in the first L bins, of (B, T, N_in) counts."""
        total = inputs.shape[1] + self.n_forward
        latents = self.infer(self.in_steps(inputs), total // self.stride - inputs.shape[1] // self.stride)
        return torch.cat([self.start.expand(len(inputs), 1, -1), latents], dim=1)

    @property
    def start(self) -> Tensor:
        """(D,) the latents before the first step, of latents that look back only."""
        raise NotImplementedError

    # ---- bin by bin

    @property
    def looks_ahead(self) -> bool:
        """Whether the latents do."""
        return not self.causal

    def first_step(self, batch: int) -> State:
        """What :meth:`filter_step` needs before the first step."""
        raise NotImplementedError

    def filter_step(self, counts: Tensor, share: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The latents (B, D) of the next step, from its recorded counts (B, N_in) and their recorded share."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> State:
        """See :class:`Stepwise`."""
        latents = self.start.expand(batch, -1)
        return {**bins_to_come(batch, self.n_in, self.stride, latents), "latents": latents, **self.first_step(batch)}

    def step(self, inputs: Tensor, state: State, observed: Tensor | None = None) -> tuple[Output, State]:
        """See :class:`Stepwise`."""

        def run(sums: Tensor, share: Tensor, state: State) -> State:
            latents, state = self.filter_step(sums, share, state)
            return {"latents": latents, **state}

        state = add_bin(inputs.double(), state, self.stride, run, observed)
        log_rates = state["latents"] @ self.weight + self.bias
        return {"log_rates": log_rates.to(inputs.dtype), "latents": state["latents"].to(inputs.dtype)}, state

    # ---- the fit

    @torch.no_grad()
    def choose(self, batch: Batch, alpha: Sequence[float]) -> tuple[float, float]:
        """Choose the ridge penalty: the last fifth of the trials is predicted by a readout fitted to the others.

        Args:
            batch: the training trials.
            alpha: ridge penalties to choose from.

        Returns:
            The log-likelihood of the last fifth's held-out counts, of all neurons' counts where none is held out; and
            the penalty that makes it greatest. Of less than ten trials -inf, and the greatest penalty.
        """
        if len(batch["inputs"]) < 10:
            return -torch.inf, max(alpha)
        observed, _ = self._rows(batch)
        return max((self._inner_score(*observed, a), a) for a in alpha)

    @torch.no_grad()
    def regress(self, batch: Batch, alpha: float) -> None:
        """Fit the readout to all neurons of the training trials, with a ridge penalty."""
        observed, ahead = self._rows(batch)
        self.weight, self.bias = _regress(*observed, alpha)
        if self.n_forward:
            self.forward_weight, self.forward_bias = _regress(*ahead, alpha)

    def _rows(self, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Latents, counts and observed bins (B, S, ...), of the steps that are seen and of those ahead."""
        bins, steps = batch["inputs"].shape[1], batch["inputs"].shape[1] // self.stride
        if self.causal:
            return [self._after_steps(batch, part) for part in (slice(0, bins), slice(bins, bins + self.n_forward))]
        latents = self.infer(self.in_steps(batch["inputs"]), -(-self.n_forward // self.stride))
        seen = batch["mask"][:, bins % self.stride :]
        targets = torch.where(seen, batch["targets"][:, bins % self.stride :], 0)
        counts, exposure = (to_steps(values.double(), values.shape[1], self.stride) for values in (targets, seen))
        parts = slice(0, steps), slice(steps, None)
        return [(latents[:, part], counts[:, part], exposure[:, part]) for part in parts]

    def _after_steps(self, batch: Batch, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The same for those bins of a part that are read from the start and from each step."""
        seen = torch.zeros_like(batch["mask"])
        seen[:, part] = batch["mask"][:, part]
        values = torch.where(seen, batch["targets"], 0), seen
        shifted = [
            nn.functional.pad(each.double(), (0, 0, 1, 0)) for each in values
        ]  # a step is read from its last bin
        counts, exposure = (to_steps(each, each.shape[1], self.stride) for each in shifted)
        steps = slice((part.start + 1) // self.stride, -(-(part.stop + 1) // self.stride))
        return self._since_start(batch["inputs"])[:, steps], counts[:, steps], exposure[:, steps]

    def _inner_score(self, latents: Tensor, counts: Tensor, exposure: Tensor, alpha: float) -> float:
        scored = slice(self.n_in if self.n_in < counts.shape[2] else 0, None)
        cut = len(latents) * 4 // 5
        weight, bias = _regress(latents[:cut], counts[:cut, :, scored], exposure[:cut, :, scored], alpha)
        counts, exposure = counts[cut:, :, scored], exposure[cut:, :, scored]
        log_counts = latents[cut:] @ weight + bias + exposure.clamp_min(1e-9).log()
        return -float(log_rate_nll(log_counts, counts)[exposure > 0].sum())


def take_saved_shapes(net: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Give buffers the shapes that they have in a checkpoint: the fit may have chosen the number of latents."""
    for name, value in list(net.named_buffers(recurse=False)):
        if (saved := state.get(prefix + name)) is not None and saved.shape != value.shape:
            setattr(net, name, value.new_empty(saved.shape))


def _regress(latents: Tensor, counts: Tensor, exposure: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Weights (D, N) and biases (N,) from latents (B, S, D) to counts (B, S, N) of ``exposure`` bins each."""
    return poisson_regression(latents.flatten(0, 1), counts.flatten(0, 1), alpha, exposure=exposure.flatten(0, 1))


class RegressedLatents(FittedModule):
    """Base class of GPFA and PLDS: fit the latents first, then the readout.

    Args:
        spec: the description of the data.
        n_latents: latents D; several are tried from few to many, as long as the last fifth of the training trials is
            predicted better.
        step_ms: width of a step, in which counts are summed, a multiple of the bin width; None is one bin.
        timescale_ms: of the latents from which the fit starts.
        iterations: at most so many steps of expectation-maximization.
        alpha: ridge penalties of the readout to choose from, likewise.
        causal: infer the latents of a step from the counts up to it; the model of the latents is fitted to whole trials
            all the same.

    Raises:
        ConfigError: there is no latent, or a trial is shorter than a step.
    """

    kinds: ClassVar[tuple[str, ...]] = ("spikes",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_latents: int | Sequence[int],
        step_ms: int | None,
        timescale_ms: float,
        iterations: int,
        alpha: float | Sequence[float],
        causal: bool = False,
    ) -> None:
        self.causal = causal
        self.spec, self.stride = spec, whole_steps(spec, step_ms)
        self.timescale_ms, self.iterations, self.alpha = timescale_ms, iterations, as_list(alpha)
        self.n_latents = sorted({min(n, spec.n_in) for n in as_list(n_latents)})
        if not self.n_latents or self.n_latents[0] < 1:
            raise ConfigError(f"model.n_latents={n_latents}: there must be at least one")
        super().__init__(self.build(self.n_latents[-1]), spec)

    @classmethod
    def refuse(cls, spec: DataSpec) -> str | None:
        """Its fit needs every input."""
        return needs_all_inputs(spec)

    def build(self, n_latents: int) -> RegressedLatentsNet:
        """The network with so many latents."""
        raise NotImplementedError

    @torch.no_grad()
    def fit_net(self, train: TrialDataset, val: TrialDataset | None = None) -> None:
        """Fit the network on the training trials alone."""
        batch = train[list(range(len(train)))]
        n_latents = self.n_latents[0]
        if len(self.n_latents) > 1 and len(train) > 1:
            n_latents = self._number(batch)
        net = self.build(n_latents)
        net.learn(net.in_steps(batch["inputs"]))
        net.regress(batch, net.choose(batch, self.alpha)[1])
        self.net.load_state_dict(net.state_dict())

    def _number(self, batch: Batch) -> int:
        """The number of latents, learnt from the first four fifths of the trials, that predicts the last fifth best."""
        best, chosen = -torch.inf, self.n_latents[0]
        for n_latents in self.n_latents:
            net = self.build(n_latents)
            net.learn(net.in_steps(batch["inputs"][: len(batch["inputs"]) * 4 // 5]))
            score, _ = net.choose(batch, self.alpha)
            if score <= best:
                break
            best, chosen = score, n_latents
        return chosen


def whole_steps(spec: DataSpec, step_ms: int | None) -> int:
    """Bins in a step, of which a trial has at least one.

    Raises:
        ConfigError: it has none, or a step is not a whole number of bins.
    """
    stride = bins_in_step(step_ms, spec.bin_ms)
    if spec.n_bins < stride:
        raise ConfigError(f"model.step_ms={step_ms}: a trial has {spec.n_bins} bins of {spec.bin_ms} ms only")
    return stride
