"""Trained models and sweeps as they lie in their folders."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from neuro_lightning.artifacts.checkpoint_files import MEMBERS, run_folder
from neuro_lightning.artifacts.records import FILE_NAME, newest_finished_run, read_record
from neuro_lightning.callbacks.figures import Figures
from neuro_lightning.data.arrays.images import scale_images
from neuro_lightning.data.arrays.spikes import check_spikes
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Trials
from neuro_lightning.ensemble.decoding import decode_split
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.models.inference import LATENTS, predict_batches, predict_split
from neuro_lightning.models.loading import Saved, choose_checkpoint, find_checkpoint, load_checkpoint
from neuro_lightning.runs.prediction import data_for_checkpoint, pick_device
from neuro_lightning.runs.similar_trials import add_similar_trials, check_similar_trials, remark_on_causality
from neuro_lightning.settings.settings import check_share


def _run_near(path: Path) -> str:
    """Which run may be meant by a path that is none: that of a checkpoint, or the newest in a folder."""
    if path.is_file() and (run_folder(path) / FILE_NAME).is_file():
        return f"; give the folder of its run, {run_folder(path)}"
    newest = newest_finished_run(path) if path.is_dir() else None
    return f"; the newest run in it is {newest}" if newest else ""


class Run:
    """A trained model: its scores, what it predicts, and where its files lie.

    Of a run on several recordings, :attr:`sessions` holds the same for each of them.

    Args:
        folder: of the run.
        trusted: packages of your own that its checkpoint may build from.
        session: which of several recordings it is about; None for all.

    Attributes:
        folder: of the run.
        session: see above.
        record: all that ``run.json`` holds.

    Example:
        >>> run.sessions["monday"].rates("val")   # or run.rates("val", session="monday")  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, *, trusted: Sequence[str] = (), session: str | None = None) -> None:
        self.folder, self._trusted, self.session = Path(folder).absolute(), tuple(trusted), session
        if not (self.folder / FILE_NAME).is_file():
            raise ConfigError(f"{self.folder} is no run's folder: it has no {FILE_NAME}{_run_near(self.folder)}")
        self.record = read_record(self.folder)
        self._opened: dict[Path, Saved] = {}

    @property
    def config(self) -> dict[str, Any]:
        """The config, every value resolved."""
        return self.record["config"]

    @property
    def status(self) -> str:
        """``finished``, or ``failed``, ``interrupted``, ``diverged``, ``pruned`` or ``running``."""
        return self.record["status"]

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint by the validation score."""
        return find_checkpoint(self.folder)

    @property
    def scores(self) -> pd.Series:
        """The saved checkpoint's scores by name, such as ``val/co_bps``.

        Of several sessions it is the mean over them, followed by each one's as ``val/co_bps/SESSION``.
        """
        return pd.Series(self._of_session(self.record.get("metrics") or {}), name=self._label, dtype=float)

    @cached_property
    def sessions(self) -> dict[str, Run]:
        """The run as that of each of its sessions, by name; empty for a run on one recording."""
        names = (self.record.get("data") or {}).get("sessions") or {} if self.session is None else {}
        found = {name: Run(self.folder, trusted=self._trusted, session=name) for name in names}
        for part in found.values():
            part._opened = self._opened  # one checkpoint holds all
        return found

    @cached_property
    def members(self) -> dict[int, Run]:
        """The networks of a run with ``model.members`` that were trained to their end, runs of their own, by number."""
        numbers = [int(k) for k, each in (self.record.get("members") or {}).items() if each["status"] == "finished"]
        return {k: Run(self.folder / MEMBERS / str(k), trusted=self._trusted) for k in numbers}

    @property
    def table(self) -> Table:
        """Scores of the model, the baselines and, of simulated data, the true rates, a column each."""
        record = self.record
        others = {**(record.get("baselines") or {}), **(record.get("references") or {}), "oracle": record.get("oracle")}
        columns = {
            who: {f"{split}/{name}": value for split, values in found.items() for name, value in values.items()}
            for who, found in others.items()
            if found
        }
        columns = {"model": record.get("metrics") or {}, **columns}
        return Table({who: self._of_session(found) for who, found in columns.items()})

    @property
    def unit_ids(self) -> np.ndarray:
        """(N,) the neurons' numbers in the order of the rates' last axis, held-in ones first.

        Of arrays without ``unit_ids`` they are the columns: ``counts[..., run.unit_ids]`` fits the rates.

        Raises:
            ConfigError: of several sessions each has its own: ``run.sessions[NAME].unit_ids``.
        """
        return np.array(self._of(None)._saved().spec.unit_ids)

    @cached_property
    def data(self) -> PopulationDataModule:
        """The data that trained the model; ``data.recording.splits["val"]`` holds the validation trials.

        Of several sessions ``data.by_session()`` holds the data of each by its name.

        Raises:
            NeuroError: the files have changed or are gone.
        """
        return data_for_checkpoint(self._saved(), {}, self._trusted)

    @property
    def network(self) -> Any:
        """The trained network, a ``torch.nn.Module`` in evaluation mode; of several sessions that of each in it."""
        return self._saved().model.net

    def rates(self, split: str = "val", session: str | None = None, *, similar_trials: float = 0.0) -> np.ndarray:
        """What the model expects of a split: (B, L, N) or (B, N), spikes per bin or in the responses' unit.

        They are those that ``python predict.py`` writes, NaN after the end of a shorter trial: trials in the order of
        ``run.data.recording.splits[split].row``, neurons in that of :attr:`unit_ids`.

        Args:
            split: ``train``, ``val`` or ``test``.
            session: which of several recordings.
            similar_trials: the share of each rate that is the mean of the training trials that are predicted most
                alike, see :mod:`neuro_lightning.functional.similar_trials`. Of a causal model the rates are then no
                longer causal, and a warning says so.

        Raises:
            ConfigError: no session is named where there are several, or one that there is not; or trials that cannot be
                compared.

        Example:
            >>> rates_hz = run.rates("val") / run.record["data"]["bin_ms"] * 1000  # doctest: +SKIP
        """
        check_share("similar_trials", similar_trials)
        run = self._of(session)
        if similar_trials:
            check_similar_trials(None, run.data)
        model, device = run._saved(run._split(split)).model, pick_device("auto")
        rates = predict_split(model.net, run.data, split, device)["rates"]
        if similar_trials:
            if remark := remark_on_causality([model]):
                warnings.warn(remark, stacklevel=2)
            train = predict_split(model.net, run.data, "train", device)["rates"]
            rates = add_similar_trials({"train": train, split: rates}, run.data.recording, similar_trials)[split]
        return run._until_end(split, rates)

    def latents(self, split: str = "val", session: str | None = None) -> np.ndarray:
        """(B, L, D) the model's description of the population's state in each trial of a split.

        The latents of several sessions are in one space.

        Args:
            split: ``train``, ``val`` or ``test``.
            session: which of several recordings.

        Raises:
            ConfigError: the model has no latents, or as for :meth:`rates`.
        """
        run = self._of(session)
        found = predict_split(run._saved().model.net, run.data, run._split(split), pick_device("auto"), LATENTS)
        if "latents" not in found:
            raise ConfigError(f"{run._label} has no latents; rates has what it predicts")
        return run._until_end(split, found["latents"])

    def decoded(self, split: str = "val", session: str | None = None) -> dict[str, np.ndarray]:
        """What the model's heads decode of a split, by their names; empty without heads.

        Behavior (B, T, K) or a number of each trial (B,) in the physical unit, or the probabilities (B, C) of the
        classes that ``run.network.heads.by_name[NAME].classes`` lists.

        Args:
            split: ``train``, ``val`` or ``test``.
            session: which of several recordings.

        Raises:
            ConfigError: as for :meth:`rates`.
        """
        run, device = self._of(session), pick_device("auto")
        found = decode_split(run._saved(run._split(split)).model.net, run.data, split, device)
        return {name: run._until_end(split, values) if values.ndim == 3 else values for name, values in found.items()}

    def predict(self, new: Any, session: str | None = None) -> np.ndarray:
        """What the model expects of new trials or images of the same neurons.

        Args:
            new: of spikes (B, T, N) counts of all neurons, in the order of the arrays that trained the model, or
                (B, T, N_in) of the held-in ones alone, in the order of :attr:`unit_ids`. Of images (B, H, W) or
                (B, C, H, W), in the unit of those that trained the model.
            session: whose neurons they are of, where there are several.

        Returns:
            (B, L, N) or (B, N), neurons in the order of :attr:`unit_ids`.

        Raises:
            DataError: another number of bins, neurons or pixels.
            ConfigError: of traces, which are normalised as a session, or as for :meth:`rates`.

        Example:
            >>> run.predict(new_counts)[..., 0]   # the neuron run.unit_ids[0]  # doctest: +SKIP
        """
        run = self._of(session)
        inputs = torch.from_numpy(np.ascontiguousarray(run._inputs(np.asarray(new)), np.float32))
        device = pick_device("auto")
        net, size = run._saved().model.net.to(device), run.data.eval_batch_size
        batches = ({"inputs": inputs[k : k + size]} for k in range(0, len(inputs), size))
        return predict_batches(net, batches, len(inputs), device)["rates"]

    def figures(self) -> FigureFiles:
        """The run's figures by name, as files; drawn now where the run has drawn none. A notebook shows them.

        Those of a session among several are named ``SESSION/NAME``.
        """
        folder = self.folder / "figures" / (self.session or "")
        files = sorted(folder.rglob("*.png"))
        if not files and self.session is None:
            objective = self.record["objective"]
            stand_in = SimpleNamespace(default_root_dir=self.folder, datamodule=self.data, loggers=[], global_step=0)
            Figures(monitor=objective["name"], mode=objective["mode"]).draw(stand_in, self._saved().model)
            files = sorted(folder.rglob("*.png"))
        return FigureFiles({path.relative_to(folder).with_suffix("").as_posix(): path for path in files})

    def __repr__(self) -> str:
        objective = self.record.get("objective") or {}
        value = self.scores.get(objective.get("name")) if self.session else objective.get("value")
        score = f", {objective['name']} {value:.4f}" if value is not None else ""
        return f"Run({self._label}, {self.status}{score}, {self.folder})"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.table.to_html(float_format='{:.4f}'.format, na_rep='')}"

    @property
    def _label(self) -> str:
        config = self.config
        name = str((config.get("model") or {}).get("_target_", "model")).rpartition(".")[2]
        data = self.session or (self.record.get("data") or {}).get("name", "data")
        return f"{name} on {data} seed {config.get('seed')}"

    def _of(self, session: str | None) -> Run:
        """The run of one recording: this one, or that of one of its sessions.

        Raises:
            ConfigError: no session is named where there are several, or one that there is not.
        """
        if session is None and not self.sessions:
            return self
        if session in self.sessions:
            return self.sessions[session]
        if not self.sessions:
            raise ConfigError(f"session={session!r}: {self._label} is of one recording; leave it out")
        wish = "several sessions: name one as session=NAME" if session is None else f"no session {session}"
        raise ConfigError(f"{self._label} has {wish}; it has {', '.join(self.sessions)}")

    def _of_session(self, scores: dict[str, float]) -> dict[str, float]:
        """Scores by name; of one session its own, by the names that a single recording's have."""
        if self.session is None:
            return scores
        end = f"/{self.session}"
        return {name.removesuffix(end): value for name, value in scores.items() if name.endswith(end)}

    def _saved(self, split: str = "val") -> Saved:
        """The checkpoint that predicts a split, as ``predict.py`` chooses it."""
        path = choose_checkpoint(self.folder, "auto", "val" if split == "train" else split)
        if path not in self._opened:
            self._opened[path] = load_checkpoint(path, trusted=self._trusted)
        return self._opened[path] if self.session is None else self._opened[path].of_session(self.session)

    def _until_end(self, split: str, values: np.ndarray) -> np.ndarray:
        """Values with NaN after the end of trials that are shorter than others."""
        trials = self.data.recording.splits[split]
        return trials.blank_padding(values) if isinstance(trials, Trials) else values

    def _split(self, split: str) -> str:
        splits = self.data.recording.splits
        if split not in splits:
            raise ConfigError(f"split={split!r}: these data have {', '.join(splits)}")
        return split

    def _inputs(self, new: np.ndarray) -> np.ndarray:
        """New inputs as the network takes them."""
        spec, info = self._saved().spec, self.data.recording.info
        if spec.kind == "traces":
            raise ConfigError("predict takes spikes and images; traces are normalised as a session: train on it")
        if spec.kind == "images":
            found = new[:, None] if new.ndim == 3 else new
            if found.ndim != 4 or found.shape[1:] != tuple(spec.image_shape):
                raise DataError(f"new images have the shape {new.shape}, but the model takes B x {spec.image_shape}")
            return scale_images(found, info.get("image_mean", 0.0), info.get("image_std", 1.0))
        check_spikes({"counts": new}, "new ")
        if new.shape[1] != spec.n_bins:
            raise DataError(f"new counts have {new.shape[1]} bins, but the model was trained on {spec.n_bins}")
        columns = info.get("columns", list(range(spec.n_neurons)))  # of the arrays, in the order of unit_ids
        n_columns = info.get("n_columns", spec.n_neurons)
        if new.shape[2] not in (n_columns, spec.n_in):
            raise DataError(
                f"new counts have {new.shape[2]} neurons; the model takes all {n_columns}, or the {spec.n_in} that are "
                "held in"
            )
        return new[..., columns[: spec.n_in]] if new.shape[2] == n_columns else new


