"""Runs for the tests: of a composed config in this process, or of ``train.py`` on the command line."""

import csv
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import forks
import torch
from hydra import compose, initialize_config_dir

from neuro_lightning import cli
from neuro_lightning.api.in_process import unchanged_process
from neuro_lightning.runs.members import train_run
from neuro_lightning.settings.quoting import override

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
TINY = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[tiny]", "data=tiny", "model=gru", "model.hidden=6",
    "trainer=cpu", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "logger=csv", "callbacks=minimal",
    "++trainer.enable_progress_bar=false", "baselines=null",
]  # fmt: skip
# no dropout, nothing hidden, double precision: what is left is arithmetic
PLAIN = [
    "model.masking=null", "model.readin.dropout=0", "model.layer_dropout=0", "model.readout.dropout=0",
    "++trainer.precision=64-true",
]  # fmt: skip


def here(folder: Path, *overrides: str, base: Sequence[str] = TINY) -> SimpleNamespace:
    """Train on the tiny recording in this process; the run's folder and score."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*base, override("paths.output_dir", folder), *overrides])
    return SimpleNamespace(folder=folder, score=train_run(cfg, overrides))


class Terminal(io.StringIO):
    """What stands in for a terminal."""

    def isatty(self) -> bool:
        return True


def command_here(
    folder: Path, *arguments: str, program: str = "train", terminal: bool = False
) -> subprocess.CompletedProcess:
    """``python train.py ...`` from ``folder`` as :func:`command` runs it, but in this process, which is seconds faster.

    What other processes print is not in its output; ``capfd`` has it.

    Args:
        folder: where it runs.
        arguments: the command line.
        program: ``train`` or ``predict``.
        terminal: whether it prints into what stands in for a terminal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out, err, status = Terminal() if terminal else io.StringIO(), io.StringIO(), 0
    argv = [str(ROOT / f"{program}.py"), *arguments]
    with unchanged_process(argv), chdir(folder), redirect_stdout(out), redirect_stderr(err):
        try:
            getattr(cli, program)()
        except SystemExit as error:
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
            status = 1 if isinstance(error.code, str) else error.code or 0
        except Exception:
            traceback.print_exc()
            status = 1
    return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())


def command(folder: Path, *arguments: str, timeout: float = 300, **how: bool) -> subprocess.CompletedProcess:
    """``python train.py ...`` from ``folder``; see :func:`start`."""
    with start(folder, *arguments, **how) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def start(folder: Path, *arguments: str, fresh_workers: bool = False) -> forks.Forked:
    """The same, not waited for.

    Args:
        folder: where it runs.
        arguments: the command line.
        fresh_workers: processes that it starts import everything themselves, as a user's do; else they are forked from
            a process that has, which saves seconds. See :mod:`forks`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)])}
    python = None if fresh_workers else forks.executable()
    return forks.start([str(ROOT / "train.py"), *arguments], folder, environment, python)


def checkpoint(folder: Path, name: str = "last.ckpt") -> dict:
    """What a checkpoint of the run holds."""
    return torch.load(folder / "checkpoints" / name, map_location="cpu", weights_only=True)


def record(folder: Path) -> dict:
    """The run's run.json."""
    return json.loads((folder / "run.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    """The run's metrics.csv, the text of every cell."""
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def same(a, b) -> bool:
    """Whether two nests of dictionaries, lists, tensors and numbers are equal bit for bit; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype and a.shape == b.shape and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)
