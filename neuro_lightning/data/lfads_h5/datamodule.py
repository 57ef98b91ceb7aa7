"""The data module of h5 files in the style of LFADS, lfads-torch and NDT."""

from __future__ import annotations

from typing import Any

from neuro_lightning.data.lfads_h5.reader import load_lfads_h5
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording


class LFADSH5(PopulationDataModule):
    """An h5 file in the style of LFADS, lfads-torch or NDT.

    Args:
        path: the file.
        bin_ms: its bin width, which such files do not say.
        heldout_fraction: share of the neurons to hold out where the file does not say which.
        n_forward: last bins of each trial to predict unseen, where the file does not say.
        seed: draws the held-out neurons.
        drop_duplicates: keep one of the neurons that look like one neuron sorted twice.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(
        self,
        path: str,
        *,
        bin_ms: int = 10,
        heldout_fraction: float = 0.25,
        n_forward: int = 0,
        seed: int = 0,
        drop_duplicates: bool = False,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.path = path
        self.options = {
            "bin_ms": bin_ms,
            "heldout_fraction": heldout_fraction,
            "n_forward": n_forward,
            "seed": seed,
            "drop_duplicates": drop_duplicates,
        }

    def load(self) -> Recording:
        """Read anew each time: the files are small and hold binned counts."""
        return load_lfads_h5(self.path, **self.options)
