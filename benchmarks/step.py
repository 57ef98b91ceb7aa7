"""A training step of this version against the same step of another version, and whether both learn the same bits.

    git worktree add ../before COMMIT
    python benchmarks/step.py ../before [--models gru ndt] [--steps 20]

The shape is that of experiment=mc_maze_430 (batches of 64 trials, 140 bins of 5 ms, 103 held-in and 34 held-out
neurons), the models with that experiment's settings. A step is masking, network, loss, gradient, clipping and
optimizer. Each version runs in a process of its own, with one thread; they take their steps in turns, so that a busy
machine disturbs both alike. Times are processor time, the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ["gru", "gru_smoothed", "neural_roberta", "ndt", "stndt", "lfads"]
BATCH, BINS, N_IN, N_OUT, CLIP = 64, 140, 103, 34, 1.0


def serve(root: str, model: str) -> None:
    """Take a step for each line that comes in, and write its time and what the weights are then."""
    sys.path.insert(0, root)
    import torch
    from hydra import compose, initialize_config_dir

    from neuro_lightning.contracts import DataSpec, full_mask
    from neuro_lightning.settings.config import instantiate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rates = (0.03,) * (N_IN + N_OUT)
    spec = DataSpec("shape", n_in=N_IN, n_out=N_OUT, n_bins=BINS, n_forward=0, bin_ms=5, mean_rates=rates)
    with initialize_config_dir(f"{root}/conf"):
        words = ["experiment=mc_maze_430", f"model={model}", "scheduler@model.scheduler=none"]
        config = compose("train", overrides=words)
    module = instantiate(config.model, spec=spec).train()
    optimizer = instantiate(config.model.optimizer)(module.parameters())
    counts = torch.poisson(torch.full((BATCH, BINS, N_IN + N_OUT), 0.03)).to(torch.uint8)
    batch = {
        "inputs": counts[..., :N_IN].contiguous(),
        "targets": counts,
        "mask": full_mask(counts.shape),
        "index": torch.arange(BATCH),
    }
    for number, _ in enumerate(sys.stdin):
        start = time.process_time()
        loss = module.training_step(batch, number)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        taken = time.process_time() - start
        weights = b"".join(value.detach().numpy().tobytes() for value in module.parameters())
        print("step", taken, hashlib.sha256(weights).hexdigest(), flush=True)


def start(root: Path, model: str) -> subprocess.Popen:
    """A process that serves steps of one version."""
    words = [sys.executable, __file__, str(root), "--serve", model]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def step_of(process: subprocess.Popen) -> tuple[float, str]:
    """The milliseconds of the next step, and a hash of the weights after it."""
    process.stdin.write("\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("step "):
            _, taken, weights = line.split()
            return 1000 * float(taken), weights
    sys.exit("error: a step failed; see the same command with --serve MODEL")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other version's tree")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--serve", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(str(options.before.resolve()), options.serve)
    print("| model | before, ms | now, ms | ratio (quartiles of the turns) | same weights |\n|---|---|---|---|---|")
    for model in options.models:
        versions = [start(root, model) for root in (options.before.resolve(), ROOT)]
        turns = [[step_of(process) for process in versions] for _ in range(options.steps + 3)]
        for process in versions:
            process.stdin.close()
            process.wait()
        same = all(before[1] == now[1] for before, now in turns)
        times = [[taken for taken, _ in turn] for turn in turns[3:]]
        before, now = (statistics.median(taken) for taken in zip(*times, strict=True))
        low, _, high = statistics.quantiles(b / a for a, b in times)
        print(
            f"| {model} | {before:.0f} | {now:.0f} | {now / before:.2f} ({low:.2f} to {high:.2f}) | {same} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
