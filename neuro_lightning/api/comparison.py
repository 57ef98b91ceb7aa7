"""Scores of runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuro_lightning.api.results import Run, Table
from neuro_lightning.artifacts.trial_scores import read_trial_scores, trial_scores_file
from neuro_lightning.data.identity import Identity
from neuro_lightning.data.same_data import split_differs
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.likelihood import SpikeSums
from neuro_lightning.functional.paired_bootstrap import paired_bootstrap
from neuro_lightning.metrics.trial_sums import as_sums, mean_of


def compare(runs: Sequence[Run | str | Path] | Mapping[str, Run | Sequence[Run]]) -> Table:
    """Scores side by side, and by how much they differ from those of the first.

    Args:
        runs: runs or their folders; or by name a run or several that differ in their seed alone. Differences of
            several are taken between runs of the same seed.

    Returns:
        A row for each score; a column for each run or name (of several runs the mean) and, from the second on, its
        ``difference`` to the first and, from two seeds on, the difference's standard error over seeds, ``sem``. For
        bits per spike also ``low`` and ``high``, the difference's 95 % interval over trials by the paired bootstrap,
        and ``trials``: how many trials like these would make it as large as two standard errors.

    Raises:
        ConfigError: they were scored on other trials, or groups have no seeds in common.

    Example:
        >>> nl.compare([gru, ndt])                                        # doctest: +SKIP
        >>> nl.compare({"gru": gru_of_three_seeds, "ndt": ndt_of_three})  # doctest: +SKIP
    """
    groups = _groups(runs)
    _check_same_trials([run for group in groups.values() for run in group])
    by_seed = {name: {run.config["seed"]: run.scores for run in group} for name, group in groups.items()}
    first, columns = next(iter(groups)), {}
    for name, scores in by_seed.items():
        columns[name] = pd.DataFrame(scores).mean(axis=1)
        if name == first:
            continue
        single = len(scores) == len(by_seed[first]) == 1
        pairs = (
            [(next(iter(scores)), next(iter(by_seed[first])))]
            if single
            else [(s, s) for s in scores if s in by_seed[first]]
        )
        if not pairs:
            raise ConfigError(f"{name} and {first} have no seed in common, so that nothing can be paired")
        difference = pd.DataFrame({mine: scores[mine] - by_seed[first][theirs] for mine, theirs in pairs})
        columns[f"{name} difference"] = difference.mean(axis=1)
        if len(pairs) > 1:
            columns[f"{name} sem"] = difference.sem(axis=1)
        by_name = [{run.config["seed"]: run for run in groups[who]} for who in (name, first)]
        paired = [(by_name[0][mine], by_name[1][theirs]) for mine, theirs in pairs]
        columns |= {f"{name} {what}": values for what, values in _over_trials(paired).items()}
    return Table(columns)


def _over_trials(pairs: Sequence[tuple[Run, Run]]) -> dict[str, pd.Series]:
    """``low``, ``high`` and ``trials`` of the differences in bits per spike, where the runs kept what trials score.

    Args:
        pairs: each a run and the run that it is compared with.
    """
    found = {}
    for split in ("val", "test"):
        sums = [[_trial_sums(run, split) for run in group] for group in zip(*pairs, strict=True)]
        if any(kept is None for group in sums for kept in group):
            continue
        bits = next((name for name in ("co_bps", "bps") if f"{split}/{name}" in pairs[0][0].scores), None)
        if bits is not None:
            found[f"{split}/{bits}"] = paired_bootstrap(*map(mean_of, sums))
    if not found:
        return {}
    return {what: pd.Series({row: getattr(d, what) for row, d in found.items()}) for what in ("low", "high", "trials")}


def _trial_sums(run: Run, split: str) -> SpikeSums | None:
    arrays = read_trial_scores(trial_scores_file(run.folder, run.session or ""), split)
    return None if arrays is None else as_sums(arrays)


def _groups(runs: Any) -> dict[str, list[Run]]:
    """Runs by name; a number tells those apart that have one name."""
    if isinstance(runs, Mapping):
        groups = {name: [found] if isinstance(found, Run | str | Path) else list(found) for name, found in runs.items()}
        groups = {name: [_run(run) for run in group] for name, group in groups.items()}
        for name, group in groups.items():
            if len({run.config["seed"] for run in group}) < len(group):
                raise ConfigError(f"{name} has two runs of one seed: give one run for each seed")
    else:
        groups = {}
        for run in map(_run, runs):
            name = next(n for k in range(1, 10**6) if (n := run._label + (f" ({k})" if k > 1 else "")) not in groups)
            groups[name] = [run]
    if not any(groups.values()):
        raise ConfigError("compare takes runs, and there are none")
    return groups


def _run(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run(run)


def _check_same_trials(runs: Sequence[Run]) -> None:
    """Refuse runs whose scores are of other trials, in any of several sessions."""
    first = runs[0]
    for run in runs[1:]:
        one, other = (
            found.get("sessions") or {"": found} for found in (first._saved().identity, run._saved().identity)
        )
        if set(one) != set(other):
            names = (", ".join(filter(None, found)) or "one recording" for found in (other, one))
            raise ConfigError(
                f"{run.folder} is of {next(names)}, {first.folder} of {next(names)}: nothing to compare; of several "
                "sessions give run.sessions[NAME]"
            )
        for session in one:
            _check_same_recording(run, first, other[session], one[session])


def _check_same_recording(run: Run, first: Run, mine: Identity, theirs: Identity) -> None:
    if mine["name"] != theirs["name"]:
        raise ConfigError(f"{run.folder} is of {mine['name']}, {first.folder} of {theirs['name']}: nothing to compare")
    for split in ("val", "test"):
        if split_differs(theirs, mine, split):
            raise ConfigError(f"the {split} trials of {run.folder} are others than those of {first.folder}")
