"""Submissions to IBL BrainWideBench, TS2: log-rates of every test window, in the benchmark's own files.

Windows of a second begin at every bin of 20 ms. They are cut, predicted and stored batch by batch: in memory are the
session's counts in bins, one batch, and what is written, in half precision. Each window is a pass of the network of its
own, over its history and its second. A causal network with a history is the exception, in co-smoothing: what it says of
a bin depends on no later one, so that a pass over the longest window gives all windows that begin in its history's
second half. Each of those has at least half of the history. Nothing is approximated in either case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, rates_of, run_network
from neuro_lightning.data.bwb.reader import BenchSession, window_trials
from neuro_lightning.data.bwb.rules import BIN_MS, BUILD, FORECAST_BINS, SEEDS, VERSION, WINDOW_BINS
from neuro_lightning.data.describe import make_dataset
from neuro_lightning.errors import SubmissionError
from neuro_lightning.functional.likelihood import ZERO_RATE
from neuro_lightning.metrics.bits import BitsPerSpike
from neuro_lightning.metrics.deviance import PoissonD2
from neuro_lightning.nn.stepping import Stepwise

TASK = "ts2-{}"
HALF_COST = 1e-3
"""The share of the score that half precision may cost without a word."""


@dataclass(frozen=True)
class Written:
    """A session's predictions as they were written.

    Attributes:
        path: the file.
        n_windows: test windows.
        scores: ``poisson_d2`` and ``co_bps`` or ``fp_bps`` of the numbers in the file.
        half_cost: by how much D2 of the full precision exceeds that of the file.
    """

    path: Path
    n_windows: int
    scores: dict[str, float]
    half_cost: float


def import_benchmark() -> ModuleType:
    """The benchmark's package ``ibl_bwb_eval``.

    Raises:
        SubmissionError: it is not installed.
    """
    try:
        import ibl_bwb_eval.entity_ids
        import ibl_bwb_eval.predictions
    except ImportError as error:
        raise SubmissionError(
            f"a submission is written by the benchmark's package ({error}): pip install safetensors, then "
            "pip install --no-deps ibl-bwb-eval"
        ) from None
    return ibl_bwb_eval


def check_seed(seed: int) -> str | None:
    """A line on a seed that the benchmark's rule leaves out; None for one of its own."""
    if seed in SEEDS:
        return None
    what = "the benchmark's seed for searches" if seed == 42 else "none of the benchmark's seeds"
    return f"seed {seed} is {what}: its numbers are of {SEEDS[0]} to {SEEDS[-1]}; train with seed={SEEDS[0]}"


@dataclass(frozen=True)
class WindowBatch:
    """Test windows, and the passes of a network that hold them.

    Attributes:
        starts: (W,) of the windows, s.
        batch: of P passes, as a model is evaluated on them.
        passes: (W,) in which of them each window lies.
        first: (W,) the bin of it that a window begins with.
    """

    starts: np.ndarray
    batch: Batch
    passes: np.ndarray
    first: np.ndarray

    def scored(self, values: Tensor, bench: BenchSession, task: str) -> Tensor:
        """(W, 50, held-out units) or (W, 5, N) of values (P, L, N): what the benchmark scores."""
        if task == "co_smoothing":
            values = values[:, :, torch.from_numpy(bench.withheld["test"])]
        skipped = WINDOW_BINS - FORECAST_BINS if task == "forecasting" else 0
        bins = self.first[:, None] + np.arange(skipped, WINDOW_BINS)
        return values[torch.from_numpy(self.passes)[:, None], torch.from_numpy(bins)]


def history_bins(spec: DataSpec) -> int:
    """How many bins before a window a model sees."""
    return spec.n_bins + spec.n_forward - WINDOW_BINS


def windows_of_a_pass(nets: Sequence[nn.Module], task: str, spec: DataSpec) -> int:
    """How many windows, each a bin after the other, one pass of networks may hold: see the module's docstring."""
    causal = all(isinstance(net, Stepwise) and not net.looks_ahead and not net.lag for net in nets)
    return 1 + history_bins(spec) // 2 if causal and task == "co_smoothing" else 1


