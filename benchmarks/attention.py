"""A training step of the Neural Data Transformer against the same network written as the original repository does.

    python benchmarks/attention.py [--steps 12] [--threads 2] [--cpu-time] [--dropout 0.5]

The shape is mc_maze_medium's at 5 ms (188 trials, 140 + 40 bins, 114 + 38 neurons) in batches of 64; the settings are
the published ones: four layers of two heads, as wide as there are neurons, 128 hidden units, a window of context,
three dropouts, masked bins of which some are shown as random counts.

The other side says in today's torch what snel-repo/neural-data-transformers does: time before trials, attention that
builds its weights and gives back their mean over the heads, a window of -inf that is added, labels from which the loss
takes what was masked. Both start from the same weights; before anything is timed their outputs are compared. Steps of
the two alternate in one process, and the figure is the ratio of the medians. The peak memory is that of a process of
its own for each, above what it held before its first step. On a busy machine measure processor time instead.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuro_lightning.contracts import DataSpec, full_mask
from neuro_lightning.models.ndt import NDT
from neuro_lightning.nn.masking import RandomMasking
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.step_transformer import Attention, Dropouts

TRIALS, BINS, FORWARD, N_IN, N_OUT, BIN_MS = 188, 140, 40, 114, 38, 5
LAYERS, HEADS, HIDDEN, CONTEXT = 4, 2, 128, 55
RATIO, TOKEN_RATIO, RANDOM_RATIO, CLIP, BATCH = 0.25, 0.7, 0.9, 200.0, 64
UNMASKED = -100.0
optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=5e-5, eps=1e-8)


def ndt(dropout: float) -> NDT:
    """Ours, with the published settings."""
    spec = DataSpec("shape", n_in=N_IN, n_out=N_OUT, n_bins=BINS, n_forward=FORWARD, bin_ms=BIN_MS)
    return NDT(
        spec, width=None, layers=LAYERS, attention_heads=HEADS, feedforward=HIDDEN, step_ms=None, pre_norm=True,
        scaled_init=True, positions="learned", attention=Attention(*[CONTEXT * BIN_MS] * 2),
        dropout=Dropouts(dropout, dropout), readout=ReadoutSettings(dropout=dropout), optimizer=optimizer,
        masking=RandomMasking("timestep", ratio=RATIO, token_ratio=TOKEN_RATIO, random_ratio=RANDOM_RATIO),
    )  # fmt: skip


# ---- the other side


class PlainLayer(nn.Module):
    """An encoder layer on (L, B, N) that keeps its attention weights."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, HEADS, dropout=dropout)
        self.linear1, self.linear2 = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout, self.dropout1, self.dropout2 = (nn.Dropout(dropout) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the layer says, and its attention weights (B, L, L), the mean over the heads."""
        y = self.norm1(x)
        y, weights = self.attention(y, y, y, attn_mask=mask)
        x = x + self.dropout1(y)
        y = self.linear2(self.dropout(torch.relu(self.linear1(self.norm2(x)))))
        return x + self.dropout2(y), weights


class PlainNDT(nn.Module):
    """The same network, time first, with the loss inside."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        width = N_IN + N_OUT
        self.positions = nn.Embedding(BINS + FORWARD, width)
        self.register_buffer("order", torch.arange(BINS + FORWARD)[:, None])
        self.embedding_dropout, self.readout_dropout = nn.Dropout(dropout), nn.Dropout(dropout)
        self.layers = nn.ModuleList(PlainLayer(width, dropout) for _ in range(LAYERS))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, width)
        self.loss = nn.PoissonNLLLoss(log_input=True, reduction="none")
        self.mask: Tensor | None = None

    def window(self) -> Tensor:
        """0 where a bin may look, -inf elsewhere; built once."""
        if self.mask is None:
            distance = self.order.T - self.order
            self.mask = torch.zeros(distance.shape).masked_fill(distance.abs() > CONTEXT, -torch.inf)
        return self.mask

    def rates(self, counts: Tensor) -> Tensor:
        """(B, L, N) counts -> log-rates (B, L, N)."""
        x = counts.permute(1, 0, 2) * counts.shape[2] ** 0.5
        x = self.embedding_dropout(x + self.positions(self.order))
        kept = []
        for layer in self.layers:
            x, weights = layer(x, self.window())
            kept.append(weights)
        return self.readout(self.readout_dropout(self.norm(x))).permute(1, 0, 2)

    def forward(self, counts: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of what was masked."""
        return self.loss(self.rates(counts), labels)[labels != UNMASKED].mean()


def plain_masking(counts: Tensor, heldout: Tensor, forward: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and labels (B, L, N): of each masked element a chance for zero, then one for a random count."""
    shown, labels = counts.clone(), counts.clone()
    masked = torch.bernoulli(torch.full(counts.shape[:2], RATIO)).bool()[:, :, None].expand_as(counts)
    labels[~masked] = UNMASKED
    zero = torch.bernoulli(torch.full(counts.shape, TOKEN_RATIO)).bool() & masked
    shown[zero] = 0
    random = torch.bernoulli(torch.full(counts.shape, RANDOM_RATIO)).bool() & masked & ~zero
    shown[random] = torch.randint(int(counts.max()), counts.shape).float()[random]
    shown = torch.cat([torch.cat([shown, torch.zeros_like(heldout)], 2), torch.zeros_like(forward)], 1)
    return shown, torch.cat([torch.cat([labels, heldout], 2), forward], 1)


def like(ours: NDT, dropout: float) -> PlainNDT:
    """The plain network with the same weights."""
    core, plain = ours.net.core, PlainNDT(dropout)
    with torch.no_grad():
        plain.positions.weight.copy_(core.positions.table)
    plain.norm.load_state_dict(core.norm.state_dict())
    plain.readout.load_state_dict(ours.net.readout.linear.state_dict())
    for theirs, layer in zip(plain.layers, core.layers, strict=True):
        qkv = layer.attention.qkv.state_dict()
        theirs.attention.load_state_dict(
            {f"in_proj_{name}": value for name, value in qkv.items()}
            | {f"out_proj.{name}": value for name, value in layer.attention.out.state_dict().items()}
        )
        theirs.linear1.load_state_dict(layer.dense[0].state_dict())
        theirs.linear2.load_state_dict(layer.dense[-1].state_dict())
        theirs.norm1.load_state_dict(layer.attention_norm.state_dict())
        theirs.norm2.load_state_dict(layer.dense_norm.state_dict())
    return plain


# ---- the comparison


def steps(dropout: float) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    """Our training step and the plain one, each called with the trials of its batch."""
    torch.manual_seed(0)
    targets = torch.poisson(torch.full((TRIALS, BINS + FORWARD, N_IN + N_OUT), 0.03))
    ours = ndt(dropout).eval()
    plain = like(ours, dropout).eval()
    shown = F.pad(targets[:2, :BINS, :N_IN], (0, N_OUT, 0, FORWARD))
    torch.testing.assert_close(ours(targets[:2, :BINS, :N_IN])["log_rates"], plain.rates(shown))
    update, update_plain = optimizer(ours.parameters()), optimizer(plain.parameters())

    def finish(loss: Tensor, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()

    def step(index: Tensor) -> None:
        batch = targets[index]
        batch = {"inputs": batch[:, :BINS, :N_IN], "targets": batch, "mask": full_mask(batch.shape), "index": index}
        finish(ours.training_step(batch, 0), ours, update)

    def step_plain(index: Tensor) -> None:
        batch = targets[index]
        shown, labels = plain_masking(batch[:, :BINS, :N_IN], batch[:, :BINS, N_IN:], batch[:, BINS:])
        finish(plain(shown, labels), plain, update_plain)

    ours.train(), plain.train()
    return step, step_plain


def peak(which: int, dropout: float, threads: int, answer: multiprocessing.SimpleQueue) -> None:
    """Peak memory of three steps, MB above what the process held before."""
    torch.set_num_threads(threads)
    step = steps(dropout)[which]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        step(torch.randperm(TRIALS)[:BATCH])
    answer.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def peak_of(which: int, options: argparse.Namespace) -> float:
    """The same, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=peak, args=(which, options.dropout, options.threads, answer))
    process.start()
    process.join()
    return answer.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.5, help="all three; the published search went over 0.3-0.7")
    parser.add_argument("--cpu-time", action="store_true", help="of this process, all threads together")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    now = time.process_time if options.cpu_time else time.perf_counter
    memory = [peak_of(which, options) for which in (0, 1)]  # before this process grows: children inherit its peak
    both, times = steps(options.dropout), ([], [])
    for _ in range(options.steps + 2):
        index = torch.randperm(TRIALS)[:BATCH]
        for step, taken in zip(both, times, strict=True):
            start = now()
            step(index)
            taken.append(now() - start)
    ours, plain = (1000 * statistics.median(taken[2:]) for taken in times)
    ratios = sorted(b / a for a, b in zip(times[0][2:], times[1][2:], strict=True))
    print(f"ours {ours:.0f} ms per step, plain {plain:.0f} ms per step ({options.threads} threads)")
    print(f"{plain / ours:.2f} times as fast; step by step {ratios[0]:.2f} to {ratios[-1]:.2f}")
    print(f"peak memory of a step: ours {memory[0]:.0f} MB, plain {memory[1]:.0f} MB")


if __name__ == "__main__":
    main()
