"""What a sweep adds to each of its jobs, in Hydra's basic launcher: 20 jobs of about a second, logger=csv.

    python benchmarks/sweep_overhead.py [--jobs 20] [--epochs 5] [--profile] [overrides ...]

The same jobs are run by ``train.py -m seed=range(20)`` and by a plain loop over ``run.train`` in one process. Of each
job the training itself (``Trainer.fit``, figures included), the whole of ``run.train``, and the time from its
beginning to the next job's are taken, wall clock and processor time of all threads; the figures are medians, without
the first job, which pays for imports. On a busy machine the processor time is the one to read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
JOB = [
    "data=lorenz",
    "data.sizes.n_train=100",
    "data.sizes.n_val=40",
    "data.sizes.n_test=40",
    "model=gru",
    "logger=csv",
    "trainer=cpu",
]
PARTS = ("fit", "train", "period")
COLUMNS, WIDTHS = ("training", "run.train", "to the next", "added to the training"), (10, 11, 13, 24)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Watch:
    """Takes the time of every call of a function."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {}

    def over(self, name: str, function: Callable) -> Callable:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                self.spans.setdefault(name, []).append((start, now()))

        return timed

    def medians(self, clock: int) -> dict[str, float]:
        """Seconds of a job's training, of all of it, and until the next one begins."""
        found = {name: [end[clock] - start[clock] for start, end in spans[1:]] for name, spans in self.spans.items()}
        starts = [start[clock] for start, _ in self.spans["train"]]
        found["period"] = [after - before for before, after in itertools.pairwise(starts[1:])]
        return {name: statistics.median(found[name]) for name in PARTS}


def child(how: str, seeds: int, overrides: Sequence[str], profile: bool) -> None:
    """Run the jobs in this process and print their times."""
    import pytorch_lightning as pl

    from neuro_lightning import cli
    from neuro_lightning.runs import train as run

    watch = Watch()
    pl.Trainer.fit = watch.over("fit", pl.Trainer.fit)
    run.train = watch.over("train", run.train)
    jobs = sweep if how == "sweep" else loop
    if profile:
        import cProfile
        import pstats

        with cProfile.Profile(time.process_time) as profiler:
            jobs(cli, run, seeds, overrides)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(90)
    else:
        jobs(cli, run, seeds, overrides)
    print("\n" + json.dumps({"wall": watch.medians(0), "processor": watch.medians(1)}))


def sweep(cli: Any, run: Any, seeds: int, overrides: Sequence[str]) -> None:
    sys.argv = [str(ROOT / "train.py"), "-m", *overrides, f"seed=range({seeds})", "hydra.sweep.dir=sweep"]
    cli.train()


def loop(cli: Any, run: Any, seeds: int, overrides: Sequence[str]) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf")):
        configs = [compose("train", [*overrides, f"seed={s}", f"paths.output_dir=loop/{s}"]) for s in range(seeds)]
    for config in configs:
        run.train(config)


def measure(how: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    command = [sys.executable, __file__, *options.overrides, "--jobs", str(options.jobs), "--as", how]
    command += ["--epochs", str(options.epochs), *(["--profile"] if options.profile else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
            stderr=None if options.profile else subprocess.PIPE,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=JOB, help=f"of a job: {' '.join(JOB)}")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=5, help="so that a job trains for about a second")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--as", dest="how", choices=["sweep", "loop"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.how:
        length = [f"trainer.max_epochs={options.epochs}"]
        return child(options.how, options.jobs, [*options.overrides, *length], options.profile)
    print(f"{options.jobs} jobs, seconds for each (median)\n")
    print(f"{'':<22}" + "".join(f"{c:>{w}}" for c, w in zip(COLUMNS, WIDTHS, strict=True)))
    for how in ("loop", "sweep"):
        for clock, parts in measure(how, options).items():
            times = [*(parts[name] for name in PARTS), parts["period"] - parts["fit"]]
            print(f"{how + ', ' + clock:<22}" + "".join(f"{t:>{w}.3f}" for t, w in zip(times, WIDTHS, strict=True)))


if __name__ == "__main__":
    main()