def test_batches(bench: BenchSession, task: str, spec: DataSpec, size: int, shared: int = 1) -> Iterator[WindowBatch]:
    """The test windows, batch by batch.

    Args:
        bench: the session.
        task: ``co_smoothing`` or ``forecasting``.
        spec: the description of the data.
        size: windows in a batch.
        shared: windows in a pass, at most.
    """
    history, n_passes = history_bins(spec), max(1, size // shared)
    for starts, stretch, first in bench.cut("test", 1, history):
        passes = np.unique((first - first[0]) // shared, return_inverse=True)[1]
        begin = first[np.append(np.flatnonzero(np.diff(passes)), len(first) - 1)]  # that of a pass's last window
        for low in range(0, len(begin), n_passes):
            chosen = begin[low : low + n_passes]
            counts, known = (cut(chosen, history + WINDOW_BINS) for cut in (stretch.windows, stretch.known_in))
            trials = window_trials(counts, known, task, bench.withheld["test"])
            batch = make_dataset(trials, spec, evaluate=True)[list(range(len(trials)))]
            own = (passes >= low) & (passes < low + n_passes)
            yield WindowBatch(starts[own], batch, passes[own] - low, first[own] + history - begin[passes[own]])


def write_session(
    nets: Sequence[nn.Module],
    bench: BenchSession,
    task: str,
    spec: DataSpec,
    base: Path,
    *,
    label: str,
    seed: int,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    ground_truth: Path | None = None,
) -> Written:
    """Predict a session's test windows, write them with the benchmark's own writer, and check the file.

    Args:
        nets: a network, or several whose mean rate is predicted.
        bench: the session.
        task: ``co_smoothing`` or ``forecasting``.
        spec: the description of the data.
        base: the folder ``predictions``.
        label: of the submission.
        seed: of the network.
        device: where the networks run.
        batch_size: windows at a time.
        ground_truth: a folder for what was observed, as the benchmark's scorer reads it; None writes none.

    Raises:
        SubmissionError: the package is not installed, a prediction is not finite, or the file is not as it should be.
    """
    package = import_benchmark()
    ids = bench.source.unit_ids if task == "forecasting" else bench.source.unit_ids[bench.withheld["test"]]
    exact, stored, bits = PoissonD2(len(ids)), PoissonD2(len(ids)), BitsPerSpike(len(ids))
    predictions, times, targets = [], [], []
    nets = [net.to(device).eval() for net in nets]
    for some in test_batches(bench, task, spec, batch_size, windows_of_a_pass(nets, task, spec)):
        rates = torch.stack([rates_of(run_network(net, some.batch, device)) for net in nets]).mean(0)  # type: ignore[arg-type]
        log_rates = some.scored(rates, bench, task).clamp_min(ZERO_RATE).log()
        half = log_rates.half()
        if not bool(half.isfinite().all()):
            raise SubmissionError(f"session {bench.session}: predicted rates are not finite in half precision")
        counts = some.scored(some.batch["targets"], bench, task)
        everything = torch.ones_like(counts, dtype=torch.bool)
        exact.update(log_rates.exp(), counts, everything)
        for metric in (stored, bits):
            metric.update(half.float().exp(), counts, everything)
        predictions.append(half)
        times.append(torch.from_numpy(some.starts + bench.source.absolute_start))
        if ground_truth is not None:
            targets.append(counts)
    stamps = torch.cat(times)
    path = prediction_file(base, label, task, bench.session, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=path.parent) as part:  # the writer does not write in one piece
        writer = package.predictions.PredictionsWriter(
            True, part, TASK.format(task), seed, label=label,
            metadata={
                "recording_id": bench.session, "unit_filtering": BUILD, "dataset_version": VERSION,
                "context_window": (history_bins(spec) + WINDOW_BINS) * BIN_MS / 1000, "bin_size": BIN_MS / 1000,
            },
            path_fn=lambda folder, values: folder / values["recording_id"],
        )  # fmt: skip
        for values in predictions:
            writer.add(dtype=torch.float16, predictions=values)
        writer.set(dtype=torch.float64, window_timestamps=stamps)
        writer.set(unit_ids=package.entity_ids.encode_entity_ids(ids))
        writer.save()
        written = prediction_file(Path(part), label, task, bench.session, seed)
        shape = (len(stamps), FORECAST_BINS if task == "forecasting" else WINDOW_BINS, len(ids))
        check_file(written, shape, stamps, ids)
        os.replace(written, path)
    if ground_truth is not None:
        _write_ground_truth(ground_truth / TASK.format(task) / bench.session, torch.cat(targets), stamps)
    name = "fp_bps" if task == "forecasting" else "co_bps"
    scores = {"poisson_d2": float(stored.compute()), name: float(bits.compute())}
    return Written(path, len(stamps), scores, float(exact.compute()) - scores["poisson_d2"])


def prediction_file(base: Path, label: str, task: str, session: str, seed: int) -> Path:
    """Where a session's predictions lie in the folder ``predictions``."""
    return base / label / TASK.format(task) / session / f"seed_{seed}.safetensors"


def check_file(path: Path, shape: tuple[int, ...], stamps: Tensor, ids: np.ndarray) -> None:
    """Read a written file back: it holds these windows and units, and finite numbers.

    Raises:
        SubmissionError: it does not.
    """
    from safetensors.torch import load_file

    package, found = import_benchmark(), load_file(str(path))
    predictions = found["predictions"]
    if tuple(predictions.shape) != shape or predictions.dtype != torch.float16 or not predictions.isfinite().all():
        raise SubmissionError(f"{path} holds {tuple(predictions.shape)} {predictions.dtype}, not finite halves {shape}")
    if found["window_timestamps"].dtype != torch.float64 or not torch.equal(found["window_timestamps"], stamps):
        raise SubmissionError(f"{path}: its window_timestamps are not those of the windows")
    if package.entity_ids.decode_entity_ids(found["unit_ids"]).tolist() != [str(unit) for unit in ids]:
        raise SubmissionError(f"{path}: its unit_ids are not those of the session")


def _write_ground_truth(folder: Path, targets: Tensor, stamps: Tensor) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({"targets": targets.float(), "window_timestamps": stamps}, folder / "ground_truth.safetensors")
