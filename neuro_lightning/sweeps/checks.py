"""Checks the jobs of a sweep before the first one starts: a key that nothing reads is refused at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neuro_lightning.artifacts.lines import error_line
from neuro_lightning.artifacts.sweep_jobs import job_settings
from neuro_lightning.errors import ConfigError, NeuroError
from neuro_lightning.settings.config import check_config
from neuro_lightning.settings.options import hydra_message
from neuro_lightning.settings.overrides import check_keys, check_trusted
from neuro_lightning.settings.settings import TrainSettings

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig


def check_jobs(loader: ConfigLoader, config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Refuse a sweep with a key that nothing reads.

    Which keys there are depends on the chosen options (models, datasets), hardly on values: of all jobs with the same
    choices and the same keys one is composed and checked, so that a long sweep is checked as fast as a short one.

    Args:
        loader: Hydra's, ``hydra_context.config_loader``.
        config: the sweep's own config.
        jobs: the overrides of each job.

    Raises:
        ConfigError: naming the job and the key.
    """
    from omegaconf import OmegaConf

    check_keys(OmegaConf.select(config, "hydra.sweeper.params"), "hydra.sweeper.params")
    for grid in OmegaConf.select(config, "hydra.sweeper.grids") or ():
        check_keys(grid, "hydra.sweeper.grids")
    alike: dict[tuple[frozenset, frozenset], Sequence[str]] = {}
    groups: dict[str, bool] = {}
    for job in jobs:
        pairs = [word.partition("=") for word in job]
        chosen = frozenset((key, value) for key, _, value in pairs if _is_group(key, loader, groups))
        alike.setdefault((chosen, frozenset(key for key, _, _ in pairs)), job)
    for job in alike.values():
        check_job(loader, config, job)


def check_job(loader: ConfigLoader, config: DictConfig, job: Sequence[str]) -> None:
    """Compose a job's config and check that every key is read.

    Raises:
        ConfigError: naming the job and the key.
    """
    from hydra.errors import HydraException
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    try:
        composed = loader.load_sweep_config(config, list(job))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{hydra_message(error)}\n  in the job {_job_name(job)}") from None
    with open_dict(composed):
        composed.pop("hydra", None)
    try:
        check_trusted(composed.get("trusted"), job)
        check_config(composed, known=TrainSettings.config_keys())
    except ConfigError as error:
        raise ConfigError(f"{error}\n  in the job {_job_name(job)}") from None


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the command with one line for an error of the user; Hydra would show a traceback."""
    try:
        yield
    except NeuroError as error:
        sys.exit(error_line(error))


def _is_group(key: str, loader: ConfigLoader, known: dict[str, bool]) -> bool:
    name = key.lstrip("+~").split("@")[0]
    if name not in known:
        known[name] = "." not in name and bool(loader.get_group_options(name))
    return known[name]


def _job_name(job: Sequence[str]) -> str:
    return " ".join(job_settings(job))
