"""A run in Weights & Biases: online where there is a key, else in files that ``wandb sync`` uploads."""

from __future__ import annotations

import netrc
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, WandbLogger

from neuro_lightning.artifacts.lines import labelled
from neuro_lightning.artifacts.metrics_csv import METRICS_FILE, read_rows
from neuro_lightning.errors import ConfigError
from neuro_lightning.metrics.catalog import info
from neuro_lightning.ranks import is_main_process, main_process_only

STEP = "trainer/global_step"
MODES = ("auto", "online", "offline", "disabled")
CHECKPOINTS = ("online", True, False)


def wandb_logger(folder: Path, options: dict[str, Any], settings: dict[str, Any], *, resumed: bool) -> list[Logger]:
    """A W&B run in ``folder/wandb``, and a printed word that says where it goes.

    Args:
        folder: the run's folder.
        options: ``project``, ``entity``, ``mode`` (auto, online, offline or disabled) and ``checkpoint`` (online, true
            or false: whether the best one becomes an artifact).
        settings: further arguments of ``wandb.init``.
        resumed: whether the run resumes from a checkpoint.
    """
    if not is_main_process():
        return [WandbLogger(id=settings["id"], dir=folder)]  # opens nothing, logs nothing
    keeps = options.pop("checkpoint", False)
    if keeps not in CHECKPOINTS:
        raise ConfigError(f"logger.wandb.checkpoint={keeps}: give online, true or false")
    mode, reason = _mode(options.pop("mode", None) or "auto")
    if mode == "disabled":
        print(labelled("W&B", f"off ({reason})"))
        return []
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**settings, **options, "dir": str(folder)}
    run, mode, reason = _start(mode, reason, settings, resumed=resumed)
    logger = WandbRun(experiment=run, save_dir=folder, project=options.get("project"))
    logger.keeps_checkpoint = keeps is True or (keeps == "online" and mode == "online")
    if mode == "offline":
        if resumed:
            _replay(logger, folder / METRICS_FILE)
        print(labelled("W&B", f"offline ({reason}); upload with\nwandb sync {Path(run.dir).parent}"))
    else:
        print(labelled("W&B", f"online at {run.url}"))
    return [logger]


class WandbRun(WandbLogger):
    """A run whose summary has the best value of each validation metric, where W&B's is the last one."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.keeps_checkpoint = False
        self._defined: set[str] = set()
        self.experiment.define_metric(STEP)
        self.experiment.define_metric("*", step_metric=STEP)

    @main_process_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log, at the global step."""
        for name in metrics.keys() - self._defined:
            self._defined.add(name)
            if name.startswith("val/"):  # one by one: W&B takes no summary for `val/*`
                summary = "min" if info(name.removeprefix("val/")).lower_is_better else "max"
                self.experiment.define_metric(name, step_metric=STEP, summary=summary)
        super().log_metrics(metrics, step)


def _mode(wanted: str) -> tuple[str, str]:
    """``online``, ``offline`` or ``disabled``, and why."""
    import wandb

    if wanted not in MODES:
        raise ConfigError(f"logger.wandb.mode={wanted}: no such mode; there are {', '.join(MODES)}")
    settings = wandb.setup().settings
    for mode, source in (
        (os.environ.get("WANDB_MODE"), f"WANDB_MODE={os.environ.get('WANDB_MODE')}"),
        (wanted, f"logger.wandb.mode={wanted}"),
        (settings.mode, "W&B's settings"),
    ):
        mode = {"dryrun": "offline", "run": "online"}.get(mode or "", mode)
        if mode in ("offline", "disabled"):
            return mode, source
        if mode == "online":
            break
    return ("online", "") if _has_key(settings) else ("offline", "no API key; wandb login stores one")


def _has_key(settings: Any) -> bool:
    if os.environ.get("WANDB_API_KEY") or getattr(settings, "api_key", None):
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return urlsplit(settings.base_url).hostname in hosts


def _start(mode: str, reason: str, settings: dict[str, Any], *, resumed: bool) -> tuple[Any, str, str]:
    import wandb

    # The terminal belongs to the progress bar: W&B neither prints nor captures. A run that an earlier job
    # of the process left open is ended, or both would become one. Runs that train in turns, each on a thread of its
    # own, are open at the same time.
    quiet = wandb.Settings(silent=True, console="off", init_timeout=30)
    alone = threading.current_thread() is threading.main_thread()
    settings = {**settings, "settings": quiet, "reinit": "finish_previous" if alone else "create_new"}
    if mode == "online":
        try:
            # a run that starts again in its folder replaces the one before it
            return wandb.init(mode="online", resume="allow" if resumed else None, **settings), mode, reason
        except wandb.errors.Error as error:
            reason = f"no connection: {str(error).splitlines()[0]}"
    return wandb.init(mode="offline", **settings), "offline", reason


def _replay(logger: Logger, path: Path) -> None:
    """Write the steps before the checkpoint again: uploading a resumed offline run replaces the first part."""
    if path.is_file():
        for row in read_rows(path):
            values = {key: float(value) for key, value in row.items() if value and key != "step"}
            logger.log_metrics(values, step=int(row["step"]))
