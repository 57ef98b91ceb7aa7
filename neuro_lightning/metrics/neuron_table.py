"""A table of each neuron's spikes, rate and score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from neuro_lightning.functional.likelihood import SpikeSums, bits_per_spike_from_sums

COLUMNS = ("unit", "spikes", "rate (Hz)", "bits/spike")


def neuron_rows(sums: SpikeSums, ids: Sequence[Any], bin_ms: float | None) -> list[list[Any]]:
    """A row for each neuron, in the order of ``COLUMNS``, the best first; NaN is last.

    Args:
        sums: (B, N) of trials.
        ids: of the N neurons.
        bin_ms: of a bin, in ms; None leaves rates out.
    """
    total = SpikeSums(*(value.sum(0) for value in sums))
    bits = bits_per_spike_from_sums(total, per_neuron=True).tolist()
    rates = (total.spikes / total.bins.clamp(min=1)).tolist()
    hertz = [rate / bin_ms * 1000 if bin_ms else None for rate in rates]
    rows = [[ids[n], int(total.spikes[n]), hertz[n], bits[n]] for n in range(len(bits))]
    return sorted(rows, key=lambda row: -row[3] if row[3] == row[3] else math.inf)
