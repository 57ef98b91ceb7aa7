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
from neuro_lightning.nn.padding import hold_last, inside
from neuro_lightning.nn.priors import AutoregressivePrior, NormalPrior
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.sequence_net import SequenceNet
from neuro_lightning.nn.steps import Steps
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


class LFADSCore(nn.Module):
    """Channels of the observed steps -> initial condition and inferred inputs -> generator -> factors of all steps.

    Args:
        channels: C of the input.
        sizes: of the parts.
        dropout: on the states of encoders and generator, and on the controller's input.
        prior_tau: time constant of inferred inputs to begin with, in steps.
    """

    def __init__(self, channels: int, sizes: Sizes, *, dropout: float, prior_tau: float) -> None:
        super().__init__()
        self.sizes, self.width = sizes, sizes.factors
        self.dropout = Dropout(dropout)
        self.encoder = Encoder(channels, sizes.encoder)
        self.initial = Posterior(2 * sizes.encoder, sizes.initial)
        self.initial_prior = NormalPrior(sizes.initial)
        self.to_generator = linear(sizes.initial, sizes.generator)
        if sizes.controlled:
            self.input_encoder = Encoder(channels, sizes.input_encoder)
            self.input_prior = AutoregressivePrior(sizes.inputs, prior_tau)
        self.generator = Generator(
            sizes.generator,
            sizes.factors,
            controller=sizes.controller,
            encoded=2 * sizes.input_encoder,
            inputs=sizes.inputs if sizes.controlled else 0,
            dropout=dropout,
        )

    def encode(self, seen: Tensor, steps: int, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean and deviation (B, I) of the initial condition, and the controller's input (B, S, E) at each step.

        Args:
            seen: (B, S', C) the observed steps.
            steps: S, all steps.
            lengths: (B,) observed steps of each trial; None where all have S'.
        """
        mean, std = self.initial(self.dropout(self.encoder(seen, lengths)[1]))
        if not self.sizes.controlled:
            return mean, std, None
        encoded = lag(self.input_encoder(seen, lengths)[0])
        return mean, std, nn.functional.pad(encoded, (0, 0, 0, steps - encoded.shape[1]))

    def sample(self, seen: Tensor, steps: int, lengths: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Factors (B, S, D) of one sample of the posteriors, and the terms of the loss by name; see :meth:`encode`."""
        mean, std, encoded = self.encode(seen, steps, lengths)
        initial = torch.addcmul(mean, std, torch.randn_like(mean))
        noise = torch.randn(len(mean), steps, self.sizes.inputs, dtype=mean.dtype, device=mean.device)
        course = self.generator(self.to_generator(initial), encoded, noise)
        losses = {"kl_ic": self.initial_prior.divergence(mean, std), "l2_gen": mean_square(self.generator.cell)}
        if encoded is not None:
            counts = None if lengths is None else inside(lengths, steps)
            losses["kl_co"] = self.input_prior.divergence(course.inputs, course.mean, course.std, counts)
            losses["l2_con"] = mean_square(self.generator.controller)
        return course.factors, losses


class LFADSNet(SequenceNet):
    """Generator and encoders of LFADS between read-in and readout.

    The encoders see the observed bins alone; in the forward bins the controller has no new input, and runs on with
    the generator. In training the latents are one sample of their posteriors; in evaluation the rates are averaged
    over ``posterior_samples`` of them, made of the same draws for every trial and each paired with its opposite.

    Dynamics may be coarser than the bins: log-rates are interpolated between the steps' centers, after rates have been
    averaged in each step.

    Args:
        spec: the description of the data; traces that are longer than a training sample are read in windows.
        readin: what is read of a step.
        readout: how rates are read out of the factors.
        sizes: of the parts.
        step_ms: width of a step of the dynamics, a multiple of the bin width; None for one step a bin, as published.
        dropout: on the states of encoders and generator, and on the controller's input.
        posterior_samples: over which rates are averaged in evaluation; 0 takes the posterior's mean.
        prior_tau: time constant of inferred inputs to begin with, in steps.
        names: the values that the readout gives for each entry, see ``neuro_lightning.losses.readout_names``.
    """

    not_by_bins = "it infers what a trial begins with from the whole trial"

    def __init__(
        self,
        spec: DataSpec,
        *,
        readin: ReadInSettings,
        readout: ReadoutSettings,
        sizes: Sizes,
        step_ms: int | None,
        dropout: float,
        posterior_samples: int,
        prior_tau: float = 10.0,
        names: Sequence[str] = ("log_rates",),
    ) -> None:
        steps = Steps.of(spec, step_ms)
        reads_in = readin.build(spec, steps, sizes.encoder)
        core = LFADSCore(reads_in.width, sizes, dropout=dropout, prior_tau=prior_tau)
        reads_out = readout.build(spec, steps, core.width, names, small_normal_weights)
        super().__init__(steps, reads_in, core, reads_out, fixed_length=spec.kind == "traces")
        self.posterior_samples = posterior_samples

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N); in training also the loss's own terms (``losses``).

        In evaluation also the factors as latents (B, L, D), the inferred inputs (B, L, U) and the mean of the initial
        condition (B, I), which a sequence read in windows has many of: it is left out there.
        """
        if self.training:
            return self._sample(inputs, observed)
        if self.fixed_length and inputs.shape[1] > self.steps.n_bins:
            return in_windows(
                lambda *parts: _per_bin_outputs(self._average(*parts)), inputs, self.steps.n_bins, observed
            )
        return self._average(inputs, observed)

    def mean_course(self, inputs: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Course]:
        """The generator's first state (B, G), and its course, both of the posteriors' means: nothing is drawn."""
        steps = self.steps.cover(inputs.shape[1] + self.steps.n_forward)
        seen = self.readin(inputs, inputs.shape[1], observed)
        mean, _, encoded = self.core.encode(seen, steps, self.lengths(observed))
        start = self.core.to_generator(mean)
        return start, self.core.generator(start, encoded, mean.new_zeros(len(mean), steps, self.core.sizes.inputs))

    def _sample(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        n_total, lengths = inputs.shape[1] + self.steps.n_forward, self.lengths(observed)
        seen = self.readin(inputs, inputs.shape[1], observed)
        factors, losses = self.core.sample(seen, self.steps.cover(n_total), lengths)
        factors = hold_last(factors, lengths)
        output = self.readout(factors, n_total)
        if self.heads is not None:
            output["latents"] = self.steps.interpolate(factors, n_total)
        return {**output, "losses": losses}

    def _average(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        n_total, lengths = inputs.shape[1] + self.steps.n_forward, self.lengths(observed)
        steps, sizes = self.steps.cover(n_total), self.core.sizes
        mean, std, encoded = self.core.encode(self.readin(inputs, inputs.shape[1], observed), steps, lengths)
        sums: dict[str, Tensor] = {}
        per_sample = len(mean) * steps * max(self.readout.linear.out_features, sizes.generator)
        chunk = max(1, ELEMENTS // per_sample)
        draws = standard_draws(self.posterior_samples, sizes.initial + steps * sizes.inputs).to(mean)
        for part in draws.split(chunk):
            at_start, noise = part.split((sizes.initial, steps * sizes.inputs), dim=1)
            noise = noise.view(len(part), steps, sizes.inputs)
            initial = torch.addcmul(mean[None], std[None], at_start[:, None]).flatten(0, 1)
            course = self.core.generator(
                self.core.to_generator(initial),
                None if encoded is None else encoded.repeat(len(part), 1, 1),
                noise.repeat_interleave(len(mean), dim=0),
            )
            for name, values in self._outputs_to_average(course):
                values = values.unflatten(0, (len(part), len(mean))).sum(0)
                sums[name] = sums[name] + values if name in sums else values
        means = {name: hold_last(values, lengths) / len(draws) for name, values in sums.items()}
        if "log_rates" in means:
            means["log_rates"] = means["log_rates"].log()
        return {
            **{name: self.steps.interpolate(values, n_total) for name, values in means.items()},
            "initial_condition": mean,
        }

    def _outputs_to_average(self, course: Course) -> Iterator[tuple[str, Tensor]]:
        """The outputs that are averaged over samples, by name; log-rates are averaged as rates."""
        for name, values in split_readout(self.readout.linear(course.factors), self.readout.names).items():
            yield name, values.float().exp() if name == "log_rates" else values
        yield "latents", course.factors
        if course.mean is not None:
            yield "inferred_inputs", course.mean


def small_normal_weights(readout: nn.Linear) -> None:
    """Draw weights of standard deviation ``0.1 / sqrt(D)``, and set the biases to zero."""
    nn.init.normal_(readout.weight, std=readout.in_features**-0.5).mul_(0.1)
    nn.init.zeros_(readout.bias)


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
        shares = [scored_fraction(part, getattr(masking, "share", 0)) for part in spec.parts]
        share = sum(shares) / len(shares)
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
