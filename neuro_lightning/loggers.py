"""Where a run's numbers go: ``metrics.csv`` beside the checkpoints, Weights & Biases, TensorBoard.

``metrics.csv`` is the source of truth, the others are views of it.
"""

from __future__ import annotations

import csv
import importlib.util
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from neuro_lightning.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS_FILE = "metrics.csv"
STEP = "trainer/global_step"
KINDS = {"csv": (), "wandb": ("project", "entity", "mode"), "tensorboard": ()}
LOWER_IS_BETTER = ("loss", "tp_corr")
MODES = ("auto", "online", "offline", "disabled")


def build_loggers(
    options: Mapping[str, Mapping[str, Any] | None],
    *,
    output_dir: str | Path,
    config: Mapping[str, Any],
    name: str,
    run_id: str,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
    swept: Mapping[str, Any] | None = None,
    resumed_step: int | None = None,
) -> list[Logger]:
    """The loggers of one run. Close them with :func:`close_loggers`, whatever happens.

    Args:
        options: of each logger that is wanted (``csv``, ``wandb``, ``tensorboard``), as in ``conf/logger``.
        output_dir: the run's folder.
        config: the resolved config as plain dictionaries, shown by W&B.
        name: the run's name in W&B.
        run_id: the run's id in W&B; the same for a run that is resumed.
        group: W&B's group, one for each sweep.
        tags: W&B's tags.
        job_type: W&B's job type.
        swept: what this job of a sweep changes, by override; W&B gets it flat as ``sweep/<key>``.
        resumed_step: the global step of the checkpoint that the run goes on from, None for a new run.

    Raises:
        ConfigError: an unknown logger or option, or a logger whose package is not installed.
    """
    _check(options)
    folder = Path(output_dir)
    loggers: list[Logger] = []
    if "csv" in options:
        loggers.append(MetricsCSV(folder, resumed_step=resumed_step))
    if "wandb" in options:
        settings = {"name": name, "group": group, "tags": list(tags), "job_type": job_type, "id": run_id}
        settings["config"] = {**config, **{f"sweep/{key}": value for key, value in (swept or {}).items()}}
        loggers += wandb_logger(folder, dict(options["wandb"] or {}), settings, resumed=resumed_step is not None)
    if "tensorboard" in options:
        loggers.append(_tensorboard(folder, resumed_step))
    return loggers


def close_loggers(loggers: Sequence[Logger], *, exit_code: int = 0) -> None:
    """End every logger; without it the next job of the process would write into the same W&B run.

    Args:
        loggers: from :func:`build_loggers`.
        exit_code: not 0 marks the W&B run as failed.
    """
    for logger in loggers:
        logger.finalize("success" if exit_code == 0 else "failed")
        if _is_wandb(logger):
            logger.experiment.finish(exit_code=exit_code)


@rank_zero_only
def log_summary(loggers: Sequence[Logger], values: Mapping[str, Any]) -> None:
    """Put a run's final numbers into W&B's table of runs, as they are in ``run.json``; None is left out."""
    for logger in loggers:
        if _is_wandb(logger):
            logger.experiment.summary.update({k: v for k, v in values.items() if v is not None})


@rank_zero_only
def log_figure(loggers: Sequence[Logger], name: str, figure: str | Path | Figure, step: int) -> None:
    """Show a figure in W&B and TensorBoard.

    Args:
        loggers: from :func:`build_loggers`.
        name: such as ``figures/rates``.
        figure: an image file or a matplotlib figure.
        step: the global step that it shows.
    """
    from pytorch_lightning.loggers import TensorBoardLogger

    pixels = None
    for logger in loggers:
        if not _is_wandb(logger) and not isinstance(logger, TensorBoardLogger):
            continue
        pixels = _pixels(figure) if pixels is None else pixels
        if _is_wandb(logger):
            import wandb

            logger.experiment.log({name: wandb.Image(pixels), STEP: step})
        else:
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")


def _pixels(figure: str | Path | Figure) -> np.ndarray:
    """(H, W, 3) uint8."""
    if isinstance(figure, str | Path):
        from matplotlib.image import imread

        pixels = imread(figure)
        pixels = (pixels * 255).round().astype(np.uint8) if pixels.dtype != np.uint8 else pixels
    else:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
    return np.ascontiguousarray(pixels[..., :3])


def _check(options: Mapping[str, Mapping[str, Any] | None]) -> None:
    for kind, values in options.items():
        if kind not in KINDS:
            raise ConfigError(f"logger.{kind}: no such logger; there are {', '.join(KINDS)}")
        if unknown := set(values or {}) - set(KINDS[kind]):
            takes = ", ".join(KINDS[kind]) or "no options"
            raise ConfigError(f"logger.{kind}.{min(unknown)}: no such option; it takes {takes}")


# ---- metrics.csv


