"""Checkpoints from which a run is resumed exactly, also after its folder was moved."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.checkpoint_files import LAST, PREVIOUS
from neuro_lightning.models.base import training_ends_now
from neuro_lightning.ranks import is_main_process

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its target, waits until it is on the disk, and renames it.

    Lightning writes into the system's temporary folder. Where that is another file system its rename is a copy, and a
    kill in the middle of it leaves a part of a file. Of ``last.ckpt`` the one before is kept, too.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one checkpoint; to a remote store as Lightning does."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(without_neighbors(checkpoint), content)
        try:
            with atomic_path(path, durable=True) as part:
                part.write_bytes(content.getbuffer())
                if Path(path).name == LAST:
                    keep_previous(Path(path))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def without_neighbors(value: Any) -> Any:
    """A nest of containers in which every tensor has a storage of its own size.

    Rows of a stack of networks (:mod:`neuro_lightning.models.stacked`) would be written with all other rows.
    """
    if isinstance(value, Tensor):
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value if whole else value.detach().clone()
    if isinstance(value, dict):
        parts = {key: without_neighbors(each) for key, each in value.items()}
        return value if all(parts[key] is each for key, each in value.items()) else parts
    if type(value) in (list, tuple):
        items = [without_neighbors(each) for each in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
    return value


def keep_previous(last: Path) -> None:
    """Keep the present last checkpoint under the previous one's name, unless it is incomplete."""
    if not zipfile.is_zipfile(last):
        return
    previous = last.with_name(PREVIOUS)
    previous.unlink(missing_ok=True)
    try:
        os.link(last, previous)
    except OSError:  # a file system without links: for a moment there is only the previous one
        os.replace(last, previous)


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoints, with five differences.

    ``last.ckpt`` is the last: it is written at every validation, where Lightning writes it only when the monitored
    metric has improved, so that a run would fall back to its best epoch when it is resumed.

    None is saved between a step and its validation. With ``every_n_train_steps`` Lightning may save there, and a run
    that is resumed from such a checkpoint skips the validation. Here the save is deferred to the end of the validation
    or of the epoch.

    None is saved once more at the end of training, when an epoch too many has been counted.

    Paths are relative to the checkpoints' folder: a run that was moved or copied knows its own files. Scores
    are read from the files themselves, so that a better one is never overwritten by a worse.

    A training that was stopped early stays stopped when it is resumed.
    """

    _deferred: tuple[Any, ...] | None = None
    _resumed_step: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save models that are fitted in closed form too, which take no steps."""
        super().setup(trainer, pl_module, stage)
        if self._last_global_step_saved == 0:
            self._last_global_step_saved = -1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed training again that early stopping had stopped, unless ``min_epochs`` lets it continue."""
        for callback in trainer.callbacks:
            if isinstance(callback, EarlyStopping) and callback.stopping_reason.value:
                trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Delete the last checkpoint of an earlier training in this folder, so that it is never resumed by mistake."""
        super().on_train_start(trainer, pl_module)
        if self._resumed_step is None and is_main_process() and self.save_last and "://" not in str(self.dirpath):
            for name in (LAST, PREVIOUS):
                Path(self.dirpath, name).unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at the configured steps, but not before a validation that is due."""
        if validation_is_due(trainer):
            self._deferred = (outputs, batch, batch_idx)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what is best, and the last in any case."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_deferred(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._save_last_now(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the configured epochs, and what was deferred."""
        super().on_train_epoch_end(trainer, pl_module)
        self._save_deferred(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._save_last_now(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last of a training that had no validation to save it at."""
        if trainer.global_step != self._resumed_step and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_deferred(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._deferred is not None:
            waiting, self._deferred = self._deferred, None
            super().on_train_batch_end(trainer, pl_module, *waiting)

    def _should_save_on_train_epoch_end(self, trainer: pl.Trainer) -> bool:
        """Save a training that ends within an epoch at its validation: with more steps it is resumed from there."""
        whole = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        return super()._should_save_on_train_epoch_end(trainer) and (whole or self._save_on_train_epoch_end is True)

    def _save_last_now(self, trainer: pl.Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):  # also where this step is saved already
            self.current_score = self._monitor_candidates(trainer).get(self.monitor)  # Lightning: of the last best
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _should_remove_checkpoint(self, trainer: pl.Trainer, previous: str, current: str) -> bool:
        """Delete checkpoints in the run's own folder only: the path of the previous one comes from a resumed file.

        Lightning compares the paths as they are written (``checkpoints/../../other``), deletes whole folders, and
        on other file systems any path.
        """
        path = Path(previous).resolve()
        own = path.parent == Path(self.dirpath).resolve() and path.suffix == self.FILE_EXTENSION and not path.is_dir()
        return own and super()._should_remove_checkpoint(trainer, previous, current)

    # ---- resume

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the step from which the run resumes."""
        self._resumed_step = checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        """What is best, with paths from the checkpoints' folder."""
        state = super().state_dict()
        state |= {key: self._relative_path(state[key]) for key in PATHS}
        scores = {self._relative_path(path): score for path, score in state["best_k_models"].items()}
        return {**state, "best_k_models": scores, "dirpath": "."}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore paths, scores and the last score, which a run resumed at its very end does not compute again."""
        before = str(state_dict.get("dirpath") or ".")  # a run of an earlier version noted where it lay
        state = {**state_dict, **{key: self._path_here(state_dict.get(key) or "", before) for key in PATHS}}
        scores = {self._path_here(path, before): score for path, score in state_dict["best_k_models"].items()}
        state["best_k_models"] = self._scores_in_files(scores)
        super().load_state_dict({**state, "dirpath": self.dirpath})
        self.current_score = state_dict.get("current_score")
        if self.monitor is not None:
            self._find_best_and_worst()
        elif not os.path.isfile(self.best_model_path):
            self.best_model_path = ""

    def _relative_path(self, path: str) -> str:
        return str(path).removeprefix(str(self.dirpath)).lstrip("/\\")

    def _path_here(self, path: str, before: str) -> str:
        """A checkpoint's path in this run's folder, and in no other."""
        inside = os.path.relpath(path, before) if os.path.isabs(path) and os.path.isabs(before) else path
        name = os.path.basename(path) if os.path.isabs(inside) or ".." in Path(inside).parts else inside
        return os.path.join(self.dirpath, name) if name else ""

    def _scores_in_files(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores that the files themselves hold, without files that are gone or unreadable."""
        found = {}
        for path, score in scores.items():
            try:
                own = torch.load(path, map_location="cpu", weights_only=True)["callbacks"][self.state_key]
            except Exception as error:
                reason = "is gone" if not os.path.isfile(path) else f"cannot be read ({type(error).__name__})"
                rank_zero_warn(f"{path} {reason}: the best checkpoint is chosen among later ones")
                continue
            by_name = {os.path.basename(name): value for name, value in own["best_k_models"].items()}
            found[path] = by_name.get(os.path.basename(path), score)
        return found

    def _find_best_and_worst(self) -> None:
        """Find the best and the worst of the kept checkpoints."""
        scores = self.best_k_models
        best, worst = (max, min) if self.mode == "max" else (min, max)
        self.best_model_path = best(scores, key=scores.get) if scores else ""
        self.best_model_score = scores.get(self.best_model_path)
        full = len(scores) >= (math.inf if self.save_top_k == -1 else self.save_top_k)
        self.kth_best_model_path = worst(scores, key=scores.get) if scores and full else ""
        if self.kth_best_model_path:
            self.kth_value = scores[self.kth_best_model_path]


def validation_is_due(trainer: pl.Trainer) -> bool:
    """Whether the epoch, the training or a part of an epoch ends with this step, and a validation may follow."""
    loop, every = trainer.fit_loop, trainer.check_val_every_n_epoch
    if loop.epoch_loop.batch_progress.is_last_batch or training_ends_now(trainer):
        return True
    steps = trainer.val_check_batch
    if steps in (None, math.inf) or (every is not None and (trainer.current_epoch + 1) % every):
        return False
    return ((loop.total_batch_idx if every is None else loop.batch_idx) + 1) % steps == 0
