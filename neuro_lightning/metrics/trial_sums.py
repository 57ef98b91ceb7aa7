"""What each trial contributes to bits per spike, so that two models can be compared trial by trial."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.contracts import Batch, DataSpec, Output, rates_of
from neuro_lightning.functional.likelihood import SpikeSums, spike_sums_of_trials


class TrialSums:
    """Collects the sums of each trial from batches that come in the trials' order.

    Args:
        spec: the description of the data, of spikes.
    """

    def __init__(self, spec: DataSpec) -> None:
        self.scored = scored_part(spec)
        self.parts: list[SpikeSums] = []

    @torch.no_grad()
    def __call__(self, output: Output, batch: Batch) -> None:
        """Adds evaluation trials."""
        part = single_rates(output)[self.scored], batch["targets"][self.scored], batch["mask"][self.scored]
        self.parts.append(spike_sums_of_trials(*part))

    def collect(self) -> SpikeSums:
        """(B, N) sums of all trials: of the held-out neurons, or of all where none is held out."""
        return SpikeSums(*(torch.cat(list(found)) for found in zip(*self.parts, strict=True)))


def scored_part(spec: DataSpec) -> tuple[slice, slice, slice]:
    """Which trials, bins and neurons the bits per spike of a recording are of: held-out neurons in observed bins."""
    return slice(None), slice(None, spec.n_bins), slice(spec.n_in, None) if spec.n_out else slice(None)


def single_rates(output: Output) -> Tensor:
    """Rates as a submission file holds them, in float32: logged scores equal the file's."""
    if "rates" in output:
        return output["rates"].float()
    return rates_of({"log_rates": output["log_rates"].float()})


def mean_of(sums: list[SpikeSums]) -> SpikeSums:
    """The sums of several models of the same trials: their score is the mean of the models' scores.

    Raises:
        ValueError: they are of other trials.
    """
    first = sums[0]
    for found in sums[1:]:
        if not (torch.equal(found.spikes, first.spikes) and torch.equal(found.bins, first.bins)):
            raise ValueError("the sums are of different trials")
    nll: Tensor = torch.stack([found.nll for found in sums]).mean(0)
    return first._replace(nll=nll)


def as_sums(arrays: Mapping[str, np.ndarray]) -> SpikeSums:
    """Sums that were kept as arrays by name."""
    return SpikeSums(*(torch.from_numpy(arrays[name]) for name in SpikeSums._fields))
