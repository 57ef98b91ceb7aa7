"""A data module for each family of datasets: where its recording comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import ConfigError


class NLB(PopulationDataModule):
    """A dataset of the Neural Latents Benchmark.

    Args:
        dataset: ``mc_maze``, ``mc_maze_large``, ``mc_maze_medium``, ``mc_maze_small``, ``mc_rtt``, ``area2_bump`` or
            ``dmfc_rsg``.
        root: where the files lie or are downloaded to.
        cache_dir: prepared tensors.
        bin_ms: bin width, 5 or 20 ms.
        phase: ``val`` trains on the benchmark's training trials and predicts its validation trials; ``test``
            predicts its test trials, still choosing the checkpoint on the validation trials.
        simulate: use a simulated twin, written below ``root`` in the layout of the real files.
        simulate_seed: of the twin.
        download: fetch missing files with dandi.
        loader: see :class:`PopulationDataModule`.
    """

    def __init__(
        self,
        dataset: str,
        *,
        root: str,
        cache_dir: str,
        bin_ms: int = 5,
        phase: str = "val",
        simulate: bool = False,
        simulate_seed: int = 0,
        download: bool = True,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.dataset_name, self.root, self.cache_dir = dataset, Path(root), Path(cache_dir)
        self.bin_ms, self.phase, self.download = bin_ms, phase, download
        self.simulate, self.simulate_seed = simulate, simulate_seed

    def files(self) -> tuple[Path, Path]:
        """The train and the test file: found, downloaded or simulated. Phase ``val`` does without the test file."""
        if self.simulate:
            from neuro_lightning.data.simulate.nwb_twin import write_twin

            return write_twin(
                self.dataset_name, self.root / "simulated" / f"seed_{self.simulate_seed}", seed=self.simulate_seed
            )
        from neuro_lightning.data.download import nlb_files

        return nlb_files(self.dataset_name, self.root, download=self.download, test=self.phase == "test")

    def load(self) -> Recording:
        """The benchmark's tensors, from the cache if they are there."""
        from neuro_lightning.data.cache import cached
        from neuro_lightning.data.nlb.tensors import load_nlb

        train, test = self.files()
        params = {"dataset": self.dataset_name, "phase": self.phase, "bin_ms": self.bin_ms}
        sources = [train, test] if self.phase == "test" else [train]
        return cached(
            self.cache_dir,
            {"reader": "nlb", **params},
            sources,
            lambda: load_nlb(self.dataset_name, train, test, phase=self.phase, bin_ms=self.bin_ms),
        )


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
        from neuro_lightning.data.simulate.trials import simulate_lorenz

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
        from neuro_lightning.data.simulate.trials import simulate_chaotic_rnn

        return simulate_chaotic_rnn(self.sizes, **self.network, seed=self.seed)


class NWB(PopulationDataModule):
    """Any NWB file with units and trials.

    Args:
        path: the file.
        cache_dir: prepared tensors.
        options: how it is cut and split, see :func:`neuro_lightning.data.nwb_trials.load_nwb_trials`.
        batch_size: see :class:`PopulationDataModule`.
        eval_batch_size: likewise.
        shuffle_seed: likewise.
    """

    def __init__(
        self,
        path: str,
        *,
        cache_dir: str,
        trials: str = "trials",
        align: str = "start_time",
        window_ms: list[int] | None = None,
        bin_ms: int = 5,
        forward_ms: int = 0,
        behavior: str | None = None,
        lag_ms: int = 0,
        conditions: list[str] | tuple[str, ...] = (),
        units: list[int] | None = None,
        drop_duplicates: bool = False,
        min_spikes: int = 1,
        heldout_fraction: float = 0.25,
        val_fraction: float = 0.25,
        split: str = "auto",
        seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.path, self.cache_dir = Path(path), Path(cache_dir)
        self.options = {
            "trials": trials,
            "align": align,
            "window_ms": window_ms,
            "bin_ms": bin_ms,
            "forward_ms": forward_ms,
            "behavior": behavior,
            "lag_ms": lag_ms,
            "conditions": list(conditions),
            "units": units,
            "drop_duplicates": drop_duplicates,
            "min_spikes": min_spikes,
            "heldout_fraction": heldout_fraction,
            "val_fraction": val_fraction,
            "split": split,
            "seed": seed,
        }
        self._trained: dict[str, Any] | None = None

    def adopt(self, spec: DataSpec, info: dict[str, Any], identity: Identity, *, same_units: bool = False) -> None:
        """Serve all trials of another file of the same neurons, as the model that ``info`` is of expects them."""
        # velocity is decoded from training trials and PSTHs are of known conditions: another file has neither
        self._spec = replace(spec, behavior_kind="none", behavior_dim=0, n_conditions=0)
        self._trained, self._trained_on, self._same_units = info, identity, same_units
        self.adopted = True

    def load(self) -> Recording:
        """The file's trials, from the cache if they are there."""
        from neuro_lightning.data.adoption import adopted
        from neuro_lightning.data.cache import cached
        from neuro_lightning.data.nwb_trials import apply_split, load_nwb_trials

        if self._trained is not None:
            return adopted(apply_split(self.path, self._trained), self._trained_on, same_units=self._same_units)
        params = {"reader": "nwb", **self.options}
        return cached(self.cache_dir, params, [self.path], lambda: load_nwb_trials(self.path, **self.options))


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
        from neuro_lightning.data.lfads_h5 import load_lfads_h5

        return load_lfads_h5(self.path, **self.options)


def _only_simulated(name: str, simulate: bool) -> None:
    if not simulate:
        raise ConfigError(f"data.simulate=false: {name} exists only as a simulation; choose a recorded dataset")
