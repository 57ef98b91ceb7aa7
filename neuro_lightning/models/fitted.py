"""Models that are fitted before the first validation, in closed form or by their own optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch.utils.data import Dataset

from neuro_lightning.artifacts.lines import announce
from neuro_lightning.contracts import Batch, DataSpec
from neuro_lightning.models.base import PopulationModule


def as_list(values: Any) -> list:
    """Values to choose from as a list; a single one is the only choice."""
    return list(values) if isinstance(values, Sequence) else [values]


def needs_all_inputs(spec: DataSpec) -> str | None:
    """Why a model that needs every input cannot run on these data; None if it can."""
    if not spec.partial:
        return None
    return (
        "some inputs were not recorded (trials of unequal length, or neurons that come and go), and its fit needs all; "
        "take model=smoothing or a network, or cut windows that all trials fill"
    )


class FittedModule(PopulationModule):
    """A model whose :meth:`fit_net` learns everything before the first validation.

    It serves as a model of its own and as a baseline beside others. One whose fit is stopped or chosen on the
    validation split says ``chooses_on_val``: without the split it would be another model.
    """

    chooses_on_val: ClassVar[bool] = False
    takes_sessions: ClassVar[bool] = False

    def fit_net(self, train: Dataset, val: Dataset | None = None) -> None:
        """Fit the network, on the CPU.

        Args:
            train: the training split; ``train[list(range(len(train)))]`` is one batch of all of it.
            val: the validation split, for models that choose by it.
        """
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many numbers are fitted: what is fitted in closed form lies in buffers."""
        return super().size or sum(value.numel() for value in self.net.buffers() if value.is_floating_point())

    def on_fit_start(self) -> None:
        """Fit the network; the training then has a single epoch, in which it is validated."""
        self.trainer.check_val_every_n_epoch = 1
        self.automatic_optimization = False
        announce("fitting", type(self).__name__)
        data = self.trainer.datamodule
        val = data.dataset("val", evaluate=True) if "val" in data.recording.splits else None  # a refit trains on both
        self.cpu().fit_net(data.dataset("train", evaluate=False), val)
        self.to(self.trainer.strategy.root_device)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do nothing: the network is fitted already."""

    def on_train_epoch_end(self) -> None:
        """Stop after the first epoch and its validation."""
        self.trainer.should_stop = True

    def configure_optimizers(self) -> Callable[..., Any] | None:
        """No optimizer: nothing is trained by gradients."""
        return None
