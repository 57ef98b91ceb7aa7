"""Set the optimizer's hyperparameters to those of the config after a checkpoint was restored."""

from __future__ import annotations

import pytorch_lightning as pl


class Explore(pl.Callback):
    """Population-based training gives a run another one's checkpoint, and hyperparameters of its own.

    A checkpoint holds an optimizer's learning rate, weight decay and so on beside its moments. The moments stay, the
    hyperparameters are put back to what the config says. A schedule would steer them too, by the old values.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put them back, once the checkpoint is restored."""
        fresh = pl_module.configure_optimizers()
        if fresh is None:
            return
        for group, wanted in zip(trainer.optimizers[0].param_groups, fresh.param_groups, strict=True):
            group.update({key: value for key, value in wanted.items() if key != "params"})
