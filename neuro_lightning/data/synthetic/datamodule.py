"""Data modules of simulated recordings that no real recording stands behind."""

from __future__ import annotations

from typing import Any

from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.synthetic.simulate import simulate_chaotic_rnn, simulate_lorenz
from neuro_lightning.errors import ConfigError


class Lorenz(PopulationDataModule):
    """Simulated neurons driven by the Lorenz attractor; their true rates are known.

    Args:
        sizes: how much is simulated.
        step: the system's time in a bin; larger is faster.
        simulate: true; the key is here so that a sweep can set it for all its datasets.
        seed: of the simulation.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(self, *, sizes: Any, step: float, simulate: bool = True, seed: int = 0, **loader: Any) -> None:
        super().__init__(**loader)
        _only_simulated("lorenz", simulate)
        self.sizes, self.step, self.seed = sizes, step, seed

    def load(self) -> Recording:
        """Simulated anew each time: it takes less than a second."""
        return simulate_lorenz(self.sizes, step=self.step, seed=self.seed)


class ChaoticRNN(PopulationDataModule):
    """Simulated neurons read out from a chaotic rate network; their true rates are known.

    Args:
        sizes: how much is simulated.
        n_units: units of the network.
        gain: of its weights; the larger the more chaotic.
        tau_ms: the units' time constant.
        simulate: true; the key is here so that a sweep can set it for all its datasets.
        seed: of the simulation.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(
        self,
        *,
        sizes: Any,
        n_units: int,
        gain: float,
        tau_ms: float,
        simulate: bool = True,
        seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        _only_simulated("chaotic_rnn", simulate)
        self.sizes, self.seed = sizes, seed
        self.network = {"n_units": n_units, "gain": gain, "tau_ms": tau_ms}

    def load(self) -> Recording:
        """Simulated anew each time: it takes about a second."""
        return simulate_chaotic_rnn(self.sizes, **self.network, seed=self.seed)


def _only_simulated(name: str, simulate: bool) -> None:
    if not simulate:
        raise ConfigError(f"data.simulate=false: {name} exists only as a simulation; choose a recorded dataset")
