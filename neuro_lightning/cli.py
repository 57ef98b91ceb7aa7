"""The two commands. Nothing heavy is imported before the config is composed."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from omegaconf import DictConfig

from neuro_lightning.errors import Interrupted, NeuroError

# Threads that wait for each other by spinning slow a recurrent network down a hundredfold as soon as anything else runs
# on the machine; sleeping costs next to nothing. It must be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_CHECKOUT = Path(__file__).resolve().parents[1] / "conf"
CONF = str(_CHECKOUT) if (_CHECKOUT / "train.yaml").is_file() else "pkg://neuro_lightning.conf"


# what Hydra's own part of the config may build: launchers, sweepers, callbacks and log handlers
HYDRA_TARGETS = ["neuro_lightning.*", "hydra.*", "hydra_plugins.*", "logging.*"]


def train() -> None:
    """``python train.py`` and ``neuro-train``."""
    from neuro_lightning.resume import resume_arguments

    try:
        sys.argv[1:] = resume_arguments(sys.argv[1:])
    except NeuroError as error:
        sys.exit(f"error: {error}")
    with execution_whitelist(HYDRA_TARGETS):
        _train_app()


def predict() -> None:
    """``python predict.py`` and ``neuro-predict``."""
    with execution_whitelist(HYDRA_TARGETS):
        _predict_app()


@hydra.main(config_path=CONF, config_name="train")
def _train_app(cfg: DictConfig) -> float:
    from neuro_lightning import run

    overrides = list(HydraConfig.get().overrides.task)
    group = Path(HydraConfig.get().sweep.dir).name if _in_sweep() else None
    return _reported(lambda: run.train(cfg, overrides, group), sweep=_in_sweep(), worst=_worst(cfg.mode))


@hydra.main(config_path=CONF, config_name="predict")
def _predict_app(cfg: DictConfig) -> None:
    from neuro_lightning import run

    _reported(lambda: run.predict(cfg), sweep=False)


def _worst(mode: str) -> float:
    """The objective of a job that failed: a search must not take it for a good one."""
    return math.inf if mode == "min" else -math.inf


def _in_sweep() -> bool:
    return str(HydraConfig.get().mode).endswith("MULTIRUN")


def _reported(job: Callable[[], Any], *, sweep: bool, worst: float = math.nan) -> Any:
    """Show an error that the user can mend as one message; a failed job does not end a sweep, it is the worst."""
    try:
        return job()
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(130)  # also out of a sweep
    except Exception as error:
        if not sweep and not isinstance(error, NeuroError):
            raise
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if not isinstance(error, NeuroError):
            logging.getLogger(__name__).exception("the job failed")
        if not sweep:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
        return worst
