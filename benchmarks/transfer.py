r"""What other sessions bring: each session alone, stitched with the others, and pretrained on the others.

    python benchmarks/transfer.py --out runs/transfer small=SMALL.nwb:25,50,75 medium=MEDIUM.nwb:25,50,75 \
        full=FULL.nwb:25,50,75,100,200,322 -- data.heldout_fraction=.25 'data.window_ms=[0,700]'

For each session, number of training trials and split: ``alone`` is ``data=nwb``, ``stitched`` a ``data=sessions`` of
all files, of which the others have all their training trials, and ``adapted`` an ``init=`` of a run on the others. A
split draws the validation trials, the held-out neurons, the training trials and the weights; all three share it, so
that their differences are paired. Words after ``--`` are for every run.

Scores are the best of ten validations, as ``train.py`` chooses its checkpoint, and therefore slightly optimistic;
``--score last`` takes the last one, which shows how much a way overfits without that choice.
Runs that are in ``--out/results.jsonl`` are not repeated: a table that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COMMON = ["data.cache_dir={out}/cache", "logger=csv", "callbacks=minimal", "baselines=null", "overwrite=true"]
WAYS = ("alone", "stitched", "adapted")


class Session(NamedTuple):
    """A recording, and the numbers of training trials to try."""

    name: str
    path: str
    trials: tuple[int, ...]


def parse_session(word: str) -> Session:
    """``NAME=FILE:25,50`` as a session."""
    name, _, rest = word.partition("=")
    path, _, trials = rest.rpartition(":")
    return Session(name, path, tuple(map(int, trials.split(","))))


class Table:
    """Runs by way, session, trials and split, each done once."""

    def __init__(self, options: argparse.Namespace, further: Sequence[str]) -> None:
        self.options, self.further = options, list(further)
        self.sessions = {session.name: session for session in map(parse_session, options.sessions)}
        self.file = Path(options.out) / "results.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        self.results = {(r["way"], r["session"], r["trials"], r["split"]): r for r in map(json.loads, lines)}

    def run_all(self, ways: Sequence[str]) -> None:
        """Every cell, split by split."""
        for split in range(self.options.splits):
            for session, trials in self.cells():
                for way in ways:
                    if (way, session.name, trials, split) not in self.results:
                        self.run(way, session, trials, split)

    def cells(self) -> Iterator[tuple[Session, int]]:
        """Session and number of training trials of each cell."""
        only = self.options.only.split(",") if self.options.only else list(self.sessions)
        return ((self.sessions[name], trials) for name in only for trials in self.sessions[name].trials)

    def run(self, way: str, session: Session, trials: int, split: int) -> None:
        """One run, and its line in the results."""
        begin, cpu = time.time(), time.process_time()
        score, steps = getattr(self, way.partition("_")[0])(session, trials, split, way)
        row = {"way": way, "session": session.name, "trials": trials, "split": split, **score, "steps": steps}
        row |= {"cpu_s": round(time.process_time() - cpu, 1), "seconds": round(time.time() - begin, 1)}
        print(time.strftime("%H:%M:%S"), json.dumps(row), flush=True)
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.results[way, session.name, trials, split] = row

    def alone(self, session: Session, trials: int, split: int, way: str) -> tuple[dict[str, float], int]:
        """A model of the session's own."""
        words = [*of_file(session, split, trials), *length(self.options.steps, trials, least_epochs=130)]
        return self.train(f"{way}/{session.name}_{trials}_{split}", words, split, "val/co_bps")

    def stitched(self, session: Session, trials: int, split: int, way: str) -> tuple[dict[str, float], int]:
        """A core that all sessions share, from its start."""
        words = self.of_sessions(self.sessions.values(), split, {session.name: trials})
        limits = {name: trials if name == session.name else None for name in self.sessions}
        words += length(self.options.stitched_steps, *(self.count(name, limits[name]) for name in self.sessions))
        return self.train(f"{way}/{session.name}_{trials}_{split}", words, split, f"val/co_bps/{session.name}")

    def adapted(self, session: Session, trials: int, split: int, way: str) -> tuple[dict[str, float], int]:
        """The core of a run on the other sessions; ``adapted_full`` and the like say how."""
        others = [other for other in self.sessions.values() if other != session]
        core = f"pretrained/without_{session.name}_{split}"
        if not is_finished(Path(self.options.out) / core):
            words = self.of_sessions(others, split, {})
            words += length(self.options.stitched_steps, *(self.count(other.name, None) for other in others))
            self.train(core, words, split, "val/co_bps")
        words = [f"init={self.options.out}/{core}", *of_file(session, split, trials)]
        words += [f"adapt={how}" for how in way.split("_")[1:]]
        words += length(self.options.adapt_steps, trials, least_epochs=100)
        return self.train(f"{way}/{session.name}_{trials}_{split}", words, split, "val/co_bps", model=False)

    def count(self, name: str, trials: int | None) -> int:
        """Training trials of a session."""
        return trials or max(self.sessions[name].trials)

    def of_sessions(self, sessions: Any, split: int, trials: dict[str, int]) -> list[str]:
        """Overrides for several sessions; the words for every run go to each of them."""
        words = ["data=sessions"]
        for session in sessions:
            own = of_file(session, split, trials.get(session.name))
            own += [word for word in self.further if is_of_session(word)]
            words += [f"+data@data.sessions.{session.name}=nwb"]
            words += [w.replace("data.", f"data.sessions.{session.name}.", 1) for w in own if w.startswith("data.")]
        return words

    def train(
        self, folder: str, words: list[str], split: int, score: str, *, model: bool = True
    ) -> tuple[dict[str, float], int]:
        """Train a model, and read its last and its best score."""
        from neuro_lightning.api.in_process import run_train
        from neuro_lightning.artifacts.metrics_csv import read_metrics

        out = str(Path(self.options.out).resolve())
        several = "data=sessions" in words
        kept = [word for word in self.further if model or not word.startswith("model")]
        further = [word for word in kept if not (several and is_of_session(word))]
        common = [word.format(out=out) for word in COMMON if not (several and word.startswith("data."))]
        where = [f"hydra.run.dir={out}/{folder}", f"seed={split}"]
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                run_train([*words, *common, *further, *where])
        except Exception:
            print(printed.getvalue())
            raise
        metrics = read_metrics(Path(out) / folder / "metrics.csv")
        values = [value for value in metrics[score] if math.isfinite(value)]
        return {"last": values[-1], "best": max(values)}, int(metrics["step"][-1]) + 1

    def print(self, ways: Sequence[str], score: str) -> None:
        """Mean and standard error over splits, and the paired differences from ``alone``."""
        print("\nsession  trials  " + "".join(f"{way:>18}" for way in ways) + "    difference from alone (s.e.)")
        for session, trials in self.cells():
            cells, differences = [], []
            for way in ways:
                found = [self.results.get((way, session.name, trials, s)) for s in range(self.options.splits)]
                known = [row[score] for row in found if row]
                cells.append(with_error(known) if known else "-")
                alone = [self.results.get(("alone", session.name, trials, s)) for s in range(self.options.splits)]
                pairs = [row[score] - base[score] for row, base in zip(found, alone, strict=True) if row and base]
                if way != "alone" and pairs:
                    differences.append(f"{way} {with_error(pairs, signed=True)} n={len(pairs)}")
            print(
                f"{session.name:<8} {trials:>6}  " + "".join(f"{c:>18}" for c in cells), "  " + "; ".join(differences)
            )


