"""What loggers get beside the scalars of the training: sizes, a name, reference lines, each neuron's scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuro_lightning.artifacts.trial_scores import read_trial_scores, trial_scores_file
from neuro_lightning.data.memory import Scores
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.display.table import NAMES
from neuro_lightning.loggers.building import log_references, log_table
from neuro_lightning.metrics.neuron_table import COLUMNS, neuron_rows
from neuro_lightning.metrics.trial_sums import as_sums
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.settings.quoting import settings_in_words
from neuro_lightning.settings.settings import TrainSettings

NAME_LENGTH = 120  # W&B takes 128 characters


def run_name(settings: TrainSettings, names: tuple[str, ...], swept: Mapping[str, Any] | None) -> str:
    """The run's name in the logs; that of a sweep's job begins with its number and what the sweep varies.

    Args:
        settings: of the run.
        names: of model, data and seed.
        swept: what the job's sweep varies; None outside of sweeps.
    """
    if swept is None:
        return settings.name or "-".join(names)
    words = [settings.name, settings.folder.name.partition("_")[0], settings_in_words(swept) or "-".join(names)]
    return " ".join(word for word in words if word)[:NAME_LENGTH]


def sizes_of(model: PopulationModule, data: PopulationDataModule) -> dict[str, int]:
    """Parameters, neurons and trials; of several sessions all together."""
    parts = list(data.by_session().values())
    trials: dict[str, int] = {}
    for part in parts:
        for split, found in part.recording.splits.items():
            trials[f"{split}_trials"] = trials.get(f"{split}_trials", 0) + len(found)
    neurons = {
        "heldin_neurons": sum(part.spec.n_in for part in parts),
        "target_neurons": sum(part.spec.n_out for part in parts),
    }
    return {"parameters": model.size, **neurons, **trials, **({"sessions": len(parts)} if len(parts) > 1 else {})}


def reference_scores(scores: Mapping[str, Scores]) -> dict[str, float]:
    """Scores of baselines, true rates and noise ceiling by name: ``baseline/smoothing/val/co_bps``, ``oracle/...``.

    Args:
        scores: by who, split and metric; the model's are left out.
    """
    return {
        f"{who.replace(' ', '_') if who in NAMES else f'baseline/{who}'}/{split}/{metric}": value
        for who, splits in scores.items()
        for split, values in (splits or {}).items()
        for metric, value in values.items()
        if who != "model" and value is not None
    }


def log_comparison(
    settings: TrainSettings,
    data: PopulationDataModule,
    scores: Mapping[str, Scores],
    loggers: list[Any],
    last_step: int,
) -> None:
    """Give loggers the lines to beat and to reach, and a table of each neuron's score.

    Args:
        settings: of the run, whose folder holds what each trial contributes to the scores.
        data: that were scored.
        scores: see :func:`reference_scores`.
        loggers: of the run.
        last_step: the global step at the training's end.
    """
    split = settings.monitor.split("/")[0]
    lines = {name: value for name, value in reference_scores(scores).items() if f"/{split}/" in name}
    log_references(loggers, lines, last_step)
    for session, part in data.by_session().items():
        kept = read_trial_scores(trial_scores_file(settings.folder, part.spec.session), split)
        if kept is not None:
            sums, ids = as_sums(kept), part.recording.unit_ids
            known = list(range(sums.nll.shape[1])) if ids is None else list(ids)[-sums.nll.shape[1] :]
            rows = neuron_rows(sums, [str(unit) for unit in known], part.recording.bin_ms)
            log_table(loggers, "/".join(filter(None, ["neurons", split, session])), COLUMNS, rows, last_step)
