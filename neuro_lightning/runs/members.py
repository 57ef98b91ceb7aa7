"""``model.members=K``: K networks of one run that differ in their seeds, trained as one; together they are an ensemble.

Each member is a run in ``members/0`` and so on, as if it had been trained with its seed alone; the run itself has the
scores of the mean of what they predict.
"""

from __future__ import annotations

import copy
import math
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from neuro_lightning.artifacts.checkpoint_files import BEST, MEMBERS, resumable
from neuro_lightning.artifacts.folders import delete_run_files
from neuro_lightning.artifacts.lines import announce, say
from neuro_lightning.artifacts.output import OUTPUT_FILE, JobOutput, WithoutBars
from neuro_lightning.artifacts.records import RunRecord, read_record_if_any
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.table import by_split, kind_of, names_of_members, print_table, relative, result_rows
from neuro_lightning.ensemble.combine import EnsembleSettings, combine
from neuro_lightning.ensemble.decoding import decode
from neuro_lightning.errors import ConfigError, Interrupted, NeuroError
from neuro_lightning.runs.factory import build_data
from neuro_lightning.runs.monitors import monitor_of_heads, monitor_without_heldout
from neuro_lightning.runs.outcome import record_of_data
from neuro_lightning.runs.prediction import pick_device, score_rates
from neuro_lightning.runs.sessions import with_sessions
from neuro_lightning.runs.together import refuse_settings, rewind, train_together
from neuro_lightning.runs.train import recorded_run, train
from neuro_lightning.settings.settings import TrainSettings

# what a run's record has of its first member's
SHARED = ("parameters", "steps", "ms_per_step", "device", "processes", "baselines", "references", "oracle")
ENDED = ("finished", "diverged", "pruned")  # members that a resumed run leaves as they are
OF_RUN = ("model.members=", "seed=", "resume=", "overwrite=", "hydra.", "hydra/")  # overrides that no member has


def train_run(cfg: DictConfig, overrides: Sequence[str] = (), group: str | None = None) -> float:
    """Train what a composed config of ``conf/train.yaml`` says: a network, or several with ``model.members``.

    Args:
        cfg: the composed config.
        overrides: what was typed, for the records.
        group: the sweep that the run belongs to.

    Returns:
        The monitored score, the objective of sweeps: of the saved checkpoint, or of the members' mean.

    Raises:
        NeuroError: with one message that says what to mend.
    """
    members = OmegaConf.select(cfg, "model.members")
    if members is not None and (type(members) is not int or members < 1):
        raise ConfigError(f"model.members={members}: give a whole number from 1 on, or null")
    if members in (None, 1):
        return train(cfg, overrides, group)
    return _train_members(cfg, overrides, group, members)


def _train_members(cfg: DictConfig, overrides: Sequence[str], group: str | None, number: int) -> float:
    settings = TrainSettings.resolve(with_sessions(cfg, cfg.get("trusted") or ()), overrides=overrides, group=group)
    with recorded_run(settings) as (record, _):
        settings.check()
        if reason := refuse_settings(settings):
            raise ConfigError(f"model.members={number}: {reason}; leave it out, or train a sweep over seeds")
        record.update(config={**settings.config, "model": {**settings.config["model"], "members": number}})
        folders = [settings.folder / MEMBERS / str(k) for k in range(number)]
        starts = _starts(folders) if settings.resume else [None] * number
        left = [k for k, start in enumerate(starts) if start != "ended"]
        announce("training", f"{number} networks as one, of seeds {settings.seed} to {settings.seed + number - 1}")
        jobs = [_Member(cfg, settings, folders[k], k, starts[k]) for k in left]
        record.mark_begun()
        results = train_together(jobs, strict=True)
        if stopped := next((error for error in results if isinstance(error, Interrupted)), None):
            raise KeyboardInterrupt from stopped
        return _report(settings, folders, results, record)


class _Member:
    """Trains one member; called in its turn.

    Args:
        cfg: of the whole run.
        settings: of the whole run.
        folder: of the member.
        number: of the member, 0 and so on.
        start: the checkpoint that it is resumed from; None begins anew.
    """

    def __init__(self, cfg: DictConfig, settings: TrainSettings, folder: Path, number: int, start: str | None) -> None:
        own = {
            "seed": settings.seed + number, "paths.output_dir": str(folder), "model.members": None, "resume": start,
            "overwrite": False,
        }  # fmt: skip
        self.cfg = copy.deepcopy(cfg)
        for key, value in own.items():
            OmegaConf.update(self.cfg, key, value, force_add=True)
        typed = [word for word in settings.overrides if not word.lstrip("+").startswith(OF_RUN)]
        self.overrides = [*typed, f"seed={settings.seed + number}"]
        self.folder, self.group, self.starts_again = folder, settings.folder.name, bool(settings.resume and not start)
        self.title, self.shown = f"network {number}", number == 0  # one bar is enough

    def __call__(self) -> float:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.starts_again:
            delete_run_files(self.folder)
        self._write_hydra_files()
        before = sys.stdout
        terminal = getattr(before, "terminal", before)
        shown = terminal if self.shown else WithoutBars(terminal)
        output = JobOutput(self.folder / OUTPUT_FILE, shown, self.title, represents_others=self.shown)
        sys.stdout = output
        try:
            return train(self.cfg, self.overrides, self.group)
        finally:
            output.clear_status()
            output.close()
            sys.stdout = before

    def _write_hydra_files(self) -> None:
        """What Hydra writes into the folder of a run, by which ``resume=`` knows it."""
        own = self.folder / ".hydra"
        own.mkdir(exist_ok=True)
        plain = {**OmegaConf.to_container(self.cfg), "resume": None}
        OmegaConf.save(OmegaConf.create(plain), own / "config.yaml")
        OmegaConf.save(OmegaConf.create(self.overrides), own / "overrides.yaml")
        with suppress(OSError):  # a run that was not started by Hydra has none
            shutil.copy(self.folder.parents[1] / ".hydra" / "hydra.yaml", own / "hydra.yaml")


