"""How long a bin takes in a stream: half of the bins, 99 %, 99.9 %, and the longest; and whether memory grows.

    python benchmarks/latency.py                                # 10,000 bins of each model, 150 neurons
    python benchmarks/latency.py --bins 100000 --only gru,ndt --neurons 200
    python benchmarks/latency.py --run RUN                      # a model that was trained
    python benchmarks/latency.py --onnx --only gru,ndt          # the exported file, in onnxruntime

One thread. Each bin is timed twice: by the wall clock, which is what an experiment waits for, and by the thread's
processor time, which other processes do not lengthen: of a busy machine believe the latter. Python's garbage collector
runs as it does in a program of yours; with ``--freeze`` what there is before the first bin is set aside and the
collector is turned off, as in a program that calls ``gc.freeze(); gc.disable()``. Memory is the resident set after a
tenth of the bins and after all of them.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hydra import compose, initialize_config_dir

import neuro_lightning as nl
from neuro_lightning.contracts import DataSpec
from neuro_lightning.export.files import write
from neuro_lightning.export.function import step_function
from neuro_lightning.models.plds import PLDSNet
from neuro_lightning.models.regressed_latents import RegressedLatentsNet
from neuro_lightning.realtime.stream import Stream, check_streams
from neuro_lightning.settings.config import instantiate

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

ROOT = Path(__file__).resolve().parents[1]
CAUSAL, CAUSAL_ATTENTION = ["model.bidirectional=false"], ["model.attention.context_forward_ms=0"]
MODELS = {
    "gru": CAUSAL, "gru_smoothed": CAUSAL, "ndt": CAUSAL_ATTENTION, "stndt": CAUSAL_ATTENTION,
    "smoothing": ["model.causal=true"], "plds": ["model.causal=true"], "gpfa": ["model.causal=true"], "mean": [],
}  # fmt: skip
SHARES = (50, 99, 99.9, 100)


def untrained(model: str, neurons: int, bin_ms: int, trial: int) -> Stream:
    """A stream of a model as it is configured, with random weights: they take as long as others."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[f"model={model}", *MODELS[model]])
    spec = DataSpec("none", n_in=neurons, n_bins=trial, bin_ms=bin_ms, mean_rates=(0.2,) * neurons)
    torch.manual_seed(0)
    net = instantiate(cfg.model, spec=spec).net
    if isinstance(net, RegressedLatentsNet):
        net.loadings.normal_().mul_(0.1)
    if isinstance(net, PLDSNet):
        net.noise.mul_(0.1)
    return Stream(net, spec)


class OnnxStream:
    """The exported network of a stream, called as the stream is."""

    def __init__(self, stream: Stream, folder: Path) -> None:
        self.spec, self.longest = stream.spec, stream.longest
        function = step_function(check_streams(stream.network.requires_grad_(False), stream.spec), stream.spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(write(function, "onnx", folder / "step", self.longest), options)
        given = {name: value.numpy() for name, value in function.inputs.items()}
        self.start = {name: given[name] for name in given if name in {one.name for one in self.session.get_inputs()}}
        self.parts = [name.replace("next.", "state.", 1) for name in function.outputs]
        self.reset()

    def reset(self) -> None:
        """Begin a trial."""
        self.given = dict(self.start)

    def step(self, counts: np.ndarray) -> np.ndarray:
        """Rates of the next bin."""
        self.given["counts"] = counts[None]
        said = self.session.run(None, self.given)
        self.given |= {name: value for name, value in zip(self.parts, said, strict=True) if name in self.start}
        return said[0]


def resident_mb() -> float:
    """The process's resident set; NaN where /proc does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
    except OSError:
        return float("nan")


def measure(stream: Stream | OnnxStream, bins: int, trial: int) -> tuple[np.ndarray, list[float]]:
    """Seconds of each bin (2, bins), by the wall clock and of processor time; and the memory twice, in MB."""
    counts = np.random.default_rng(0).poisson(0.2, (997, stream.spec.n_in)).astype(np.float32)
    for each in counts[:50]:
        stream.step(each)
    stream.reset()
    times, memory = np.full((2, bins), np.nan), []  # written now, or the memory of it would seem to grow
    for k in range(bins):
        if k % trial == 0:
            stream.reset()
        wall, own = time.perf_counter(), time.thread_time()
        stream.step(counts[k % len(counts)])
        times[:, k] = time.perf_counter() - wall, time.thread_time() - own
        if k + 1 in (max(1, bins // 10), bins):
            memory.append(resident_mb())
    return times, memory


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, default=10_000)
    parser.add_argument("--neurons", type=int, default=150)
    parser.add_argument("--bin-ms", type=int, default=20)
    parser.add_argument("--trial", type=int, default=100, help="bins of a trial")
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--run", help="a run's folder, in place of the models")
    parser.add_argument("--onnx", action="store_true", help="the exported network in onnxruntime")
    parser.add_argument("--freeze", action="store_true", help="turn Python's garbage collector off")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{'ms a bin':<14}{'clock':<10}" + "".join(f"{f'p{s:g}' if s < 100 else 'worst':>9}" for s in SHARES), "  MB")
    for name in [chosen.run] if chosen.run else chosen.only.split(","):
        stream = nl.stream(name) if chosen.run else untrained(name, chosen.neurons, chosen.bin_ms, chosen.trial)
        if chosen.onnx:
            with TemporaryDirectory() as folder:
                stream = OnnxStream(stream, Path(folder))
        trial = min(chosen.trial, stream.longest or chosen.trial)
        if chosen.freeze:
            gc.collect()
            gc.freeze()
            gc.disable()
        times, (early, late) = measure(stream, chosen.bins, trial)
        gc.enable()
        for clock, values in zip(("wall", "own"), times, strict=True):
            shown = "".join(f"{value:9.3f}" for value in 1000 * np.percentile(values, SHARES))
            print(f"{Path(name).name:<14}{clock:<10}{shown}  {early:.1f} -> {late:.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
