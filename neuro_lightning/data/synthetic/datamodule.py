"""Data modules of simulated recordings that no real recording stands behind."""

from __future__ import annotations

from typing import Any

from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.synthetic import simulate as simulated
from neuro_lightning.data.synthetic.simulate import simulate_chaotic_rnn, simulate_lorenz
from neuro_lightning.errors import ConfigError


class SimulatedDataModule(PopulationDataModule):
    """A recording that exists only as a simulation.

    Args:
        sizes: how much is simulated.
        simulate: true; the key is here so that a sweep can set it for all its datasets.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(self, *, sizes: simulated.Sizes, simulate: bool = True, **loader: Any) -> None:
        super().__init__(**loader)
        if not simulate:
            raise ConfigError("data.simulate=false: these data exist only as a simulation; choose a recorded dataset")
        self.sizes = sizes


@takes_options_of(simulate_lorenz)
class Lorenz(SimulatedDataModule):
    """Simulated neurons driven by the Lorenz attractor; their true rates are known.

    The options are explained at :func:`neuro_lightning.data.synthetic.simulate.simulate_lorenz`.
    """

    def load(self) -> Recording:
        """Simulated anew each time: it takes less than a second."""
        return simulate_lorenz(self.sizes, **self.options)


@takes_options_of(simulate_chaotic_rnn)
class ChaoticRNN(SimulatedDataModule):
    """Simulated neurons read out from a chaotic rate network; their true rates are known.

    The options are explained at :func:`neuro_lightning.data.synthetic.simulate.simulate_chaotic_rnn`.
    """

    def load(self) -> Recording:
        """Simulated anew each time: it takes about a second."""
        return simulate_chaotic_rnn(self.sizes, **self.options)
