"""A training step of K networks as one stack against a step of one of them; with --trainings, whole trainings.

    python benchmarks/stacked.py [--model gru --members 8] [--batch 64] [--steps 8] [--threads 2] [--cpu-time]
    python benchmarks/stacked.py --model ndt --members 16
    python benchmarks/stacked.py --trainings --members 4 [--words data=lorenz trainer.max_epochs=20]

The shape is that of experiment=mc_maze_430 (140 bins of 5 ms, 103 held-in and 34 held-out neurons, batches of 64), the
model with that experiment's settings. A step is masking, network, loss, gradient, clipping and optimizer; masks, loss
and clipping are each member's own. Before anything is timed, the loss of each member without dropout and masks is
compared with that of its network alone. Steps of both alternate in one process: the figure is the ratio of the medians.
On a busy machine measure processor time. With --batch 2 a step is nearly all calls, as on a GPU, not arithmetic.

--trainings trains model.members=K, and the same K seeds one after another, in this process: data, training, validation,
checkpoints and final scores. The figure is the ratio of the times.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from neuro_lightning.contracts import DataSpec, full_mask
from neuro_lightning.losses import poisson
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.nn.stack import Stack
from neuro_lightning.nn.stacked_adam import clip_members
from neuro_lightning.runs.members import train_run
from neuro_lightning.settings.config import instantiate

CONF = str(Path(__file__).resolve().parents[1] / "conf")
BINS, N_IN, N_OUT, CLIP = 140, 103, 34, 1.0
SPEC = DataSpec(
    "shape", n_in=N_IN, n_out=N_OUT, n_bins=BINS, n_forward=0, bin_ms=5, mean_rates=(0.03,) * (N_IN + N_OUT)
)


def masked_loss(model: PopulationModule, log_rates: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    mask = full_mask(targets.shape).clone()
    mask[:, :, :N_IN] &= hidden
    total, count = poisson({"log_rates": log_rates}, targets, mask, SPEC)
    return total / count


def step_of_one(model: PopulationModule, optimizer: torch.optim.Optimizer, targets: Tensor) -> None:
    shown, hidden = model.masking(targets[..., :N_IN])
    optimizer.zero_grad()
    masked_loss(model, model.net(shown)["log_rates"], targets, hidden).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()


def step_of_all(
    models: list[PopulationModule], stack: Stack, optimizer: torch.optim.Optimizer, targets: Tensor
) -> None:
    drawn = [model.masking(batch[..., :N_IN]) for model, batch in zip(models, targets, strict=True)]
    optimizer.zero_grad()
    log_rates = stack(torch.stack([shown for shown, _ in drawn]))["log_rates"].unbind()
    parts = zip(models, log_rates, targets, drawn, strict=True)
    sum(masked_loss(model, rates, batch, hidden) for model, rates, batch, (_, hidden) in parts).backward()
    clip_members(stack.parameters(), CLIP)
    optimizer.step()


def whole_trainings(model: str, members: int, words: list[str], now: Callable[[], float]) -> None:
    """Time ``model.members=K`` and K single runs, and print the ratio."""
    plain = ["trainer=cpu", "logger=csv", "callbacks=minimal", "baselines=null", f"model={model}", *words]

    def run(folder: str, *own: str) -> None:
        with initialize_config_dir(CONF), TemporaryDirectory() as at, redirect_stdout(io.StringIO()):
            config = compose("train", overrides=[*plain, f"paths.output_dir={at}/{folder}", *own])
            train_run(config, [])

    run("first", "trainer.max_epochs=1")  # simulates or reads, and imports
    stacked = timed(lambda: run("stacked", f"model.members={members}"), now)
    alone = [timed(lambda seed=seed: run("alone", f"seed={seed}"), now) for seed in range(members)]
    print(f"{members} as one {stacked:.1f} s, one after another {sum(alone):.1f} s ({torch.get_num_threads()} threads)")
    print(f"{stacked / sum(alone):.2f} times the time of {members} trainings")


def timed(step: Callable[[], None], now: Callable[[], float]) -> float:
    start = now()
    step()
    return now() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gru")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64, help="trials")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="of this process, all threads together")
    parser.add_argument("--trainings", action="store_true", help="whole trainings in the place of steps")
    parser.add_argument("--words", nargs="*", default=["data=lorenz", "trainer.max_epochs=20"], help="of a training")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    now = time.process_time if options.cpu_time else time.perf_counter
    if options.trainings:
        return whole_trainings(options.model, options.members, options.words, now)
    with initialize_config_dir(CONF):
        words = ["experiment=mc_maze_430", f"model={options.model}", "scheduler@model.scheduler=none"]
        config = compose("train", overrides=words)
    models = []
    for seed in range(options.members):
        torch.manual_seed(seed)
        models.append(instantiate(config.model, spec=SPEC))
    stack = Stack([model.net for model in models])
    targets = torch.poisson(torch.full((options.members, options.batch, BINS, N_IN + N_OUT), 0.03))

    stack.eval()
    with torch.no_grad():
        rates = stack(targets[:, :4, :, :N_IN])["log_rates"]
        for model, batch, stacked in zip(models, targets, rates, strict=True):
            torch.testing.assert_close(stacked, model.eval().net(batch[:4, :, :N_IN])["log_rates"], rtol=0, atol=1e-4)
    stack.train(), models[0].train()

    optimizer = instantiate(config.model.optimizer)
    of_one, of_all = optimizer(models[0].net.parameters()), optimizer(stack.parameters())
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(options.steps + 2):
        times[0].append(timed(lambda: step_of_one(models[0], of_one, targets[0]), now))
        times[1].append(timed(lambda: step_of_all(models, stack, of_all, targets), now))
    one, all_ = (1000 * statistics.median(taken[2:]) for taken in times)
    ratios = sorted(b / a for a, b in zip(times[0][2:], times[1][2:], strict=True))
    print(f"one {one:.0f} ms a step, {options.members} stacked {all_:.0f} ms ({options.threads} threads)")
    print(f"{all_ / one:.2f} times the time of one; step by step {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
