"""Small recordings in memory that differ in their trials and in their neurons, to train on together."""

import numpy as np
from tiny import BINS, CONDITIONS, N_IN, N_OUT, Tiny, make_trials, poison

from neuro_lightning.data.recording import Recording


class TinySession(Tiny):
    """A recording such as :class:`tiny.Tiny` makes, of which the first held-in neurons are missing.

    Args:
        seed: of its trials.
        missing: how many neurons.
        bin_ms: bin width.
        loader: see the base class.
    """

    def __init__(self, *, seed: int, missing: int = 0, bin_ms: int = 10, **loader):
        super().__init__(**loader)
        self.seed, self.missing, self.bin_ms = seed, missing, bin_ms

    def load(self) -> Recording:
        rng = np.random.default_rng(self.seed)
        splits = {name: make_trials(n, rng) for name, n in self.sizes.items() if n}
        psth = rng.gamma(2.0, 0.2, (CONDITIONS, BINS, N_IN + N_OUT))[..., self.missing :]
        for trials in splits.values():
            for name in ("heldin", "heldin_forward", "rates"):
                setattr(trials, name, getattr(trials, name)[..., self.missing :])
        for part, value in self.poison.items():
            poison(splits, part, value)
        units = np.arange(N_IN + N_OUT - self.missing)  # every recording counts its own from 0
        return Recording("tiny", self.bin_ms, splits, units, psth=psth, behavior_kind="velocity", simulated=True)
