"""LFADS: latent factor analysis via dynamical systems, a sequential variational autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import DataSpec, Output, split_readout
from neuro_lightning.models.sequence import SequenceModel
from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.generator import Course, Encoder, Generator, Posterior, lag, linear
from neuro_lightning.nn.mean_rates import start_at_mean_rates
from neuro_lightning.nn.priors import AutoregressivePrior, NormalPrior
from neuro_lightning.nn.steps import bins_in_step, to_bins, to_steps
from neuro_lightning.nn.windows import in_windows

ELEMENTS = 2**22
"""Numbers in the largest tensor of an evaluation: posterior samples are drawn a few at a time."""


@dataclass(frozen=True)
class Sizes:
    """How large the parts of LFADS are.

    Attributes:
        encoder: units of the initial condition's encoder, in each direction.
        initial: dimensions I of the initial condition.
        generator: units of the generator.
        factors: D, what all neurons are read out of.
        input_encoder: units of the controller's encoder, in each direction.
        controller: units of the controller.
        inputs: dimensions U of the inferred inputs. With any of the last three 0 there is no controller.
    """

    encoder: int
    initial: int
    generator: int
    factors: int
    input_encoder: int = 0
    controller: int = 0
    inputs: int = 0

    @property
    def controlled(self) -> bool:
        """Whether the generator is given inputs."""
        return min(self.input_encoder, self.controller, self.inputs) > 0


class LFADSNet(nn.Module):
    """Counts -> initial condition and inferred inputs -> generator -> factors -> log-rates of all neurons in all bins.

    The encoders see the observed bins alone; in the forward bins the controller has no new input, and runs on with
    the generator. In training the latents are one sample of their posteriors; in evaluation the rates are averaged
    over ``posterior_samples`` of them, made of the same draws for every trial and each paired with its opposite.

    Dynamics may be coarser than the bins: counts are summed over ``stride`` bins, and log-rates are interpolated
    between the steps' centers, after rates have been averaged in each step.

    Args:
        spec: the description of the data; traces that are longer than a training sample are read in windows.
        sizes: of the parts.
        step_ms: width of a step of the dynamics, a multiple of the bin width; None for one step a bin, as published.
        dropout: on counts, on the states of encoders and generator, and on the controller's input.
        posterior_samples: over which rates are averaged in evaluation; 0 takes the posterior's mean.
        prior_tau: time constant of inferred inputs to begin with, in steps.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        sizes: Sizes,
        step_ms: int | None,
        dropout: float,
        posterior_samples: int,
        prior_tau: float = 10.0,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        super().__init__()
        self.n_forward, self.stride, self.sizes = spec.n_forward, bins_in_step(step_ms, spec.bin_ms), sizes
        self.n_bins = spec.n_bins if spec.kind == "traces" else None
        self.posterior_samples, self.names = posterior_samples, tuple(names)
        self.dropout = Dropout(dropout)
        self.encoder = Encoder(spec.n_in, sizes.encoder)
        self.initial = Posterior(2 * sizes.encoder, sizes.initial)
        self.initial_prior = NormalPrior(sizes.initial)
        self.to_generator = linear(sizes.initial, sizes.generator)
        if sizes.controlled:
            self.input_encoder = Encoder(spec.n_in, sizes.input_encoder)
            self.input_prior = AutoregressivePrior(sizes.inputs, prior_tau)
        self.generator = Generator(
            sizes.generator,
            sizes.factors,
            controller=sizes.controller,
            encoded=2 * sizes.input_encoder,
            inputs=sizes.inputs if sizes.controlled else 0,
            dropout=dropout,
        )
        self.readout = linear(sizes.factors, spec.n_neurons * len(self.names))
        start_at_mean_rates(self.readout, spec.mean_rates, log=names[0] == "log_rates", shrink=0.1)

    def forward(self, inputs: Tensor) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N); in training also the loss's own terms (``losses``).

        In evaluation also the factors as latents (B, L, D), the inferred inputs (B, L, U) and the mean of the initial
        condition (B, I), which a sequence read in windows has many of: it is left out there.
        """
        if self.training:
            return self._sample(inputs)
        if self.n_bins is not None and inputs.shape[1] > self.n_bins:
            return in_windows(lambda part: _per_bin_outputs(self._average(part)), inputs, self.n_bins)
        return self._average(inputs)

    def _encode(self, inputs: Tensor) -> tuple[int, Tensor, Tensor, Tensor | None]:
        """Number of steps, mean and deviation of the initial condition, and the controller's input at each step."""
        observed, steps = inputs.shape[1], -(-(inputs.shape[1] + self.n_forward) // self.stride)
        seen = to_steps(self.dropout(inputs), observed, self.stride)
        mean, std = self.initial(self.dropout(self.encoder(seen)[1]))
        if not self.sizes.controlled:
            return steps, mean, std, None
        encoded = lag(self.input_encoder(seen)[0])
        return steps, mean, std, nn.functional.pad(encoded, (0, 0, 0, steps - encoded.shape[1]))

    def _sample(self, inputs: Tensor) -> Output:
        steps, mean, std, encoded = self._encode(inputs)
        initial = torch.addcmul(mean, std, torch.randn_like(mean))
        noise = torch.randn(len(mean), steps, self.sizes.inputs, dtype=mean.dtype, device=mean.device)
        course = self.generator(self.to_generator(initial), encoded, noise)
        values = to_bins(self.readout(course.factors), inputs.shape[1] + self.n_forward, self.stride)
        output = split_readout(values, self.names)
        losses = {"kl_ic": self.initial_prior.divergence(mean, std), "l2_gen": mean_square(self.generator.cell)}
        if encoded is not None:
            losses["kl_co"] = self.input_prior.divergence(course.inputs, course.mean, course.std)
            losses["l2_con"] = mean_square(self.generator.controller)
        return {**output, "losses": losses}

    def _average(self, inputs: Tensor) -> Output:
        steps, mean, std, encoded = self._encode(inputs)
        sums: dict[str, Tensor] = {}
        per_sample = len(mean) * steps * max(self.readout.out_features, self.sizes.generator)
        chunk = max(1, ELEMENTS // per_sample)
        draws = standard_draws(self.posterior_samples, self.sizes.initial + steps * self.sizes.inputs).to(mean)
        for part in draws.split(chunk):
            at_start, noise = part.split((self.sizes.initial, steps * self.sizes.inputs), dim=1)
            noise = noise.view(len(part), steps, self.sizes.inputs)
            initial = torch.addcmul(mean[None], std[None], at_start[:, None]).flatten(0, 1)
            course = self.generator(
                self.to_generator(initial),
                None if encoded is None else encoded.repeat(len(part), 1, 1),
                noise.repeat_interleave(len(mean), dim=0),
            )
            for name, values in self._outputs_to_average(course):
                values = values.unflatten(0, (len(part), len(mean))).sum(0)
                sums[name] = sums[name] + values if name in sums else values
        means = {name: values / len(draws) for name, values in sums.items()}
        if "log_rates" in means:
            means["log_rates"] = means["log_rates"].log()
        n_total = inputs.shape[1] + self.n_forward
        return {
            **{name: to_bins(values, n_total, self.stride) for name, values in means.items()},
            "initial_condition": mean,
        }

    def _outputs_to_average(self, course: Course) -> Iterator[tuple[str, Tensor]]:
        """The outputs that are averaged over samples, by name; log-rates are averaged as rates."""
        for name, values in split_readout(self.readout(course.factors), self.names).items():
            yield name, values.float().exp() if name == "log_rates" else values
        yield "latents", course.factors
        if course.mean is not None:
            yield "inferred_inputs", course.mean


def _per_bin_outputs(output: Output) -> Output:
    """The outputs that have a value for each bin."""
    return {name: values for name, values in output.items() if name != "initial_condition"}


def mean_square(cell: nn.GRUCell) -> Tensor:
    """Half the mean square of a cell's recurrent weights, which LFADS keeps small."""
    return 0.5 * cell.weight_hh.square().mean()


def standard_draws(samples: int, size: int) -> Tensor:
    """The same standard normal draws at each call; each is followed by its negative.

    What is linear in the draws cancels in the mean of a pair, so that few samples give what many would.

    Args:
        samples: how many; 0 gives a single one of zeros, the mean.
        size: numbers in each.

    Returns:
        (samples, size) on the CPU.
    """
    if not samples:
        return torch.zeros(1, size)
    draws = torch.randn(-(-samples // 2), size, generator=torch.Generator().manual_seed(0))
    return torch.stack([draws, -draws], dim=1).flatten(0, 1)[:samples]


class LFADS(SequenceModel):
    """A generator of smooth dynamics behind noisy spikes, inferred trial by trial.

    Pandarinath et al., Nature Methods 2018; after repository arsedler9/lfads-torch (Sedler & Pandarinath 2023), with
    the coordinated dropout of Keshtkaran & Pandarinath (NeurIPS 2019). Its loss is the negative log-likelihood per
    element of the targets plus the weighted divergences of a trial in nats, and weights are those of that repository.

    Other than there, the recurrent networks are torch's own, whose reset gate acts behind the recurrent product, and
    what coordinated dropout shows is not scored: divergences are divided by the share of the targets that is. The
    recurrent weights' penalty is of each network's own mean square, and inferred inputs have the floor under their
    variance that the initial condition has.

    Args:
        spec: the description of the data.
        kl_ic: weight of the initial condition's divergence from its prior.
        kl_co: weight of the inferred inputs' divergence from theirs.
        l2_gen: weight of the generator's recurrent weights.
        l2_con: weight of the controller's.
        ramp_start: epoch from which on these weights rise.
        ramp_epochs: epochs in which they rise to their full size.
        masking: hides a part of the input in training, see ``neuro_lightning.nn.masking``.
        settings: see :class:`SequenceModel` and :class:`LFADSNet`.

    Raises:
        ConfigError: a Gamma likelihood of counts, or of traces below zero.
    """

    network_class = LFADSNet

    def __init__(
        self,
        spec: DataSpec,
        *,
        kl_ic: float,
        kl_co: float,
        l2_gen: float,
        l2_con: float,
        ramp_start: int,
        ramp_epochs: int,
        masking: nn.Module | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(spec, masking=masking, **settings)
        share = scored_fraction(spec, getattr(masking, "share", 0))
        self.weights = {"kl_ic": kl_ic / share, "kl_co": kl_co / share, "l2_gen": l2_gen, "l2_con": l2_con}
        self.ramp_start, self.ramp_epochs = ramp_start, ramp_epochs

    def weight_loss_terms(self, terms: dict[str, Tensor]) -> Tensor:
        """The terms by their weights, which rise over the first epochs: the data are explained first."""
        rise = ramp(self.current_epoch, self.ramp_start, self.ramp_epochs)
        return rise * sum(self.weights[name] * term for name, term in terms.items())


def ramp(epoch: int, start: int, epochs: int) -> float:
    """The share of a weight that counts in an epoch: from ``start`` on it rises to 1 over ``epochs``, as published."""
    return min(1.0, max(0.0, (epoch + 1 - start) / (epochs + 1)))


def scored_fraction(spec: DataSpec, hidden: float) -> float:
    """The share of the targets (B, L, N) that coordinated dropout scores.

    Args:
        spec: with held-out neurons and forward bins, which are always scored.
        hidden: share of the held-in counts that is hidden from the input, and scored; 0 hides none and scores all.
    """
    if not hidden:
        return 1.0
    shown = (1 - hidden) * spec.n_bins * spec.n_in
    return 1 - shown / (spec.n_total * spec.n_neurons)