def _starts(folders: Sequence[Path]) -> list[str | None]:
    """What each member of a run is resumed from: a checkpoint, None to begin anew, or ``ended`` where nothing is left.

    Members that have ended stay so, unless all have: then there may be more epochs to train.
    """
    status = [read_record_if_any(folder).get("status") for folder in folders]
    over = all(each in ENDED for each in status)
    left = [each != "diverged" if over else each not in ENDED for each in status]
    if not over:
        going_on = [each not in (*ENDED, "failed") for each in status]
        rewind([folder for folder, going in zip(folders, going_on, strict=True) if going])
    found = [resumable(folder) if going else "ended" for folder, going in zip(folders, left, strict=True)]
    return [None if start is None else str(start) for start in found]


def _report(settings: TrainSettings, folders: Sequence[Path], results: Sequence[Any], record: RunRecord) -> float:
    """Score the mean of what the members predict, print it beside their own scores, and close ``run.json``.

    Raises:
        NeuroError: no member was trained to its end.
    """
    records = {k: read_record_if_any(folder) for k, folder in enumerate(folders)}
    finished = [k for k, each in records.items() if each.get("status") == "finished"]
    failed = [error for error in results if isinstance(error, BaseException)]
    if not finished and failed:
        raise failed[0]
    for k, each in records.items():
        if k not in finished:
            say(f"members/{k}: {each.get('status')}{': ' + each['error'] if each.get('error') else ''}")
    found = {
        str(k): {"seed": each.get("seed"), "status": each.get("status"), **(each.get("objective") or {})}
        for k, each in records.items()
    }
    if not finished:
        record.update(members=found)
        status = next(each["status"] for each in records.values())
        record.close(status, f"no member of {settings.folder} was trained to its end" if status == "diverged" else None)
        return math.inf if settings.mode == "min" else -math.inf
    settings, data = settings_and_data(settings)
    first, scores = records[finished[0]], _mean_scores(settings, [folders[k] for k in finished], data)
    split, name = settings.monitor.split("/", 1)
    value = float(scores.get(split, {}).get(name, math.nan))
    record.update(
        objective={"name": settings.monitor, "value": value, "mode": settings.mode, "end": None, "peak": None},
        metrics={f"{split}/{name}": each for split, values in scores.items() for name, each in values.items()},
        members=found,
        data=record_of_data(data, settings.config["data"]),
        checkpoints={"best": None, "epochs": max(records[k]["checkpoints"]["epochs"] for k in finished)},
        **{key: first.get(key) for key in SHARED},
    )
    shown = {"model": scores, **{str(k): by_split(records[k]["metrics"]) for k in finished}}
    shown |= {**(first.get("baselines") or {}), **(first.get("references") or {}), "oracle": first.get("oracle")}
    names = names_of_members(finished)
    columns, rows = result_rows(shown, names=names)
    title = f"Scores on {data.recording.name} ({kind_of(data.recording)})"
    print_table(title, columns, rows, strong={names["model"]})
    print(f"\nfolder      {relative(settings.folder)}")
    record.close("finished")
    return value


def settings_and_data(settings: TrainSettings) -> tuple[TrainSettings, PopulationDataModule]:
    """The data of the whole run, and its settings with the score that these data have."""
    data = build_data(settings)
    changes = monitor_of_heads(settings) or monitor_without_heldout(settings, data.spec)
    return (settings.changed(changes) if changes else settings), data


def _mean_scores(
    settings: TrainSettings, folders: Sequence[Path], data: PopulationDataModule
) -> dict[str, dict[str, float]]:
    """The scores of the mean of the members' best checkpoints, by labelled split.

    Raises:
        NeuroError: the members cannot be averaged.
    """
    paths = [folder / "checkpoints" / BEST for folder in folders]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise NeuroError(f"{settings.folder}: its members kept no checkpoint, of which there is a mean")
    splits, device = list(data.references()), pick_device("auto" if settings.trainer.accelerator != "cpu" else "cpu")
    announce("scoring", f"the mean of {len(paths)} networks")
    predicted = [*splits, "train"]  # of which decoders of velocity learn
    rates, ensemble = combine(paths, data, predicted, device, EnsembleSettings(), trusted=settings.trusted)
    decoded = decode(paths, data, predicted, device, trusted=settings.trusted, ensemble=ensemble)
    found = {split: score_rates(data, rates, decoded, split) for split in splits}
    return {split: scores for split, scores in found.items() if scores is not None}
