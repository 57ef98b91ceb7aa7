"""A network of sequences: a session's read-in, a core that knows no neurons, and the session's readout."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn

from neuro_lightning.contracts import Output
from neuro_lightning.nn.heads import Heads
from neuro_lightning.nn.padding import hold_last, trial_lengths
from neuro_lightning.nn.rate_readout import RateReadout
from neuro_lightning.nn.readin import ReadIn
from neuro_lightning.nn.stepping import State, Stepwise, add_bin, bins_to_come, of_part, under
from neuro_lightning.nn.steps import Steps
from neuro_lightning.nn.windows import in_windows


class StepwiseCore(Protocol):
    """A core with a step form."""

    def initial_state(self, batch: int) -> State:
        """The state before a trial's first step."""
        ...

    def step(self, steps: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, 1, C) channels of the next step -> latents (B, 1, D), and the state after it."""
        ...


class SequenceNet(Stepwise):
    """Counts of the held-in neurons -> read-in -> core -> latents -> readout -> log-rates of all neurons in all bins.

    Of traces the readout gives the expected values themselves. The forward bins enter as zeros.

    Where some inputs were not recorded, ``observed`` (bool like the inputs) says which were. Bins at the end of a trial
    in which none was are padding: the core does not read them, and what it gives there means nothing.

    A network of causal steps also runs bin by bin, see :class:`Stepwise`, if its core is a
    :class:`StepwiseCore`. ``heads`` are added to a network that is finished; ``contracts.call_network`` lets them read
    its latents.

    Args:
        steps: of the network in time.
        readin: (B, T, N_in) counts -> channels (B, S, C) of steps.
        core: channels, and the steps of each trial (B,) or None -> latents (B, S, D).
        readout: latents -> values (B, L, N).
        fixed_length: the core has a length of its own: sequences that are longer, of traces, are read window by window.
    """

    def __init__(
        self, steps: Steps, readin: ReadIn, core: nn.Module, readout: RateReadout, *, fixed_length: bool = False
    ) -> None:
        super().__init__()
        self.heads: Heads | None = None
        self.steps, self.fixed_length = steps, fixed_length
        self.readin, self.core, self.readout = readin, core, readout

    def lengths(self, observed: Tensor | None) -> Tensor | None:
        """(B,) steps of each trial; None where all have as many: forward bins are read out of all trials alike."""
        if observed is None or self.steps.n_forward:
            return None
        return -(-trial_lengths(observed) // self.steps.stride)

    def encode(self, inputs: Tensor, observed: Tensor | None = None) -> Tensor:
        """(B, T, N_in) counts -> latents (B, S, D) of all steps."""
        n_total = inputs.shape[1] + self.steps.n_forward
        return self.core(self.readin(inputs, n_total, observed), self.lengths(observed))

    def extra_losses(self, inputs: Tensor, observed: Tensor | None = None) -> dict[str, Tensor]:
        """Terms of the training loss beside that of the rates, by name."""
        return {}

    def forward(self, inputs: Tensor, observed: Tensor | None = None) -> Output:
        """(B, T, N_in) counts -> log-rates (B, L, N) and, in evaluation and for heads, latents (B, L, D)."""
        if self.fixed_length and inputs.shape[1] > self.steps.n_bins and not self.steps.n_forward:
            return in_windows(self, inputs, self.steps.n_bins, observed)
        n_total = inputs.shape[1] + self.steps.n_forward
        latents = hold_last(self.encode(inputs, observed), self.lengths(observed))
        output = self.readout(latents, n_total)
        if not self.training or self.heads is not None:
            output["latents"] = self.steps.interpolate(latents, n_total)
        if not self.training:
            return output
        losses = self.extra_losses(inputs, observed)
        return {**output, "losses": losses} if losses else output

    # ---- bin by bin

    @property
    def looks_ahead(self) -> bool:
        """Whether what is said of a bin depends on later ones."""
        return not (self.steps.causal and hasattr(self.core, "step"))

    @property
    def longest(self) -> int | None:
        """The observed bins T of a trial, where the core has a length of its own."""
        return self.steps.n_bins if self.fixed_length else None

    @property
    def lag(self) -> int:
        """That of the steps."""
        return self.steps.lag

    def initial_state(self, batch: int) -> State:
        """See :class:`Stepwise`."""
        core = cast(StepwiseCore, self.core)
        return {
            **bins_to_come(batch, len(self.readin.unseen), self.steps.stride, self.readin.unseen),
            "latents": self.readin.unseen.new_zeros(batch, self.readout.linear.in_features),
            **under("readin", self.readin.initial_state(batch)),
            **under("core", core.initial_state(batch)),
        }

    def step(self, inputs: Tensor, state: State, observed: Tensor | None = None) -> tuple[Output, State]:
        """See :class:`Stepwise`. The latents are those of the last step that has ended, zeros before the first."""
        state = add_bin(inputs, state, self.steps.stride, self._run_step, observed)
        latents = state["latents"]
        output: Output = {**self.readout.step(latents), "latents": latents}
        if self.heads is not None:
            output["heads"] = self.heads.step(latents)
        return output, state

    def _run_step(self, sums: Tensor, share: Tensor, state: State) -> State:
        channels, readin = self.readin.step(sums, share, of_part(state, "readin"))
        latents, core = cast(StepwiseCore, self.core).step(channels, of_part(state, "core"))
        return {"latents": latents[:, 0], **under("readin", readin), **under("core", core)}
