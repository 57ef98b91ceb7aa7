"""Progress of a training: one bar for all epochs in a terminal, a few lines elsewhere."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from typing import Any

import pytorch_lightning as pl

from neuro_lightning.artifacts.output import clear_status, print_progress, progress_width, terminal
from neuro_lightning.ranks import is_main_process

FIRST_LINE_S = 5.0  # after which the time left is told where there is no terminal
SILENCE_S = 30.0  # the least between two lines without a validation


class FitProgress(pl.Callback):
    """Shows the share of steps done, the training loss, the monitored score and its best, and the time left.

    Lightning's own bars start again in every epoch, and our epochs are many and short. Jobs that run side by side share
    one terminal and show nothing there. What a job of a sweep prints is kept in a file, its lines too; its bar is shown
    in the terminal while it trains.

    Args:
        monitor: the score shown.
        mode: ``max`` or ``min``, which of two scores is better.
        lines: how many lines are printed where there is no terminal.
    """

    def __init__(self, monitor: str = "val/co_bps", mode: str = "max", lines: int = 10) -> None:
        self.monitor, self.better, self.lines = monitor, max if mode == "max" else min, lines
        self._best: float | None = None
        self._bar: Any = None
        self._start, self._first_step, self._printed_part = 0.0, 0, 0
        self._printed: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._start, self._first_step = time.perf_counter(), trainer.global_step
        self._best, self._printed_part, self._printed = None, 0, None
        if _alone(trainer) and terminal().isatty():
            self._bar = _open_bar(total_steps(trainer), trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move on; where lines are printed, break a silence between validations that are rare."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step)
        now = time.perf_counter()
        if now - (self._printed or self._start) < FIRST_LINE_S or not self._prints_lines(trainer):
            return
        total = total_steps(trainer)
        done = (trainer.global_step - self._first_step) / (total - self._first_step) if total else 0
        silence = FIRST_LINE_S
        if self._printed is not None:  # longer than two of the lines are apart
            silence = max(SILENCE_S, 2 * (now - self._start) / max(done, 1e-9) / self.lines if total else 0)
        if now - (self._printed or self._start) > silence:
            self._print_line(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new score."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not is_main_process():
            return
        if not (_in_file() or _alone(trainer)):
            return
        score = _metric(trainer, self.monitor)
        if score is not None:
            self._best = score if self._best is None else self.better(self._best, score)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], scores=self.scores(trainer))
        if self._prints_lines(trainer) and self._part(trainer) > self._printed_part:
            self._print_line(trainer)

    def _prints_lines(self, trainer: pl.Trainer) -> bool:
        if _in_file():
            return is_main_process()
        return self._bar is None and _alone(trainer) and not sys.stdout.isatty()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar; what went wrong is printed below it."""
        self._close()

    def scores(self, trainer: pl.Trainer) -> str:
        """The loss, the score and its best, as text."""
        score = _metric(trainer, self.monitor)
        parts = {"train/loss": _metric(trainer, "train/loss"), self.monitor: score, "best": self._best}
        return "  ".join(f"{name} {value:.4f}" for name, value in parts.items() if value is not None)

    def _part(self, trainer: pl.Trainer) -> int:
        """How many of the lines' parts of the training are done."""
        total = total_steps(trainer)
        return int(trainer.global_step * self.lines / total) if total else trainer.global_step

    def _print_line(self, trainer: pl.Trainer) -> None:
        """Print a line: how much is done, the scores, the time spent and left."""
        total, step = total_steps(trainer), trainer.global_step
        self._printed_part, self._printed = self._part(trainer), time.perf_counter()
        spent = time.perf_counter() - self._start
        left = spent / max(step - self._first_step, 1) * (total - step) if total else None
        done = f"{100 * step / total:3.0f} %" if total else f"step {step}"
        times = clock(spent) + (f", {clock(left)} left" if left else "")
        scores = self.scores(trainer)
        if len(f"{done}  {scores}  {times}") > progress_width() and scores.startswith("train/loss"):
            scores = scores.partition("  ")[2]
        print_progress("  ".join(part for part in (done, scores, times) if part))

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def total_steps(trainer: pl.Trainer) -> int | None:
    """The steps of the whole training; None where it has no end."""
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and math.isfinite(trainer.num_training_batches):
        whole = getattr(trainer.datamodule, "steps_per_epoch", None)  # where a batch holds several steps
        each = whole or -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        limits.append(trainer.max_epochs * each)
    return min(limits, default=None)


def clock(seconds: float) -> str:
    """``1:05`` for 65 seconds, ``2:00:00`` for two hours."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _in_file() -> bool:
    return terminal() is not sys.stdout


def _alone(trainer: pl.Trainer) -> bool:
    return is_main_process() and multiprocessing.current_process().name == "MainProcess"


def _metric(trainer: pl.Trainer, name: str) -> float | None:
    value = trainer.callback_metrics.get(name)
    return None if value is None else float(value)


def _open_bar(total: int | None, completed: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    in_file = _in_file()
    clear_status()
    bar = Progress(
        TextColumn(getattr(sys.stdout, "title", "") or "training"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[scores]}", style="cyan"),
        refresh_per_second=4,
        console=Console(file=terminal()) if in_file else None,
        redirect_stdout=not in_file,
        transient=in_file,  # a line says how the job ended
    )
    bar.add_task("training", total=total, completed=completed, scores="")
    bar.start()
    return bar
