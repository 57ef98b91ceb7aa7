"""``resume=PATH|latest``: resumes an interrupted run in its own folder, with its own config."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.checkpoint_files import LAST, MEMBERS, PREVIOUS, resumable, run_folder
from neuro_lightning.artifacts.old_names import update_override
from neuro_lightning.artifacts.records import FILE_NAME, read_record
from neuro_lightning.errors import CheckpointError, ConfigError, DataError
from neuro_lightning.settings.overrides import overrides_from_file
from neuro_lightning.settings.quoting import override, typed_value, unquoted

LATEST_ROOT = "outputs"


def resume_requeued_job(arguments: list[str]) -> list[str]:
    """The command line with which a job that SLURM has requeued resumes its own run.

    Args:
        arguments: the command line of a batch script, the same at every attempt.

    Returns:
        The command line with ``resume=FOLDER`` where an earlier attempt of this job left a checkpoint; with
        ``overwrite=true`` where it left none; else unchanged.
    """
    folder, job = typed_value(arguments, "hydra.run.dir"), os.environ.get("SLURM_JOB_ID")
    restarted = job is not None and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
    if not restarted or folder is None or typed_value(arguments, "resume") is not None:
        return arguments
    if not (Path(folder) / FILE_NAME).is_file():
        return arguments
    record = read_record(folder)
    if record.get("slurm_job") != job or record.get("status") not in ("running", "interrupted"):
        return arguments
    begun = resumable(folder) is not None
    return [*arguments, override("resume", folder) if begun else "overwrite=true"]


def resume_arguments(arguments: list[str]) -> list[str]:
    """Turn ``resume=...`` into the overrides of the run that it names.

    The old run's overrides come first, so that what is typed now wins; the run resumes in its own folder, from its
    last checkpoint. The folder's own config stays as it is: an attempt with a mistaken override leaves no trace.

    Args:
        arguments: the command line, without the program.

    Returns:
        The command line for Hydra; the same one when nothing is resumed.

    Raises:
        CheckpointError: there is no such run, or it has no checkpoint to go on from.
        ConfigError: asked for in a sweep, or without a value.
    """
    wanted = typed_value(arguments, "resume")
    if wanted is None:
        return arguments
    if not wanted:
        raise ConfigError("resume= names no run: give a run's folder, a checkpoint, or latest; null starts a new run")
    if {"-m", "--multirun"} & set(arguments):
        raise ConfigError("resume=... resumes one run and cannot be combined with -m")
    checkpoint = _checkpoint(wanted)
    folder = run_folder(checkpoint)
    rest = [word for word in arguments if not word.startswith("resume=")]
    return [
        *overrides_from_file(_old_overrides(folder), rest, folder),
        *rest,
        override("hydra.run.dir", folder),
        "hydra.output_subdir=null",
        override("resume", checkpoint),
    ]


def _checkpoint(name: str) -> Path:
    if name == "latest":
        return _newest_run_checkpoint()
    if (found := resumable(name)) is not None:
        return _real_path(found)
    if (Path(name) / FILE_NAME).is_file():
        raise CheckpointError(
            f"resume={name}: this run ended before its first checkpoint: start it again, with its own command and "
            "overwrite=true"
        )
    raise CheckpointError(f"resume={name}: no checkpoint, and no run's folder with checkpoints/{LAST}")


def _newest_run_checkpoint() -> Path:
    """The last checkpoint of the run that wrote last; never that of another run.

    Raises:
        CheckpointError: there is none.
    """
    changed: dict[Path, float] = {}
    for path in Path(LATEST_ROOT).rglob("*"):
        if path.name in (FILE_NAME, LAST, PREVIOUS) and path.is_file():
            folder = run_folder(path)
            folder = folder.parent.parent if folder.parent.name == MEMBERS else folder
            changed[folder] = max(changed.get(folder, 0.0), path.stat().st_mtime)
    if not changed:
        raise CheckpointError(f"resume=latest: there is no run under {LATEST_ROOT}/")
    newest = max(changed, key=changed.__getitem__)
    if (found := resumable(newest)) is None:
        raise CheckpointError(
            f"resume=latest: the newest run, {newest}, ended before its first checkpoint: start it again, or give the "
            "run that you mean, as resume=FOLDER"
        )
    return _real_path(found)


def _real_path(checkpoint: Path) -> Path:
    """A run's checkpoint by the real path of the run's folder, in which ``checkpoints`` may be a link to elsewhere."""
    found = checkpoint.resolve() if checkpoint.is_symlink() else checkpoint
    folder = run_folder(found)
    return folder.resolve() / found.relative_to(folder)


def _model_class(folder: Path) -> str:
    """The class of a run's model, from its record; empty if the record does not name it."""
    try:
        return read_record(folder)["config"]["model"]["_target_"]
    except (DataError, KeyError, TypeError):
        return ""


def _old_overrides(folder: Path) -> list[str]:
    task, hydra = folder / ".hydra" / "overrides.yaml", folder / ".hydra" / "hydra.yaml"
    if not task.is_file():
        raise CheckpointError(
            f"{folder} is not a run's folder: it has no .hydra/overrides.yaml to take the config from"
        )
    model = _model_class(folder)
    typed = _read_yaml(task, lambda content: [word for word in _as_list(content) if not word.startswith("resume=")])
    words = [update_override(word, model) for word in typed]
    _restore_mutation(folder, words)
    settings = _read_yaml(hydra, lambda content: list(content.hydra.overrides.hydra)) if hydra.is_file() else []
    # where configs of one's own lie; the rest of Hydra's settings said how the old command was started
    return [*(word for word in settings if word.startswith("hydra.searchpath=")), *words]


def _read_yaml(path: Path, part: Callable[[Any], Any]) -> Any:
    """A part of a file that Hydra has written.

    Raises:
        CheckpointError: it is damaged. A power cut may leave an empty file: without its overrides the run would go on
            as another one.
    """
    from omegaconf import OmegaConf

    try:
        if not path.read_bytes().endswith((b"\n", b"]")):
            raise ValueError("its end is missing")
        return part(OmegaConf.load(path))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{path} is damaged ({reason}): restore it from a copy, or train again with overwrite=true"
        ) from None


def _as_list(content: Any) -> list[str]:
    from omegaconf import ListConfig

    if not isinstance(content, ListConfig):
        raise ValueError("it holds no list")
    return list(content)


def _restore_mutation(folder: Path, words: list[str]) -> None:
    """Make the layers of a run begun with ``+mutation=NAME``, by an earlier version, an option of that group again."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for name in [unquoted(word.partition("=")[2]) for word in words if word.startswith("+mutation=")]:
        model = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml").model)
        layers = {key: model[key] for key in ("conv", "dense", "logits")}
        ConfigStore.instance().store(name=name, node={"model": layers}, group="mutation", package="_global_")
