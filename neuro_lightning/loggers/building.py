"""Where a run's numbers go: ``metrics.csv`` beside the checkpoints, Weights & Biases, TensorBoard, Lightning's others.

``metrics.csv`` is the source of truth, the others are views of it.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from neuro_lightning.artifacts.checkpoint_files import run_folder
from neuro_lightning.artifacts.output import OUTPUT_FILE
from neuro_lightning.artifacts.records import FILE_NAME, plain, read_record, stable_id
from neuro_lightning.errors import ConfigError
from neuro_lightning.loggers.guard import errors_as_warnings, warn_on_errors
from neuro_lightning.loggers.metrics_csv import MetricsCSV
from neuro_lightning.loggers.wandb_run import STEP, wandb_logger
from neuro_lightning.ranks import main_process_only
from neuro_lightning.settings.config import instantiate

KINDS = {"csv": (), "wandb": ("project", "entity", "mode", "checkpoint"), "tensorboard": ()}
PACKAGES = {"MLFlowLogger": "mlflow", "CometLogger": "comet-ml", "LitLogger": "litlogger"}  # as pip knows them


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
    sizes: Mapping[str, Any] | None = None,
    resumed_step: int | None = None,
) -> list[Logger]:
    """The loggers of one run. Close them with :func:`close_loggers`, whatever happens.

    Args:
        options: of each logger that is wanted (``csv``, ``wandb``, ``tensorboard``, or any name with the ``_target_``
            of a logger of Lightning's or of a trusted package), as in ``conf/logger``.
        output_dir: the run's folder.
        config: the resolved config as plain dictionaries, shown as the run's hyperparameters.
        name: the run's name in W&B.
        run_id: the run's id in W&B; the same for a run that is resumed.
        group: W&B's group, one for each sweep.
        tags: W&B's tags.
        job_type: W&B's job type.
        swept: what this job of a sweep changes, by override; it is shown flat as ``sweep/<key>``.
        sizes: of the model and the data, shown flat as ``size/<name>``.
        resumed_step: the global step of the checkpoint from which the run resumes, None for a new run.

    Raises:
        ConfigError: an unknown logger or option, or a logger whose package is not installed.
    """
    _check_options(options)
    folder = Path(output_dir)
    flat = {f"sweep/{key}": value for key, value in (swept or {}).items()}
    config = {**config, **flat, **{f"size/{key}": value for key, value in (sizes or {}).items()}}
    loggers: list[Logger] = []
    if "csv" in options:
        loggers.append(MetricsCSV(folder, resumed_step=resumed_step))
    if "wandb" in options:
        settings = {"name": name, "group": group, "tags": list(tags), "job_type": job_type, "id": run_id}
        settings["config"] = config
        loggers += wandb_logger(folder, dict(options["wandb"] or {}), settings, resumed=resumed_step is not None)
    if "tensorboard" in options:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", purge_step=resumed_step))
        loggers[-1].config = config  # TensorBoard shows hyperparameters beside final values only
    for kind, values in options.items():
        if "_target_" in (values or {}):
            loggers.append(_lightning_logger(kind, values, config, name))
    return [logger if isinstance(logger, MetricsCSV) else warn_on_errors(logger) for logger in loggers]


def close_loggers(loggers: Sequence[Logger], *, exit_code: int = 0) -> None:
    """End every logger; without it the next job of the process would write into the same W&B run.

    Args:
        loggers: from :func:`build_loggers`.
        exit_code: not 0 marks the W&B run as failed.
    """
    for logger in loggers:
        logger.finalize("success" if exit_code == 0 else "failed")
        if isinstance(logger, WandbLogger):
            with errors_as_warnings(logger):
                _keep_output(logger.experiment, Path(logger.save_dir or "") / OUTPUT_FILE)
                logger.experiment.finish(exit_code=exit_code)


def _keep_output(run: Any, path: Path) -> None:
    """Keep what was printed where W&B shows a run's console; in the run's own folder, as W&B warns of links."""
    if path.is_file():
        kept = shutil.copy(path, Path(run.dir) / OUTPUT_FILE)
        run.save(str(kept), base_path=run.dir, policy="now")


@contextmanager
def closed_in_the_end(loggers: list[Logger]) -> Iterator[list[Logger]]:
    """The loggers, closed whatever happens; an error marks the W&B run as failed."""
    try:
        yield loggers
    except BaseException:
        close_loggers(loggers, exit_code=1)
        raise
    close_loggers(loggers)


@main_process_only
def log_summary(loggers: Sequence[Logger], values: Mapping[str, Any]) -> None:
    """Put a run's final values into a logger's table of runs, as they are in ``run.json``.

    Those of the validation are of the saved checkpoint and called ``best/val/...``: ``val/...`` is the best of the
    history. What is None or not finite is left out.
    """
    known = {key: value for key, value in values.items() if value is not None}
    known = {key: value for key, value in known.items() if not isinstance(value, float) or math.isfinite(value)}
    known = {f"best/{key}" if key.startswith("val/") else key: value for key, value in known.items()}
    numbers = {key: float(value) for key, value in known.items() if isinstance(value, int | float)}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            with errors_as_warnings(logger):
                logger.experiment.summary.update(known)
        elif isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(getattr(logger, "config", {})), numbers)
        elif not isinstance(logger, MetricsCSV):
            logger.log_metrics(numbers)


@main_process_only
def log_references(loggers: Sequence[Logger], values: Mapping[str, float], last_step: int) -> None:
    """Draw scores that do not change, those of baselines say, as lines beside the curves: values at both ends.

    Args:
        loggers: from :func:`build_loggers`; ``metrics.csv`` has the run's own numbers only.
        values: by name, such as ``oracle/val/co_bps``.
        last_step: the global step at the training's end.
    """
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    for logger in loggers if known else ():
        if not isinstance(logger, MetricsCSV):
            for step in (0, last_step):
                logger.log_metrics(known, step=step)


@main_process_only
def log_table(
    loggers: Sequence[Logger], name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int = 0
) -> None:
    """Keep a table in W&B, where it can be sorted and joined over runs.

    Args:
        loggers: from :func:`build_loggers`.
        name: such as ``neurons/val``.
        columns: their names.
        rows: cells; those of a column are all text, or all numbers or None.
        step: the global step that it shows.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            with errors_as_warnings(logger):
                table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
                logger.experiment.log({name: table, STEP: step})


@main_process_only
def log_artifact(
    loggers: Sequence[Logger],
    path: str | Path,
    *,
    name: str,
    kind: str,
    aliases: Sequence[str] = ("latest",),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Keep a file in W&B, with the run that made it; an offline run uploads it when it is synchronized.

    Args:
        loggers: from :func:`build_loggers`.
        path: the file.
        name: of the artifact; the same name again is its next version.
        kind: W&B's type of artifact, ``model`` or ``predictions``.
        aliases: of this version.
        metadata: shown beside it.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            artifact = wandb.Artifact(name, type=kind, metadata=plain(metadata or {}))
            artifact.add_file(str(path))
            with errors_as_warnings(logger):
                logger.experiment.log_artifact(artifact, aliases=list(aliases))


@main_process_only
def log_checkpoint(loggers: Sequence[Logger], path: str | Path | None, metadata: Mapping[str, Any]) -> None:
    """Keep a run's best checkpoint in W&B, where ``logger.wandb.checkpoint`` says so.

    Args:
        loggers: from :func:`build_loggers`.
        path: the checkpoint; None where the run kept none.
        metadata: such as its score.
    """
    wanted = [logger for logger in loggers if getattr(logger, "keeps_checkpoint", False)]
    for logger in wanted if path is not None else ():
        name = f"checkpoint-{logger.experiment.id}"
        log_artifact([logger], path, name=name, kind="model", aliases=("best", "latest"), metadata=metadata)


def log_predictions(path: str | Path, checkpoints: Sequence[str | Path], metadata: Mapping[str, Any]) -> None:
    """Keep a file of predictions in W&B: a run of job type ``predict`` in the group of the models' sweep.

    It is a run of its own: an offline run that resumes the training's id would replace it when synchronized.

    Args:
        path: the file; the run's folder ``wandb`` is written beside it.
        checkpoints: of the models that predicted; the first one's run says which project, entity and mode, unless it
            did not log to W&B.
        metadata: such as its scores.
    """
    folders = [run_folder(Path(checkpoint).resolve()) for checkpoint in checkpoints]
    folders = [folder for folder in folders if (folder / FILE_NAME).is_file()]
    first = read_record(folders[0]) if folders else {}
    config = first.get("config") or {}
    options = (config.get("logger") or {}).get("wandb") or {"project": "neuro_lightning"}
    path = Path(path)
    names = [read_record(folder)["run_id"] for folder in folders]
    group = folders[0].parent.name if folders and (folders[0].parent / "multirun.yaml").is_file() else None
    loggers = build_loggers(
        {"wandb": options},
        output_dir=path.resolve().parent,
        config={"runs": names, "checkpoints": [str(checkpoint) for checkpoint in checkpoints]},
        name=path.name,
        run_id=stable_id(path),
        group=group,
        tags=[str((first.get("data") or {}).get("name"))] if first.get("data") else [],
        job_type="predict",
    )
    with closed_in_the_end(loggers):
        log_summary(loggers, metadata)
        log_artifact(loggers, path, name=f"predictions-{path.stem}", kind="predictions", metadata=metadata)


@main_process_only
def log_figure(loggers: Sequence[Logger], name: str, path: str | Path, step: int) -> None:
    """Show a figure in W&B, TensorBoard and MLflow.

    Args:
        loggers: from :func:`build_loggers`.
        name: such as ``figures/rates``.
        path: of the image file.
        step: the global step that it shows.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            logger.experiment.log({name: wandb.Image(str(path)), STEP: step})
        elif isinstance(logger, TensorBoardLogger):
            from matplotlib.image import imread

            logger.experiment.add_image(name, imread(path)[..., :3], step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            with errors_as_warnings(logger):
                logger.experiment.log_artifact(logger.run_id, str(path), Path(name).parent.as_posix())


def _check_options(options: Mapping[str, Mapping[str, Any] | None]) -> None:
    for kind, values in options.items():
        if "_target_" in (values or {}):
            continue
        if kind not in KINDS:
            raise ConfigError(
                f"logger.{kind}: no such logger; there are {', '.join(KINDS)}, and any with the _target_ of its class"
            )
        if unknown := set(values or {}) - set(KINDS[kind]):
            takes = ", ".join(KINDS[kind]) or "no options"
            raise ConfigError(f"logger.{kind}.{min(unknown)}: no such option; it takes {takes}")
    # before a W&B run is begun, which would stay open
    if "tensorboard" in options and not importlib.util.find_spec("tensorboard"):
        raise ConfigError("logger=tensorboard needs a package: pip install 'neuro_lightning[tensorboard]'")


def _lightning_logger(kind: str, values: Mapping[str, Any], config: Mapping[str, Any], name: str) -> Logger:
    """A logger of Lightning's or of a trusted package, which is told the run's config, and its name as ``run_name``."""
    if values.get("run_name", "given") is None:
        values = {**values, "run_name": name}
    try:
        logger = instantiate(OmegaConf.create(dict(values)), trusted=config.get("trusted"))
    except (ImportError, HydraException) as error:
        missing = error if isinstance(error, ImportError) else error.__cause__
        if not isinstance(missing, ImportError):
            raise
        package = PACKAGES.get(values["_target_"].rpartition(".")[2], missing.name)
        raise ConfigError(f"logger.{kind} needs a package: pip install {package or f'({missing})'}") from error
    if not isinstance(logger, Logger):
        raise ConfigError(f"logger.{kind}: {values['_target_']} is no logger of Lightning's kind")
    logger.log_hyperparams(dict(config))
    return logger
