"""``resume=PATH|latest``: an interrupted run goes on in its own folder, under its own config."""

from __future__ import annotations

from pathlib import Path

from neuro_lightning.errors import CheckpointError, ConfigError
from neuro_lightning.overrides import from_file

LATEST_ROOT = "outputs"


def resume_arguments(arguments: list[str]) -> list[str]:
    """Turn ``resume=...`` into the overrides of the run that it names.

    The old run's overrides come first, so that what is typed now wins; the run goes on in its own folder, from its
    last checkpoint. The folder's own config stays as it is: an attempt with a mistaken override leaves no trace.

    Args:
        arguments: the command line, without the program.

    Returns:
        The command line for Hydra; the same one when nothing is resumed.

    Raises:
        CheckpointError: there is no such run, or it has no checkpoint to go on from.
        ConfigError: asked for in a sweep.
    """
    wanted = [word.split("=", 1)[1] for word in arguments if word.startswith("resume=")]
    if not wanted or wanted[-1] in ("", "null"):
        return arguments
    if {"-m", "--multirun"} & set(arguments):
        raise ConfigError("resume=... continues one run and cannot be combined with -m")
    checkpoint = _checkpoint(wanted[-1])
    folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    rest = [word for word in arguments if not word.startswith("resume=")]
    return [
        *from_file(_old_overrides(folder), rest, folder),
        *rest,
        f"hydra.run.dir='{folder}'",
        "hydra.output_subdir=null",
        f"resume='{checkpoint}'",
    ]


def _checkpoint(name: str) -> Path:
    if name == "latest":
        found = sorted(Path(LATEST_ROOT).rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise CheckpointError(f"resume=latest: no run under {LATEST_ROOT}/ has a last.ckpt to go on from")
        return found[-1].resolve()
    path = Path(name.strip("'\""))
    for candidate in (path, path / "checkpoints" / "last.ckpt", path / "last.ckpt"):
        if candidate.is_file():
            return candidate.resolve()
    raise CheckpointError(f"resume={name}: neither a checkpoint nor a run's folder with checkpoints/last.ckpt")


def _old_overrides(folder: Path) -> list[str]:
    from omegaconf import OmegaConf

    from neuro_lightning.sweeps.mutations import restore

    task, hydra = folder / ".hydra" / "overrides.yaml", folder / ".hydra" / "hydra.yaml"
    if not task.is_file():
        raise CheckpointError(
            f"{folder} is not a run's folder: it has no .hydra/overrides.yaml to take the config from"
        )
    words = [word for word in OmegaConf.load(task) if not word.startswith("resume=")]
    restore(folder, words)
    settings = OmegaConf.load(hydra).hydra.overrides.hydra if hydra.is_file() else []
    # where configs of one's own lie; the rest of Hydra's settings said how the old command was started
    return [*(word for word in settings if word.startswith("hydra.searchpath=")), *words]