class MetricsCSV(Logger):
    """One row for each step at which something is logged, in ``metrics.csv``; always up to date on disk.

    Columns stay where they are: new ones are added at the right. A resumed run goes on in the same file,
    without the rows that its checkpoint does not know.

    Args:
        folder: the run's folder.
        resumed_step: the global step of the checkpoint that the run goes on from; None starts a new file.
    """

    def __init__(self, folder: str | Path, *, resumed_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(folder) / METRICS_FILE
        self._columns = ["step", "epoch"]
        self._row: dict[str, str] = {}  # the last row of the file
        self._start = 0  # and where it starts, in bytes
        if rank_zero_only.rank == 0:
            self._open(resumed_step)

    @property
    def name(self) -> str:
        """No name: the file lies in the run's folder."""
        return ""

    @property
    def version(self) -> str:
        """No version: one run, one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config is in ``run.json``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add the metrics to the row of ``step``."""
        step = int(self._row.get("step", 0)) if step is None else step
        values = {key: _text(value) for key, value in metrics.items()}
        if new := [key for key in values if key not in self._columns]:
            self._columns += new
            self._rewrite(list(_rows(self.path)))
        if self._row.get("step") != str(step):
            self._row, self._start = {"step": str(step)}, self.path.stat().st_size
        self._row |= values
        with open(self.path, "r+", newline="") as file:
            file.seek(self._start)
            file.truncate()
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._row)

    def _open(self, resumed_step: int | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[dict[str, str]] = []
        if resumed_step is not None and self.path.is_file():
            kept = [row for row in _rows(self.path) if int(row["step"]) < resumed_step]
            with open(self.path, newline="") as file:
                self._columns = next(csv.reader(file), self._columns)
        self._rewrite(kept)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        part = self.path.with_suffix(".part")
        with open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[:-1])
            file.flush()
            self._start, self._row = file.tell(), rows[-1] if rows else {}
            writer.writerows(rows[-1:])
        os.replace(part, self.path)


def read_metrics(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a ``metrics.csv``, NaN where nothing was logged at a step."""
    rows = list(_rows(Path(path)))
    columns = list(rows[0]) if rows else []
    return {column: np.array([float(row[column] or "nan") for row in rows]) for column in columns}


def _rows(path: Path) -> list[dict[str, str]]:
    """The whole rows; the last one may be torn where the process was killed."""
    with open(path, newline="") as file:
        reader = csv.reader(file)
        columns = next(reader, [])
        return [dict(zip(columns, row, strict=True)) for row in reader if len(row) == len(columns) and row[0].isdigit()]


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return repr(value) if isinstance(value, float) else str(value)


# ---- Weights & Biases


def wandb_logger(folder: Path, options: dict[str, Any], settings: dict[str, Any], *, resumed: bool) -> list[Logger]:
    """A W&B run in ``folder/wandb``, and one printed line that says where it goes.

    Args:
        folder: the run's folder.
        options: ``project``, ``entity`` and ``mode`` (auto, online, offline or disabled).
        settings: further arguments of ``wandb.init``.
        resumed: whether the run goes on from a checkpoint.
    """
    from pytorch_lightning.loggers import WandbLogger

    if rank_zero_only.rank != 0:
        return [WandbLogger(id=settings["id"], dir=folder)]  # opens nothing, logs nothing
    mode, reason = _mode(options.pop("mode", None) or "auto")
    if mode == "disabled":
        print(f"W&B: off ({reason})")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    run, mode, reason = _start(mode, reason, {**settings, **options, "dir": str(folder)})
    _define_metrics(run)
    if mode == "offline":
        if resumed:
            _replay(run, folder / METRICS_FILE)
        print(f"W&B: offline ({reason}); upload with: wandb sync {Path(run.dir).parent}")
    else:
        print(f"W&B: online at {run.url}")
    return [WandbLogger(experiment=run, save_dir=folder, project=options.get("project"))]


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


def _start(mode: str, reason: str, settings: dict[str, Any]) -> tuple[Any, str, str]:
    import wandb

    # The terminal belongs to the progress bar: W&B neither prints nor captures. A run that an earlier job
    # of the process left open is ended, or both would become one.
    quiet = wandb.Settings(silent=True, console="off", init_timeout=30)
    settings = {**settings, "settings": quiet, "reinit": "finish_previous"}
    if mode == "online":
        try:
            return wandb.init(mode="online", resume="allow", **settings), mode, reason
        except wandb.errors.Error as error:
            reason = f"no connection: {str(error).splitlines()[0]}"
    return wandb.init(mode="offline", **settings), "offline", reason


def _define_metrics(run: Any) -> None:
    """The x-axis of every panel, and the best value of each validation metric as its summary."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    run.define_metric("val/*", step_metric=STEP, summary="max")
    for name in LOWER_IS_BETTER:
        run.define_metric(f"val/{name}", step_metric=STEP, summary="min")


def _replay(run: Any, path: Path) -> None:
    """Write the steps before the checkpoint again: uploading a resumed offline run replaces the first part."""
    if path.is_file():
        for row in _rows(path):
            values = {key: float(value) for key, value in row.items() if value and key != "step"}
            run.log({**values, STEP: int(row["step"])})


def _is_wandb(logger: Logger) -> bool:
    from pytorch_lightning.loggers import WandbLogger

    return isinstance(logger, WandbLogger)


# ---- TensorBoard


def _tensorboard(folder: Path, resumed_step: int | None) -> Logger:
    from pytorch_lightning.loggers import TensorBoardLogger

    if not importlib.util.find_spec("tensorboard"):
        raise ConfigError("logger=tensorboard needs a package: pip install 'neuro_lightning[tensorboard]'")
    return TensorBoardLogger(folder, name="", version="tensorboard", purge_step=resumed_step)
