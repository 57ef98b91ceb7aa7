"""The private names of other libraries that this package cannot do without, all in one place.

An upgrade may move or change a private name without notice. ``tests/test_private_names.py`` therefore checks each of
them, and that no other module uses one. ``pyproject.toml`` pins the libraries to a minor version. Nothing heavy
is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

# Hydra's own launchers name their loggers after the module that launches. A sweep shortens what these loggers say.
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher"
LAUNCHER_LOGGERS = (
    BASIC_LAUNCHER, "hydra_plugins.hydra_joblib_launcher._core", "hydra_plugins.hydra_ray_launcher._core",
)  # fmt: skip


def count_steps_in_batch(trainer: Trainer, steps: int) -> None:
    """Tell Lightning's loop that a batch held several steps: it numbers what is logged by its count of batches.

    Args:
        trainer: in a training batch, after which it counts one step by itself.
        steps: of the optimizer.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped += steps - 1
