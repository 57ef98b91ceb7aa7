"""The private names of other libraries that this package cannot do without, all in one place.

An upgrade may move or change a private name without notice. ``tests/test_private_names.py`` therefore checks each of
them, and that no other module uses one. ``pyproject.toml`` pins the libraries to a minor version. Nothing heavy
is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

# The base of Optuna's samplers: a config may build what derives from it, which is known by its module and name.
OPTUNA_SAMPLER = "optuna.samplers._base.BaseSampler"
# Hydra's own launchers name their loggers after their modules. A sweep shows what these loggers warn of, and no more.
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher"
LAUNCHER_LOGGERS = (
    BASIC_LAUNCHER, "hydra_plugins.hydra_joblib_launcher._core", "hydra_plugins.hydra_ray_launcher._core",
    "hydra_plugins.hydra_ray_launcher._launcher_util", "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
)  # fmt: skip


def count_steps_in_batch(trainer: Trainer, steps: int) -> None:
    """Tell Lightning's loop that a batch held several steps: it numbers what is logged by its count of batches.

    Args:
        trainer: in a training batch, after which it counts one step by itself.
        steps: of the optimizer.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped += steps - 1


def count_epochs(trainer: Trainer) -> None:
    """Let Lightning count a training by epochs also where ``max_steps`` ends it."""
    trainer.fit_loop._iteration_based_training = lambda: False


def process_launcher() -> Any:
    """Lightning's class that starts the other processes of a machine; a strategy takes no launcher but a subclass."""
    from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

    return _SubprocessScriptLauncher


def share_threads(processes: int) -> None:
    """Give each process of this machine its share of the cores, unless OMP_NUM_THREADS says otherwise."""
    from lightning_fabric.utilities.distributed import _set_num_threads_if_needed

    _set_num_threads_if_needed(num_processes=processes)


def wandb_spec(made: Any) -> dict[str, Any]:
    """What ``save()`` of a workspace or report of wandb-workspaces sends, ``spec`` among it; no network is needed."""
    return made._to_model().model_dump(by_alias=True, exclude_none=True)
