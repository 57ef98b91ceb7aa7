"""Set the optimizer's hyperparameters to those of the config after a checkpoint was restored."""

from __future__ import annotations

import pytorch_lightning as pl


class Explore(pl.Callback):
    """Keeps a run's own hyperparameters when population-based training starts it from another run's checkpoint.

    A checkpoint holds an optimizer's learning rate, weight decay and so on beside its moments. The moments stay, the
    hyperparameters are set to those of the config. A learning rate schedule would change them by its old values, so
    that a population takes none.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set them, once the checkpoint is restored."""
        fresh = pl_module.configure_optimizers()
        if fresh is None:
            return
        for group, wanted in zip(trainer.optimizers[0].param_groups, fresh.param_groups, strict=True):
            group.update({key: value for key, value in wanted.items() if key != "params"})