def is_finished(folder: Path) -> bool:
    """Whether a run's folder holds a finished run."""
    record = folder / "run.json"
    return record.is_file() and json.loads(record.read_text())["status"] == "finished"


def is_of_session(word: str) -> bool:
    """Whether an override is of each session, and not of all together."""
    return word.startswith("data.") and not word.startswith("data.sampling")


def of_file(session: Session, split: int, trials: int | None) -> list[str]:
    """Overrides for one file and split."""
    words = ["data=nwb", f"data.path={Path(session.path).resolve()}", f"data.seed={split}"]
    return words + ([f"data.train_trials={trials}", f"data.train_trials_seed={split}"] if trials else [])


def length(steps: int, *trials: int, least_epochs: int = 10) -> list[str]:
    """Overrides for a training of about so many steps, validated ten times."""
    epochs = max(least_epochs, round(steps / sum(math.ceil(n / 64) for n in trials)))
    return [f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={max(1, epochs // 10)}"]


def with_error(values: Sequence[float], *, signed: bool = False) -> str:
    """Mean and standard error as text."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):{'+' if signed else ''}.4f} ({error:.4f})"


def main() -> None:
    """Run what is missing, and print the table."""
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sessions", nargs="+", help="NAME=FILE:25,50,75")
    parser.add_argument("--out", default="runs/transfer")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", help="sessions to score, all by default")
    parser.add_argument("--score", choices=("best", "last"), default="best")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--steps", type=int, default=400, help="of a session alone")
    parser.add_argument("--stitched-steps", type=int, default=600)
    parser.add_argument("--adapt-steps", type=int, default=200)
    table = Table(parser.parse_args(words[:at]), words[at + 1 :])
    ways = table.options.ways.split(",")
    table.run_all(ways)
    table.print(ways, table.options.score)


if __name__ == "__main__":
    main()