class Table(pd.DataFrame):
    """A table that is printed with all of its columns, in blocks of lines of at most 100 characters."""

    def __repr__(self) -> str:
        return self.to_string(line_width=100, max_rows=60)

    def _repr_html_(self) -> str:
        return self.to_html(max_rows=60)


class Sweep:
    """The runs of a sweep and the table of what came out.

    Args:
        folder: of the sweep.
        trusted: packages of your own that its checkpoints may build from.

    Attributes:
        folder: of the sweep.
    """

    def __init__(self, folder: str | Path, *, trusted: Sequence[str] = ()) -> None:
        self.folder, self._trusted = Path(folder).absolute(), tuple(trusted)

    @property
    def table(self) -> Table:
        """One row for each job, as in ``sweep.csv``.

        Raises:
            DataError: there is no table: no job has begun.
        """
        path = self.folder / "sweep.csv"
        if not path.is_file():
            raise DataError(f"{path} is not there: no job of this sweep has begun")
        return Table(pd.read_csv(path, float_precision="round_trip"))

    @property
    def runs(self) -> list[Run]:
        """The jobs' runs in the order of the table, those that failed among them."""
        folders = [self.folder / str(job) for job in self.table["job"]]
        return [Run(folder, trusted=self._trusted) for folder in folders if (folder / FILE_NAME).is_file()]

    @property
    def best(self) -> Run:
        """The run with the best objective.

        Raises:
            DataError: no job has finished.
        """
        done = [run for run in self.runs if run.status == "finished"]
        if not done:
            raise DataError(f"{self.folder}: no job has finished; its table says why")
        better = max if done[0].record["objective"]["mode"] == "max" else min
        return better(done, key=lambda run: run.record["objective"]["value"])

    def __repr__(self) -> str:
        return f"Sweep({len(self.table)} jobs, {self.folder})"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.table.to_html(index=False, na_rep='')}"


class FigureFiles(dict[str, Path]):
    """Files of figures by name, which a notebook shows."""

    def _ipython_display_(self) -> None:
        from IPython.display import Image, display

        for path in self.values():
            display(Image(path))
