"""``python -m neuro_lightning.analysis.consistency RUN RUN ...``: do runs find the same latents in the same trials?

Each run's latents are decoded from every other run's. A run whose latents the others decode well holds what they hold;
one that they decode badly has dynamics of its own. Runs that tie in co-bps differ here. Source: Dabholkar and Barak
2025, see :mod:`neuro_lightning.functional.cross_decoding`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuro_lightning.artifacts.checkpoint_files import run_folder
from neuro_lightning.artifacts.records import read_record_if_any, write_json
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.data.recording import Trials
from neuro_lightning.display.figures_latents import consistency_figure
from neuro_lightning.display.table import kind_of, number, print_table, relative
from neuro_lightning.ensemble.compatibility import check_members, check_same_data
from neuro_lightning.ensemble.members import find_members
from neuro_lightning.errors import ConfigError, errors_in_one_line
from neuro_lightning.functional.cross_decoding import cross_decoding
from neuro_lightning.models.inference import LATENTS, predict_split
from neuro_lightning.models.loading import Saved, load_checkpoint
from neuro_lightning.runs.prediction import data_for_checkpoint, pick_device


@dataclass
class Consistency:
    """How well runs decode each other.

    Attributes:
        names: of the M runs.
        scores: (M,) the score that chose each run's checkpoint, NaN where it is not known.
        monitor: that score's name.
        r2: (M, M) row i, column j: run j's latents decoded from run i's, on validation trials.
    """

    names: list[str]
    scores: list[float]
    monitor: str
    r2: np.ndarray

    @property
    def decoded(self) -> np.ndarray:
        """(M,) mean R2 with which the other runs decode each run's latents."""
        return _mean_of_others(self.r2, axis=0)

    @property
    def decodes(self) -> np.ndarray:
        """(M,) mean R2 with which each run decodes the others' latents."""
        return _mean_of_others(self.r2, axis=1)


def compare_latents(
    wanted: Sequence[str | Path], session: str | None = None, trusted: Sequence[str] = ()
) -> tuple[Consistency, PopulationDataModule]:
    """How well runs decode each other's latents, fitted on training trials and scored on validation trials.

    Args:
        wanted: runs, checkpoints or sweeps of the same data, see
            :func:`~neuro_lightning.ensemble.members.find_members`.
        session: which of several recordings that they were trained on.
        trusted: packages of your own that checkpoints may build from.

    Returns:
        The scores, and the data.

    Raises:
        ConfigError: fewer than two runs, or one without latents.
        CheckpointError: runs of other data or other trials.
    """
    members, remarks = find_members(wanted)
    print("".join(f"{remark}\n" for remark in remarks), end="")
    if len(members) < 2:
        raise ConfigError("give two runs or more: what they find is compared")
    saved = [_of_session(load_checkpoint(path, trusted=trusted), session) for path in members]
    data = data_for_checkpoint(saved[0], {}, trusted)
    if reason := check_members(members, data, session or ""):
        raise ConfigError(reason)
    latents = []
    for one in saved:
        check_same_data(one, data.spec, "the first run's data")
        latents.append([_rows(one, data, split) for split in ("train", "val")])
    r2 = cross_decoding(*zip(*latents, strict=True))
    records = [read_record_if_any(run_folder(path)) for path in members]
    objectives = [record.get("objective") or {} for record in records]
    scores = [np.nan if (value := found.get("value")) is None else float(value) for found in objectives]
    monitor = next((found["name"] for found in objectives if found), "score")
    return Consistency(_names(members), scores, monitor, r2.numpy()), data


def _of_session(saved: Saved, session: str | None) -> Saved:
    if session is None and saved.spec.sessions:
        names = ", ".join(part.session for part in saved.spec.sessions)
        raise ConfigError(f"{saved.path} is of several sessions: give --session, one of {names}")
    if session is not None and not saved.spec.sessions:
        raise ConfigError(f"--session {session}: {saved.path} was trained on one recording; leave it out")
    return saved if session is None else saved.of_session(session)


def _rows(saved: Saved, data: PopulationDataModule, split: str) -> torch.Tensor:
    """(R, D) latents of all bins that were recorded."""
    found = predict_split(saved.model.net, data, split, pick_device("auto"), LATENTS)
    if "latents" not in found:
        raise ConfigError(f"{saved.path}: this model has no latents; leave it out")
    trials, latents = data.recording.splits[split], found["latents"][:, : data.spec.n_bins]
    rows = trials.blank_padding(latents) if isinstance(trials, Trials) else latents
    rows = rows.reshape(-1, rows.shape[-1])
    return torch.from_numpy(rows[np.isfinite(rows).all(1)])


def _names(members: Sequence[Path]) -> list[str]:
    """Short names of runs: the folders' last parts, longer where two are alike."""
    parts = [run_folder(path).resolve().parts for path in members]
    depth = next(n for n in range(1, 100) if len({of_one[-n:] for of_one in parts}) == len({*parts}))
    return ["/".join(of_one[-depth:]) for of_one in parts]


def _mean_of_others(r2: np.ndarray, axis: int) -> np.ndarray:
    return np.nanmean(np.where(np.eye(len(r2), dtype=bool), np.nan, r2), axis=axis)


def report(found: Consistency, data: PopulationDataModule, folder: Path) -> list[Path]:
    """Print the table, the best run to trust first, and write ``consistency.json`` and ``consistency.png``."""
    order = np.argsort(-found.decoded, kind="stable")
    means = [[number(float(value), 3) for value in of_all] for of_all in (found.decoded, found.decodes)]
    rows = [[found.names[k], number(found.scores[k]), means[0][k], means[1][k]] for k in order]
    title = f"Latents of {len(rows)} runs on {data.recording.name} ({kind_of(data.recording)}), R2 on validation trials"
    print_table(title, ["run", found.monitor, "decoded by others", "decodes others"], rows)
    print("\nThe first run holds what the others hold, too; one that they decode badly has dynamics of its own.\n")
    values = {
        "runs": found.names, "monitor": found.monitor, "scores": found.scores, "r2": found.r2.tolist(),
        "decoded": found.decoded.tolist(), "decodes": found.decodes.tolist(), "simulated": data.recording.simulated,
    }  # fmt: skip
    written = [folder / "consistency.json", folder / "consistency.png"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(written[0], values)
    names, ranked = [found.names[k] for k in order], found.r2[np.ix_(order, order)]
    consistency_figure(ranked, names, simulated=data.recording.simulated).savefig(written[1])
    return written


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m neuro_lightning.analysis.consistency", description="do runs find the same latents?"
    )
    parser.add_argument("runs", nargs="+", help="folders of runs or of a sweep, on the same data")
    parser.add_argument("--session", help="which, where the runs are of several recordings")
    parser.add_argument("--trusted", nargs="*", default=(), help="packages of your own that the runs build from")
    parser.add_argument("--out", type=Path, default=Path("outputs/consistency"), help="folder to write to")
    given = parser.parse_args(arguments)
    found, data = compare_latents(given.runs, given.session, given.trusted)
    for path in report(found, data, given.out):
        print(f"written     {relative(path)}")


if __name__ == "__main__":
    sys.exit(main())
