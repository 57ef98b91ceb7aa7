"""A calcium recording in memory: a few latents behind every neuron, private noise, held-out neurons."""

import numpy as np

from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording, Trials

N_LATENTS = 2


class TinyTraces(PopulationDataModule):
    """Sequences of one length to train on, one longer sequence to validate and one to test with.

    Args:
        n_in: held-in neurons.
        n_out: held-out neurons; a tenth of their training activity was not observed.
        n_train: training sequences.
        n_bins: bins in each.
        noise: standard deviation of private noise; the signal's is about 1.
        loader: see the base class.
    """

    def __init__(self, *, n_in: int, n_out: int, n_train: int, n_bins: int, noise: float, **loader):
        super().__init__(**loader)
        self.n_in, self.n_out, self.n_train, self.n_bins, self.noise = n_in, n_out, n_train, n_bins, noise

    def load(self) -> Recording:
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(N_LATENTS, self.n_in + self.n_out))
        mean = rng.uniform(1, 2, self.n_in + self.n_out)
        sizes = {"train": (self.n_train, self.n_bins), "val": (1, 2 * self.n_bins), "test": (1, self.n_bins + 3)}
        splits = {
            name: make_sequences(n, bins, weights, mean, self.noise, self.n_in, rng)
            for name, (n, bins) in sizes.items()
        }
        return Recording("tiny_traces", 1000, splits, np.arange(self.n_in + self.n_out), kind="traces", simulated=True)


def make_sequences(n, bins, weights, mean, noise, n_in, rng) -> Trials:
    phase = rng.uniform(0, 2 * np.pi, (n, 1, N_LATENTS))
    latents = np.sin(np.arange(bins)[None, :, None] * [0.7, 1.3] + phase)
    rates = (mean + latents @ weights).astype(np.float32)
    activity = (rates + noise * rng.normal(size=rates.shape)).astype(np.float32)
    heldout = activity[..., n_in:].copy()
    heldout[rng.random(heldout.shape[:2]) < 0.1] = np.nan
    return Trials(
        heldin=activity[..., :n_in],
        heldout=heldout if heldout.shape[2] else None,
        rates=rates,
        condition=np.arange(n) % 2,
        row=np.arange(n),
    )
