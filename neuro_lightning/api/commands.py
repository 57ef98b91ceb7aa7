"""What ``train.py`` does, as functions."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from neuro_lightning.api.data import Data
from neuro_lightning.api.in_process import run_predict, run_train
from neuro_lightning.api.results import Run, Sweep
from neuro_lightning.api.words import Overrides, choices, place, to_words, trusted_packages
from neuro_lightning.cli import compose_config, train_arguments
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.ensemble.members import is_sweep
from neuro_lightning.errors import ConfigError
from neuro_lightning.runs.sessions import with_sessions
from neuro_lightning.settings.config import instantiate
from neuro_lightning.settings.quoting import override, typed_value


def train(
    model: str | None = None,
    data: str | Data | None = None,
    overrides: Overrides = (),
    *,
    experiment: str | None = None,
    trainer: str | None = None,
    seed: int | None = None,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    verbose: bool = True,
) -> Run:
    """Train one model, as ``python train.py`` does, and leave the same files.

    Args:
        model: one of ``conf/model``, such as ``gru``.
        data: one of ``conf/data``, such as ``mc_rtt``, or your own from :func:`spikes`, :func:`traces` or
            :func:`images`, whose arrays are written below ``paths.data``.
        overrides: further words of the command line, ``["trainer.max_epochs=50"]``, or values by key,
            ``{"trainer.max_epochs": 50}``.
        experiment: one of ``conf/experiment``.
        trainer: one of ``conf/trainer``, such as ``gpu``.
        seed: of weights, order of trials and dropout.
        folder: of the run; None for ``outputs/DATA/MODEL/TIME``.
        resume: the folder of a run to resume.
        verbose: whether to print what the command prints; it is kept in the run's ``output.log`` in any case.

    Returns:
        The run.

    Raises:
        NeuroError: with one line that says what to mend.

    Example:
        >>> run = nl.train("gru", "lorenz", {"trainer.max_epochs": 20, "logger": "csv"})  # doctest: +SKIP
        >>> run.scores["val/co_bps"]                                                      # doctest: +SKIP
    """
    further = to_words(overrides)
    words = choices(model=model, experiment=experiment, trainer=trainer) + _data_words(data, further)
    words += [] if seed is None else [override("seed", seed)]
    places = {"hydra.run.dir": folder, "resume": resume}
    words += [override(key, place(path)) for key, path in places.items() if path is not None]
    with nullcontext() if verbose else redirect_stdout(io.StringIO()):
        path = run_train([*words, *further])
    return Run(path, trusted=trusted_packages(further))


def sweep(
    model: str | Sequence[str] | None = None,
    data: str | Data | Sequence[str] | None = None,
    overrides: Overrides = (),
    *,
    seeds: Sequence[int] | None = None,
    search: str | None = None,
    launcher: str | None = None,
    folder: str | Path | None = None,
    verbose: bool = True,
) -> Sweep:
    """Train every combination of the values that are given as lists, as ``python train.py -m`` does.

    Args:
        model: one model or several.
        data: a dataset, several by name, or arrays of your own.
        overrides: words of the command line, ``["model.hidden=32,64"]``, or values by key, lists of which are swept,
            ``{"model.hidden": [32, 64]}``.
        seeds: each combination is trained with each of them.
        search: one of ``conf/sweep``, such as ``ndt_bayes``.
        launcher: one of ``conf/hydra/launcher``, such as ``processes``; None for one job after another.
        folder: of the sweep; None for ``multirun/TIME``.
        verbose: whether to print what the command prints.

    Returns:
        The sweep, with its table and its runs.

    Raises:
        NeuroError: with one line that says what to mend; a job that fails is a row of the table.

    Example:
        >>> result = nl.sweep(["gru", "ndt"], "mc_rtt", seeds=range(3))  # doctest: +SKIP
        >>> result.table                                                 # doctest: +SKIP
    """
    further = to_words(overrides, sweep=True)
    words = ["-m", *choices(model=model, sweep=search), *_data_words(data, further)]
    if launcher is not None:
        words.append(f"hydra/launcher={launcher}")
    if seeds is not None:
        words.append(f"seed={','.join(str(int(seed)) for seed in seeds)}")
    if folder is not None:
        words.append(override("hydra.sweep.dir", place(folder)))
    with nullcontext() if verbose else redirect_stdout(io.StringIO()):
        path = run_train([*words, *further])
    return Sweep(path, trusted=trusted_packages(further))


def predict(
    runs: Run | str | Path | Sequence[Run | str | Path], overrides: Overrides = (), *, verbose: bool = True
) -> Path:
    """Write what one or several trained models predict into a file, as ``python predict.py`` does.

    Args:
        runs: runs, sweeps, or their folders; several are an ensemble.
        overrides: further words of the command line, ``["ensemble=greedy"]``, or values by key,
            ``{"file": "submission.h5", "output": "submission"}``.
        verbose: whether to print what the command prints, such as the scores.

    Returns:
        The file: a submission where the data have a benchmark, else predictions.

    Raises:
        NeuroError: with one line that says what to mend.

    Example:
        >>> nl.predict(run, {"file": "submission.h5", "overwrite": True})  # doctest: +SKIP
    """
    several = isinstance(runs, list | tuple)
    folders = [place(run.folder if isinstance(run, Run | Sweep) else run) for run in (runs if several else [runs])]
    words = [override("ckpt", folders if several else folders[0]), *to_words(overrides)]
    with nullcontext() if verbose else redirect_stdout(io.StringIO()):
        return run_predict(words)


def dataset(data: str | Data, overrides: Overrides = ()) -> PopulationDataModule:
    """The data that a training would see, without a training.

    Args:
        data: one of ``conf/data``, or arrays of your own.
        overrides: further words of the command line, or values by key, such as ``{"data.simulate": True}``.

    Returns:
        The data module: ``.recording.splits["train"]`` holds the trials as arrays, ``.spec`` describes them.

    Raises:
        NeuroError: with one line that says what to mend.

    Example:
        >>> nl.dataset("mc_rtt", {"data.simulate": True}).recording.splits["val"].heldin.shape  # doctest: +SKIP
    """
    further = to_words(overrides)
    cfg = compose_config("train", train_arguments([*_data_words(data, further), *further]))
    return instantiate(with_sessions(cfg, cfg.trusted or ()).data, trusted=cfg.trusted)


def load(folder: str | Path, *, trusted: Sequence[str] = ()) -> Run | Sweep:
    """Open the folder of a run or of a sweep, made from Python or by a command.

    Args:
        folder: such as ``outputs/mc_rtt/gru/...`` or ``multirun/...``.
        trusted: packages of your own that its checkpoints may build from.

    Raises:
        NeuroError: there is no run.

    Example:
        >>> nl.load("outputs/mc_rtt/gru/2026-01-31_12-00-00").scores  # doctest: +SKIP
    """
    folder = Path(place(folder))
    return (Sweep if is_sweep(folder) else Run)(folder, trusted=trusted)


def _data_words(data: str | Data | Sequence[str] | None, further: Sequence[str]) -> list[str]:
    if not isinstance(data, Data):
        names = [data] if isinstance(data, str | None) else data
        if not isinstance(names, list | tuple) or not all(isinstance(name, str | None) for name in names):
            raise ConfigError(
                f"data is a {type(data).__name__}: give a dataset's name, or nl.spikes(...), nl.traces(...) or "
                "nl.images(...) of arrays; a file is data='nwb' with the override {'data.path': 'FILE'}"
            )
        return choices(data=data)
    root = typed_value(list(further), "paths.data") or os.environ.get("NEURO_DATA") or "data"
    return data.overrides(root)
