"""The LightningDataModule that every dataset shares: from a recording to batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.dataset import TrialDataset
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.sampler import EpochBatches, Shards
from neuro_lightning.errors import DataError


class PopulationDataModule(pl.LightningDataModule):
    """Serves the trials of a recording. A dataset family is a subclass with a :meth:`load`.

    Args:
        batch_size: trials in a training batch, over all processes.
        eval_batch_size: trials in a batch of validation, test and prediction, per process.
        shuffle_seed: of the order of the training trials.
    """

    def __init__(self, *, batch_size: int = 64, eval_batch_size: int = 256, shuffle_seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise DataError("data.batch_size and data.eval_batch_size must be at least 1")
        self.batch_size, self.eval_batch_size, self.shuffle_seed = batch_size, eval_batch_size, shuffle_seed
        self._recording: Recording | None = None
        self._spec: DataSpec | None = None
        self._datasets: dict[tuple[str, bool], TrialDataset] = {}
        self._resume_at = (-1, 0)

    def load(self) -> Recording:
        """Read, download or simulate the recording; what it costs is cached on disk by the subclass.

        Raises:
            DataError: the data are missing, damaged, or not what the config says.
        """
        raise NotImplementedError

    # ---- what the rest of the house asks

    @property
    def recording(self) -> Recording:
        """The recording, read at the first use."""
        if self._recording is None:
            self._recording = self.load()
        return self._recording

    def adopt(self, spec: DataSpec, info: dict[str, Any]) -> None:
        """Serve another file's trials as a trained model expects them; for families that can.

        Args:
            spec: of the data the model was trained on.
            info: what the recording it was trained on noted (which neurons were held out, ...).

        Raises:
            DataError: the family has one file only.
        """
        raise DataError(f"data.path: {spec.dataset} cannot be predicted from another file; leave data.path out")

    @property
    def spec(self) -> DataSpec:
        """What a model must know of these data."""
        if self._spec is None:
            self._spec = self._describe()
        return self._spec

    def _describe(self) -> DataSpec:
        recording = self.recording
        train = recording.splits["train"]
        behavior = train.behavior
        return DataSpec(
            dataset=recording.name,
            n_in=train.heldin.shape[2],
            n_out=0 if train.heldout is None else train.heldout.shape[2],
            n_bins=train.heldin.shape[1],
            n_forward=0 if train.heldin_forward is None else train.heldin_forward.shape[1],
            bin_ms=recording.bin_ms,
            mean_rates=tuple(mean_rates(train).tolist()),
            unit_ids=tuple(int(unit) for unit in recording.unit_ids),
            behavior_dim=0 if behavior is None else behavior.shape[-1],
            behavior_kind=recording.behavior_kind if behavior is not None else "none",
            decode_groups=1 if train.decode_mask is None else train.decode_mask.shape[1],
            n_conditions=0 if recording.psth is None else len(recording.psth),
            true_rates=train.rates is not None,
            simulated=recording.simulated,
        )

    def references(self) -> dict[str, dict[str, Any]]:
        """What the metrics of each labelled split compare with: ``n_eval`` trials and the target PSTHs."""
        psth = self.recording.psth
        shared = {"psth": None if psth is None else torch.from_numpy(np.asarray(psth, np.float64))}
        return {
            name: {"n_eval": len(trials), **shared}
            for name, trials in self.recording.splits.items()
            if name != "train" and labelled(trials)
        }

    def dataset(self, split: str, *, evaluate: bool) -> TrialDataset:
        """The split's tensors, made once."""
        if (split, evaluate) not in self._datasets:
            spec, trials = self.spec, self.recording.splits[split]
            dataset = TrialDataset(trials, n_out=spec.n_out, n_forward=spec.n_forward, evaluate=evaluate)
            self._datasets[split, evaluate] = dataset
        return self._datasets[split, evaluate]

    # ---- Lightning

    def prepare_data(self) -> None:
        """Fill the cache on one process, so that the others find it, and check that there is enough to train on."""
        check_splits(self.recording)

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches."""
        dataset = self.dataset("train", evaluate=False)
        rank, world = self._place()
        if self.trainer is not None and self.trainer.overfit_batches:
            return self._loader(dataset, Shards(len(dataset), self.batch_size, rank=rank, world=world))
        try:
            sampler = EpochBatches(len(dataset), self.batch_size, seed=self.shuffle_seed, rank=rank, world=world)
        except ValueError as error:
            raise DataError(str(error)) from None
        sampler.resume(*self._resume_at)
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> list[DataLoader]:
        """The validation trials and, when velocity is decoded, the training trials that the decoder learns from."""
        return self._eval_loaders("val")

    def test_dataloader(self) -> list[DataLoader]:
        """The same for the labelled test trials."""
        return self._eval_loaders("test")

    def eval_dataloader(self, split: str, *, evaluate: bool = True, shared: bool = False) -> DataLoader:
        """All trials of a split in order; ``shared`` deals them to the processes without padding."""
        dataset = self.dataset(split, evaluate=evaluate)
        rank, world = self._place() if shared else (0, 1)
        return self._loader(dataset, Shards(len(dataset), self.eval_batch_size, rank=rank, world=world))

    def _eval_loaders(self, split: str) -> list[DataLoader]:
        loaders = [self.eval_dataloader(split, shared=True)]
        if self.spec.behavior_kind == "velocity":
            loaders.append(self.eval_dataloader("train", evaluate=False, shared=True))
        return loaders

    def _loader(self, dataset: TrialDataset, sampler: Sampler) -> DataLoader:
        # batch_size=None: the sampler's lists of trials go to the dataset whole, which needs no collation
        return DataLoader(dataset, batch_size=None, sampler=sampler)

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    # ---- resume

    def state_dict(self) -> dict[str, int]:
        """How far into which epoch a checkpoint was taken."""
        loop = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        done = 0 if progress.is_last_batch else progress.current.ready
        return {"epoch": self.trainer.current_epoch, "batches": done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there: the epoch's finished batches are left out."""
        self._resume_at = (state_dict["epoch"], state_dict["batches"])


def labelled(trials: Trials) -> bool:
    """Whether predictions of these trials can be scored."""
    return trials.heldout is not None or trials.heldin_forward is not None or trials.rates is not None


def mean_rates(train: Trials) -> np.ndarray:
    """(N,) mean spikes per bin over the observed window, NaN ignored; held-in first."""
    parts = [train.heldin] + ([] if train.heldout is None else [train.heldout])
    return np.concatenate([np.nan_to_num(np.nanmean(part, axis=(0, 1), dtype=np.float64)) for part in parts])


def check_splits(recording: Recording) -> None:
    """Every recording needs trials to train on and to validate with.

    Raises:
        DataError: a split is missing or empty.
    """
    for split in ("train", "val"):
        if split not in recording.splits or len(recording.splits[split]) == 0:
            raise DataError(
                f"{recording.name} has no {split} trials: check data.phase, data.val_fraction and the trial table"
            )
