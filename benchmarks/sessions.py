"""What many sessions in one run cost: the time of a training step beside one session of the same size, and memory.

    python benchmarks/sessions.py                       # both; twenty minutes on two busy cores
    python benchmarks/sessions.py --only memory --sessions 30 --trials 500
    python benchmarks/sessions.py --only time --threads 1 --cpu-time

Sessions are NWB files of Poisson spikes, written in a moment and served by ``data=nwb data.path=FOLDER``.

* Time: the GRU on 30 sessions of 100 trials, and on one session of 3000. Epochs of the two trainings alternate in one
  process, so that a noisy machine disturbs both alike, and count from the first batch's loading to the last step. The
  figure is the median of the ratios, at most 1.15. Both have as many batches, all of 25 trials. On a very busy machine
  measure processor time instead.
* Memory: the largest resident set of ``train.py`` on 30 sessions of 500 trials, 150 bins and 300 units, in a process
  of its own, cold (the files are read and cached) and warm (the cached arrays are mapped), at most 2 GB. Mapped pages
  count in full, though the system can drop them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from neuro_lightning.callbacks.seeds import StepSeed
from neuro_lightning.data.nlb.params import NLB_DATASETS
from neuro_lightning.data.nlb.tasks.common import Session
from neuro_lightning.data.nlb.twin_file import Units, write_nwb
from neuro_lightning.runs.sessions import with_sessions
from neuro_lightning.runs.train import quiet_libraries
from neuro_lightning.settings.config import instantiate

ROOT = Path(__file__).resolve().parents[1]
UNITS, BINS, BIN_MS, RATE_HZ = 300, 150, 5, 5.0
TRIAL_S = 1.0
BATCH = 25
MOST_GB, MOST_RATIO = 2.0, 1.15
CUT = [f"data.window_ms=[0,{BINS * BIN_MS}]", f"data.bin_ms={BIN_MS}", "data.least_steps=null"]


def write_sessions(folder: Path, n_sessions: int, n_trials: int) -> Path:
    """Write NWB files of Poisson spikes into a folder."""
    folder.mkdir(parents=True)
    start = np.arange(n_trials) * TRIAL_S
    for number in range(n_sessions):
        rng, end = np.random.default_rng(number), n_trials * TRIAL_S
        times = [np.sort(rng.uniform(0, end, rng.poisson(RATE_HZ * end))) for _ in range(UNITS)]
        ids = 1010 + 10 * (np.arange(UNITS) % 96) + np.arange(UNITS) // 96  # array, electrode, unit
        units = Units(ids, np.zeros(UNITS, bool), times, np.array([[0.0, end]]))
        trials = Session({"start_time": start, "stop_time": start + TRIAL_S}, [])
        write_nwb(folder / f"session_{number:02}.nwb", NLB_DATASETS["mc_maze"], units, trials, "simulated", "simulated")
    return folder


# ---- time


class Turns(pl.Callback):
    """Times each epoch of a training, and lets another one train an epoch after it."""

    def __init__(self, data: Path, cache: Path, now: Callable[[], float], other: Turns | None = None) -> None:
        words = [f"data.path={data}", f"paths.cache={cache}", f"data.batch_size={BATCH}", *CUT]
        with initialize_config_dir(str(ROOT / "conf")):
            config = with_sessions(
                compose("train", overrides=["model=gru", "data=nwb", "scheduler@model.scheduler=none", *words])
            )
        self.data = instantiate(config.data)
        self.model = instantiate(config.model, spec=self.data.spec)
        self.now, self.other, self.times = now, other, []
        self.trainer = pl.Trainer(
            accelerator="cpu", max_epochs=0, callbacks=[StepSeed(0), self], logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, limit_val_batches=0, gradient_clip_val=1.0,
            use_distributed_sampler=False, deterministic=True,
        )  # fmt: skip

    def train(self, epochs: int) -> None:
        """Train so many epochs more."""
        self.trainer.fit_loop.max_epochs += epochs
        self.trainer.fit(self.model, self.data)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the watch."""
        self.start = self.now()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        self.times.append(1000 * (self.now() - self.start) / trainer.num_training_batches)
        if self.other is not None:
            self.other.train(1)


def compare_time(folder: Path, args: argparse.Namespace) -> None:
    """Print the time of a step on several sessions and on one with as many trials."""
    now = time.process_time if args.cpu_time else time.perf_counter
    sessions, trials = args.sessions, 100
    several, one = folder / "several", folder / "one"
    write_sessions(several, sessions, trials)
    write_sessions(one, 1, sessions * trials)
    torch.set_num_threads(args.threads)
    single = Turns(next(one.iterdir()), folder / "cache", now)
    stitched = Turns(several, folder / "cache", now, single)
    stitched.train(args.epochs + 2)
    ratios = sorted(a / b for a, b in zip(stitched.times[2:], single.times[2:], strict=True))
    ms = [statistics.median(turns.times[2:]) for turns in (stitched, single)]
    ratio = statistics.median(ratios)
    print(f"{sessions} sessions of {trials} trials {ms[0]:.1f} ms a step, one of {sessions * trials} {ms[1]:.1f} ms "
          f"({args.threads} threads, {BATCH} trials each)")  # fmt: skip
    print(f"ratio epoch by epoch {ratios[0]:.3f} to {ratios[-1]:.3f}, median {ratio:.3f}: "
          f"{'within' if ratio <= MOST_RATIO else 'ABOVE'} {MOST_RATIO}", flush=True)  # fmt: skip


# ---- memory


def measure_memory(folder: Path, args: argparse.Namespace) -> None:
    """Print the peak memory of two runs of ``train.py``, the first of which fills the cache."""
    files = write_sessions(folder / "sessions", args.sessions, args.trials)
    words = ["model=gru", "data=nwb", f"data.path={files}", f"paths.cache={folder / 'cache'}", "logger=csv", *CUT]
    words += ["trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "baselines=null"]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    for name in ("cold", "warm"):
        start = time.perf_counter()
        with open(folder / f"{name}.txt", "w+") as output:
            child = subprocess.Popen(
                [sys.executable, ROOT / "train.py", *words, f"paths.output_dir={folder / name}"],
                stdout=output, stderr=output, env=environment, cwd=folder,
            )  # fmt: skip
            _, status, usage = os.wait4(child.pid, 0)
            output.seek(0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                sys.exit(f"train.py {' '.join(words)} failed:\n{output.read()[-2000:]}")
        seconds, peak = time.perf_counter() - start, usage.ru_maxrss / 1e6
        print(f"{args.sessions} sessions of {args.trials} trials, {name}: {seconds:.0f} s, {peak:.2f} GB at most: "
              f"{'within' if peak <= MOST_GB else 'ABOVE'} {MOST_GB} GB", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["time", "memory"])
    parser.add_argument("--sessions", type=int, default=30, help="in one run")
    parser.add_argument("--trials", type=int, default=500, help="of a session, where memory is measured")
    parser.add_argument("--epochs", type=int, default=6, help="of the time's measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="processor time in place of the clock's")
    args = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "time":  # first: a child's peak counts what its parent has at the fork
            measure_memory(Path(folder), args)
        if args.only != "memory":
            compare_time(Path(folder), args)


if __name__ == "__main__":
    main()
