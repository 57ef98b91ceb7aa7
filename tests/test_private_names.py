"""Private names of other libraries stand in one module, and are where it expects them."""

import ast
import logging
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from neuro_lightning import private_names

PACKAGE = Path(private_names.__file__).parent
OWN = "neuro_lightning"
PUBLIC = {"_asdict", "_fields", "_make", "_replace", "_target_", "_exit"}  # of named tuples, of configs, and os._exit


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def defined() -> frozenset[str]:
    """The private names that this package defines itself."""
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    own = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    names = {node.attr for node in own if ast.unparse(node.value) == "self"}
    return frozenset(names | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)})


def private_uses(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each private name that a file takes from another library; names that are ours too pass."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            parts = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] not in (OWN, "__future__"):
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "super()"):
            parts = [node.attr]
        else:
            continue
        yield from ((node.lineno, part) for part in parts if private(part) and part not in PUBLIC | defined())


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_are_used_in_one_module_only(path):
    if path.name == "private_names.py":
        return
    found = [f"line {line}: {used}" for line, used in private_uses(path)]
    assert not found, f"{path.name} uses private names of other libraries: use the public way, or move them: {found}"


@pytest.mark.parametrize("name", private_names.LAUNCHER_LOGGERS)
def test_hydras_launchers_log_under_the_name_of_their_module(name):
    pytest.importorskip(name.rpartition(".")[0])  # Ray is optional
    module = import_module(name)
    assert isinstance(getattr(module, "log", None), logging.Logger) and module.log.name == name, (
        f"{name} has no logger `log` of its name any more: sweeps cannot shorten what the launcher says"
    )


def test_lightning_has_what_a_job_of_several_processes_needs():
    launcher = private_names.process_launcher()
    assert callable(getattr(launcher, "_check_can_spawn_children", None)) and callable(private_names.share_threads), (
        "Lightning's launcher of processes has changed: mend JobLauncher in runs/distributed.py"
    )


def test_lightnings_ddp_asks_for_the_launcher_that_ours_replaces():
    from pytorch_lightning.strategies import DDPStrategy

    assert callable(getattr(DDPStrategy, "_configure_launcher", None)), (
        "DDPStrategy chooses its launcher elsewhere: mend JobDDPStrategy in runs/distributed.py"
    )


def test_optunas_samplers_derive_from_the_class_that_the_registry_names():
    from optuna.samplers import BaseSampler

    assert f"{BaseSampler.__module__}.{BaseSampler.__qualname__}" == private_names.OPTUNA_SAMPLER


def test_lightning_asks_whether_a_training_is_counted_by_steps():
    from pytorch_lightning.loops.fit_loop import _FitLoop

    assert callable(getattr(_FitLoop, "_iteration_based_training", None)), (
        "Lightning decides elsewhere how a resumed training with max_steps is counted: mend "
        "private_names.count_epochs, and see that tests/test_resume.py holds"
    )


def test_lightning_counts_batches_where_steps_are_added():
    from pytorch_lightning import Trainer

    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    assert isinstance(getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None), int), (
        "Lightning's epoch loop has no _batches_that_stepped any more: see by what number validations are logged now, "
        "and mend private_names.count_steps_in_batch"
    )


CHECKPOINT_METHODS = (
    "_monitor_candidates", "_save_last_checkpoint", "_should_remove_checkpoint", "_should_save_on_train_epoch_end",
    "_should_skip_saving_checkpoint",
)  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINT_METHODS)
def test_lightnings_checkpoint_has_the_methods_that_ours_calls_or_replaces(name):
    from pytorch_lightning.callbacks import ModelCheckpoint

    assert callable(getattr(ModelCheckpoint, name, None)), (
        f"ModelCheckpoint.{name} is gone or renamed: see when it saves now, and mend callbacks/checkpoint.py"
    )
    assert {"_last_global_step_saved", "_save_on_train_epoch_end"} <= set(vars(ModelCheckpoint())), (
        "ModelCheckpoint keeps its last saved step elsewhere: mend callbacks/checkpoint.py"
    )


def test_torchmetrics_moves_states_where_ours_keeps_their_precision():
    from torchmetrics import Metric

    assert callable(getattr(Metric, "_apply", None)), "Metric._apply is gone: mend metrics.base.SumMetric"
