"""LFADS's two halves: encoders of whole trials, and the generator that a controller feeds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.nn.dropout import Dropout
from neuro_lightning.nn.padding import run_recurrent
from neuro_lightning.nn.recurrent import gru_step, init_gru

MAX_STATE = 5.0
"""States are clipped here, as published. Only a first one can be beyond: a GRU's next state is nearer to [-1, 1]."""
MIN_VARIANCE = 1e-4
"""Added to a posterior's variance, so that no posterior is a point."""


class Encoder(nn.Module):
    """A bidirectional GRU that begins at a learnt state.

    Args:
        n_in: input channels.
        hidden: units E in each direction.
    """

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(2, 1, hidden))
        self.gru = nn.GRU(n_in, hidden, batch_first=True, bidirectional=True)
        init_gru(self.gru)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, S, n_in), and the steps of each trial (B,) -> states (B, S, 2E), each direction's last one (B, 2E)."""
        start = self.start.clamp(-MAX_STATE, MAX_STATE).expand(-1, len(inputs), -1).contiguous()
        states, last = run_recurrent(self.gru, inputs, lengths, start)
        return states, last.transpose(0, 1).flatten(1)


def lag(states: Tensor) -> Tensor:
    """States of both directions (B, S, 2E), each a step late in its own direction, zeros at its beginning.

    What stands at a step was then read before it and after it, never at the step itself.
    """
    ahead, back = states.chunk(2, dim=2)
    return torch.cat([F.pad(ahead[:, :-1], (0, 0, 1, 0)), F.pad(back[:, 1:], (0, 0, 0, 1))], dim=2)


class Posterior(nn.Module):
    """A linear map to the mean and the standard deviation of a diagonal Gaussian.

    Args:
        n_in: input channels.
        dim: dimensions D.
    """

    def __init__(self, n_in: int, dim: int) -> None:
        super().__init__()
        self.linear = linear(n_in, 2 * dim)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., n_in) -> mean and standard deviation, each (..., D)."""
        mean, log_variance = self.linear(inputs).to(self.linear.weight.dtype).chunk(2, -1)
        return mean, (log_variance.exp() + MIN_VARIANCE).sqrt()


class Course(NamedTuple):
    """The states of a generator over all steps; the inputs are None without a controller.

    Attributes:
        factors: (B, S, D).
        mean: (B, S, U) of each inferred input's posterior.
        std: (B, S, U) of the same.
        inputs: (B, S, U) the sample that the generator was given.
    """

    factors: Tensor
    mean: Tensor | None
    std: Tensor | None
    inputs: Tensor | None


class Generator(nn.Module):
    """A GRU that runs on from its initial state, and a controller that corrects it.

    At each step the controller reads its encoder and the factors of the step before, and infers an input for the
    generator. Without a controller the generator is autonomous: it depends on its initial state alone.

    Args:
        hidden: units G of the generator.
        factors: D, linear in the generator's state with weights of unit length.
        controller: units of the controller.
        encoded: channels that the controller's encoder gives.
        inputs: inferred inputs U; 0 for an autonomous generator.
        dropout: on what the controller reads, and between generator and factors.
    """

    def __init__(
        self, hidden: int, factors: int, *, controller: int, encoded: int, inputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.drop = Dropout(dropout)
        self.cell = nn.GRUCell(max(inputs, 1), hidden)
        init_gru(self.cell)
        self.factor_weight = nn.Parameter(torch.randn(factors, hidden) * hidden**-0.5)
        if not inputs:
            del self.cell.weight_ih  # an autonomous GRU has an input that is always zero
            return
        self.controller = nn.GRUCell(encoded + factors, controller)
        init_gru(self.controller)
        self.controller_start = nn.Parameter(torch.zeros(1, controller))
        self.posterior = Posterior(controller, inputs)

    def forward(self, state: Tensor, encoded: Tensor | None, noise: Tensor) -> Course:
        """Run through all steps.

        Args:
            state: (B, G) to begin with.
            encoded: (B, S, encoded) the output of the controller's encoder at each step; None without a controller.
            noise: (B, S, U) standard normal draws that make the inputs a sample of their posterior; zeros take its
                mean. Without a controller only its S matters.
        """
        state = state.to(self.cell.bias_hh.dtype).clamp(-MAX_STATE, MAX_STATE)
        weight = F.normalize(self.factor_weight, dim=1)
        if encoded is None:
            return self._alone(state, weight, noise.shape[1])
        return self._controlled(state, weight, encoded, noise)

    def _alone(self, state: Tensor, weight: Tensor, steps: int) -> Course:
        states = []
        for _ in range(steps):
            state = gru_step(self.cell, self.cell.bias_ih, state)
            states.append(state)
        return Course(F.linear(self.drop(torch.stack(states, dim=1)), weight), None, None, None)

    def _controlled(self, state: Tensor, weight: Tensor, encoded: Tensor, noise: Tensor) -> Course:
        steps, widths = noise.shape[1], (encoded.shape[2], len(weight))
        at_encoder, at_factors = self.controller.weight_ih.split(widths, dim=1)
        drives = F.linear(self.drop(encoded), at_encoder, self.controller.bias_ih).unbind(1)
        control = self.controller_start.clamp(-MAX_STATE, MAX_STATE).expand(len(state), -1)
        factors, draws, course = F.linear(self.drop(state), weight), noise.unbind(1), []
        keep, keep_factors = self._kept(state, steps), self._kept(factors, steps)
        for t in range(steps):
            control = gru_step(
                self.controller, torch.addmm(drives[t], factors * keep_factors[t], at_factors.t()), control
            )
            mean, std = self.posterior(control)
            given = torch.addcmul(mean, std, draws[t])
            state = gru_step(self.cell, torch.addmm(self.cell.bias_ih, given, self.cell.weight_ih.t()), state)
            factors = F.linear(state * keep[t], weight)
            course.append((factors, mean, std, given))
        return Course(*(torch.stack(values, dim=1) for values in zip(*course, strict=True)))

    def _kept(self, values: Tensor, steps: int) -> Tensor:
        """Dropout factors of values (B, D) at each step, drawn for all steps at once."""
        return self.drop(values.new_ones(steps, *values.shape)) if self.training else values.new_ones(steps)


def linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear map with weights of standard deviation ``1 / sqrt(n_in)`` and no offset to begin with."""
    layer = nn.Linear(n_in, n_out)
    nn.init.normal_(layer.weight, std=n_in**-0.5)
    nn.init.zeros_(layer.bias)
    return layer
