"""Prepares a sweep's command line for Hydra: ``sweep.resume=DIR``, ``ray.address=...``, keys of swept models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.settings.overrides import overrides_from_file
from neuro_lightning.settings.quoting import override, typed_value
from neuro_lightning.settings.typed_words import MULTIRUN, check_words

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMAND_FILE = "multirun.yaml"  # Hydra's name for it
LATEST_ROOT = "multirun"
RESUME = "sweep.resume="
RAY = "ray."  # as in ray.address=HOST:PORT, a short form for the launcher's settings
# beginnings of words of earlier versions, and what took their place
REPLACED = {
    "hydra/sweeper=tune": "hydra/sweeper=population, or hydra/sweeper=bayes hydra/sweeper/pruner=halving",
    "hydra/sweeper/scheduler=": "hydra/sweeper=population, or hydra/sweeper=bayes hydra/sweeper/pruner=halving",
    "hydra.sweeper.scheduler.": "hydra.sweeper.generation_epochs=... or hydra.sweeper.pruner.first=...",
    "hydra.sweeper.direction=": "mode=max or mode=min, which the monitored score has by itself",
    "hydra.sweeper.trials=": "hydra.sweeper.n_trials=...",
    "hydra.sweeper.resources.": "hydra/launcher=gpus hydra.launcher.jobs_per_gpu=...",
    "hydra.sweeper.ray.": "hydra/launcher=ray_cluster hydra.launcher.address=...",
    "hydra/sweeper=mutations": "hydra.sweeper.grids, as in conf/sweep/uwndc19_mutations.yaml",
    "hydra.sweeper.mutations": "hydra.sweeper.grids, as in conf/sweep/uwndc19_mutations.yaml",
}


def sweep_arguments(arguments: list[str]) -> list[str]:
    """The command line of a sweep as Hydra reads it; any other one is returned unchanged.

    Args:
        arguments: the command line, without the program.

    Raises:
        ConfigError: ``sweep=`` or ``sweep.resume`` without ``-m``; a word that cannot be, or of an earlier version.
        DataError: there is no sweep in the folder.
    """
    arguments = resumed(arguments)
    check_words(arguments)
    check_settings(arguments)
    chosen = [word for word in arguments if word.startswith("sweep=") and word != "sweep=null"]
    alone = any(word.startswith(("--", "resume=")) for word in arguments)  # one job, or a look at the config
    if chosen and not set(MULTIRUN) & set(arguments) and not alone:
        raise ConfigError(f"{chosen[-1]} is a sweep: add -m, as in: python train.py -m {' '.join(arguments)}")
    if set(MULTIRUN) & set(arguments) and "overwrite=true" in [word.lower() for word in arguments]:
        raise ConfigError("overwrite=true is for a single run: give a sweep a folder of its own (hydra.sweep.dir=...)")
    arguments = ["hydra.launcher." + word.removeprefix(RAY) if word.startswith(RAY) else word for word in arguments]
    return delay_keys_of_swept_groups(arguments) if set(MULTIRUN) & set(arguments) else arguments


def check_settings(arguments: list[str]) -> None:
    """Refuse settings of earlier versions, and ``-m`` beside ``--cfg``.

    Raises:
        ConfigError: naming what took its place.
    """
    if set(MULTIRUN) & set(arguments) and {"--cfg", "-c"} & set(arguments):
        raise ConfigError("--cfg shows the config of a single run: leave out -m")
    for word in arguments:
        if new := next((new for old, new in REPLACED.items() if word.startswith(old)), None):
            raise ConfigError(f"{word}: this setting was replaced; give {new}")


def resumed(arguments: list[str]) -> list[str]:
    """Replace ``sweep.resume=DIR`` (or ``latest``) by the sweep's own command, in its own folder.

    Words that are typed beside it come last and win. Each job finds out what is left to do in its folder
    (:mod:`neuro_lightning.sweeps.jobs`), and a search continues its study.

    Raises:
        ConfigError: without ``-m``, or without a value.
        DataError: no ``multirun.yaml`` in the folder.
    """
    wanted = typed_value(arguments, "sweep.resume")
    rest = [word for word in arguments if not word.startswith(RESUME)]
    if wanted is None:
        return rest
    if not wanted:
        raise ConfigError("sweep.resume= names no sweep: give a sweep's folder, or latest; null begins a new sweep")
    if not set(MULTIRUN) & set(arguments):
        raise ConfigError(f"sweep.resume={wanted} resumes a sweep: add -m; a single run is resumed by resume=")
    folder = (_latest() if wanted == "latest" else Path(wanted)).resolve()
    given = {_key(word) for word in rest}
    old = [word for word in overrides_from_file(_overrides_of_sweep(folder), rest, folder) if _key(word) not in given]
    return ["-m", *old, *(word for word in rest if word not in MULTIRUN), override("hydra.sweep.dir", folder)]


def _latest() -> Path:
    found = sorted(Path(LATEST_ROOT).glob(f"*/{COMMAND_FILE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise DataError(f"sweep.resume=latest: no sweep has begun in {LATEST_ROOT}/")
    return found[-1].parent


def _overrides_of_sweep(folder: Path) -> list[str]:
    from omegaconf import OmegaConf

    path = folder / COMMAND_FILE
    if not path.is_file():
        hint = f"; {folder.name} is a job of {folder.parent}" if (folder.parent / COMMAND_FILE).is_file() else ""
        raise DataError(f"sweep.resume={folder}: no sweep has begun there (it has no {path.name}){hint}")
    try:
        before = OmegaConf.load(path).hydra.overrides
    except Exception as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}): type the sweep's own command again, with "
            f"hydra.sweep.dir={folder} instead of sweep.resume; what is done is not done again"
        ) from None
    kept = [word for word in before.hydra if not word.startswith(("hydra.sweep.dir=", "hydra.mode="))]
    return [*kept, *before.task]


def write_command(config: DictConfig, folder: str | Path) -> None:
    """Write a sweep's own config, from which it is resumed, in one piece: on a full disk the old one stays.

    Args:
        config: the sweep's own.
        folder: the sweep's; made if it is not there.
    """
    from omegaconf import OmegaConf

    with atomic_path(Path(folder) / COMMAND_FILE) as part:
        part.write_text(OmegaConf.to_yaml(config))


def _key(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~")


def delay_keys_of_swept_groups(arguments: list[str]) -> list[str]:
    """Turn keys of a swept group into sweeps over one value, so that they are read with the job's option.

    Hydra composes a sweep's own config without what is swept: in ``-m model=plds,gpfa model.iterations=3`` it would
    look for ``iterations`` in the default model, and refuse it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    words = [word for word in arguments if not word.startswith("-")]
    try:
        parsed = dict(zip(words, OverridesParser.create().parse_overrides(words), strict=True))
    except HydraException:
        return arguments  # Hydra says what is wrong with it
    groups = {o.key_or_group for o in parsed.values() if o.is_sweep_override() and "." not in o.key_or_group}

    def waits(word: str) -> bool:
        override = parsed.get(word)
        if override is None or override.is_sweep_override() or override.is_delete():
            return False
        return "." in override.key_or_group and override.key_or_group.split(".")[0] in groups

    return [_as_choice(word) if waits(word) else word for word in arguments]


def _as_choice(word: str) -> str:
    key, value = word.split("=", 1)
    return f"{key}=choice({value})"
