"""Run a network of fixed length on longer sequences, window by window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from neuro_lightning.contracts import Output


def in_windows(run: Callable[..., Output], inputs: Tensor, n_bins: int, observed: Tensor | None = None) -> Output:
    """The output of a network of fixed length for a longer sequence.

    The sequence is cut into windows of ``n_bins``; the last one overlaps the one before it, which provides
    the bins they share.
    Traces are trained on windows and judged on whole recordings.

    Args:
        run: (B, n_bins, N_in), and ``observed`` likewise where it is given -> output without forward bins.
        inputs: (B, T, N_in) with T of at least ``n_bins``.
        n_bins: bins of a window.
        observed: bool like ``inputs``, True where they were recorded; None is everywhere.

    Returns:
        The output over all T bins. Extra loss terms are those of training, which has no longer sequences: left out.
    """
    total = inputs.shape[1]
    starts = [*range(0, total - n_bins, n_bins), total - n_bins]
    keep = [0, *(previous + n_bins - start for previous, start in pairwise(starts))]
    given = (inputs,) if observed is None else (inputs, observed)
    parts = [run(*(values[:, start : start + n_bins] for values in given)) for start in starts]
    named = [cast(dict[str, Tensor], part) for part in parts]
    joined = {
        name: torch.cat([part[name][:, skip:] for part, skip in zip(named, keep, strict=True)], dim=1)
        for name in named[0]
        if name != "losses"
    }
    return cast(Output, joined)
