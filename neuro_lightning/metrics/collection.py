"""Every metric that a dataset allows, as one module: what the training loop updates and logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuro_lightning.contracts import Batch, DataSpec, Output
from neuro_lightning.errors import DataError
from neuro_lightning.metrics.base import MetricDict, MetricGroup
from neuro_lightning.metrics.bits import BitsPerSpike
from neuro_lightning.metrics.decoding import TpCorrelation, VelocityR2
from neuro_lightning.metrics.deviance import PoissonD2
from neuro_lightning.metrics.heads import WithHeads
from neuro_lightning.metrics.rates import PsthR2, RatesR2
from neuro_lightning.metrics.responses import ResponseMetrics
from neuro_lightning.metrics.sessions import SessionMetrics
from neuro_lightning.metrics.traces import TraceMetrics
from neuro_lightning.metrics.trial_sums import scored_part, single_rates
from neuro_lightning.nn.heads import Heads


def build_metrics(
    spec: DataSpec,
    *,
    n_eval: int = 0,
    psth: Tensor | None = None,
    n_repeats: int | None = None,
    sessions: Sequence[Mapping[str, Any]] = (),
    heads: Heads | None = None,
) -> nn.Module:
    """The metrics that a dataset allows: those of spikes below, of traces and images in modules of their own.

    With heads also their scores, see :class:`~neuro_lightning.metrics.heads.WithHeads`.

    Of several sessions: each one's, and their means, see :class:`~neuro_lightning.metrics.sessions.SessionMetrics`.

    ==================  ==============================================================================
    ``co_bps``          bits per spike of held-out neurons; without any, ``bps`` of the held-in ones
    ``fp_bps``          bits per spike of all neurons in the forward bins
    ``poisson_d2``      explained share of the deviance of all that is scored, where ``spec.deviance`` asks for it
    ``vel_r2``          R2 of velocity decoded from the rates
    ``psth_r2``         R2 of the conditions' mean rates against true PSTHs
    ``tp_corr``         correlation of neural speed with produced intervals, lower is better
    ``rates_r2``        R2 against the true rates
    ``oracle_co_bps``   ``co_bps`` of the true rates themselves (``oracle_bps`` without held-out neurons)
    ``oracle_share``    the model's bits as a share of the true rates'
    ==================  ==============================================================================

    Args:
        spec: the description of the data.
        n_eval: evaluation trials in all, over which ``batch["index"]`` runs.
        psth: (C, T, N) true PSTHs in spikes per bin, NaN where undefined; without them there is no ``psth_r2``.
        n_repeats: the largest number of repeats of an image in the split; None for that of any split.
        sessions: these arguments for each of several sessions, empty for one that is not scored.
        heads: of the model; None without.

    Raises:
        DataError: the PSTHs are not those of the data described.
    """
    if spec.sessions:
        parts = zip(spec.sessions, sessions, strict=True)
        return SessionMetrics(
            {part.session: build_metrics(part, heads=heads, **given) if given else None for part, given in parts}
        )
    if heads is not None:
        return WithHeads(build_metrics(spec, n_eval=n_eval, psth=psth, n_repeats=n_repeats), heads, spec)
    if spec.kind == "images":
        return ResponseMetrics(spec, n_eval=n_eval, n_repeats=n_repeats)
    if spec.kind == "traces":
        return TraceMetrics(spec)
    bits, *ahead = bits_of(spec)
    metrics: dict[str, nn.Module] = {bits: BitsPerSpike(spec.n_out or spec.n_in)}
    metrics |= {name: BitsPerSpike(spec.n_neurons) for name in ahead}
    if spec.deviance:
        metrics = {"poisson_d2": PoissonD2(spec.n_neurons), **metrics}
    if spec.behavior_kind == "velocity":
        metrics["vel_r2"] = VelocityR2(spec.n_neurons, spec.behavior_dim, spec.decode_groups, spec.mean_rates)
    if spec.n_conditions and psth is not None:
        shape = (spec.n_conditions, spec.n_bins, spec.n_neurons)
        if tuple(psth.shape) != shape:
            raise DataError(
                f"{spec.dataset}: the PSTHs have the shape {tuple(psth.shape)} where conditions, bins and "
                f"neurons of the data make {shape}; prepare the data again"
            )
        metrics["psth_r2"] = PsthR2(psth)
    if spec.behavior_kind == "interval":
        metrics["tp_corr"] = TpCorrelation(n_eval)
    if spec.true_rates:
        metrics["rates_r2"] = RatesR2(spec.n_neurons, spec.mean_rates)
        metrics[f"oracle_{bits}"] = BitsPerSpike(spec.n_out or spec.n_in)
    return MetricSet(spec, metrics)


def bits_of(spec: DataSpec) -> list[str]:
    """The names of the bits per spike that spikes are scored by."""
    # where neurons are withheld from the input, all that is scored is held out
    return ["co_bps" if spec.n_out or spec.deviance else "bps", *(["fp_bps"] if spec.n_forward else [])]


class MetricSet(MetricGroup):
    """Metrics by name, updated from batches.

    Rates that are not finite make NaN scores. Values are exact however trials are cut into batches and shared among
    processes, as long as no trial is seen twice; under DDP call :meth:`compute` on every process.

    Args:
        spec: the description of the data.
        metrics: the metrics by name, see :func:`build_metrics`.
    """

    def __init__(self, spec: DataSpec, metrics: dict[str, nn.Module]):
        super().__init__()
        self.n_bins, self.n_out, self.scored = spec.n_bins, spec.n_out, scored_part(spec)
        self.metrics = MetricDict(metrics)

    @property
    def names(self) -> list[str]:
        """The keys of what :meth:`compute` returns."""
        return [*self.metrics, *(["oracle_share"] if "rates_r2" in self.metrics else [])]

    @property
    def needs_train(self) -> bool:
        """Whether :meth:`update_train` must see the training trials, in evaluation mode, before :meth:`compute`."""
        return "vel_r2" in self.metrics

    @torch.no_grad()
    def update(self, output: Output, batch: Batch) -> None:
        """Adds evaluation trials."""
        rates = single_rates(output)
        _, observed, neurons = self.scored
        forward = slice(self.n_bins, None)
        counts, mask = batch["targets"], batch["mask"]
        window = rates[:, observed]
        spikes = counts[self.scored], mask[self.scored]
        recorded = batch["observed"].any(2) if "observed" in batch else None
        for name, metric in self.metrics.items():
            match name:
                case "co_bps" | "bps":
                    metric.update(window[..., neurons], *spikes)
                case "poisson_d2":
                    metric.update(rates, counts, mask)
                case "fp_bps":
                    metric.update(rates[:, forward], counts[:, forward], mask[:, forward])
                case "vel_r2":
                    metric.update(window, batch["behavior"], batch["decode_fold"])
                case "psth_r2":
                    metric.update(window, batch["condition"], batch.get("jitter"), recorded)
                case "tp_corr":
                    # the mask of held-out neurons marks set to go, in which alone they are scored
                    metric.update(window, mask[self.scored].any(2), batch["behavior"], batch["index"])
                case "rates_r2":
                    metric.update(window, batch["rates"][:, observed], recorded)
                case "oracle_co_bps" | "oracle_bps":
                    metric.update(batch["rates"][self.scored], *spikes)

    @torch.no_grad()
    def update_train(self, output: Output, batch: Batch) -> None:
        """Adds training trials of the velocity decoder; without one it does nothing."""
        if self.needs_train:
            rates = single_rates(output)[:, : self.n_bins]
            self.metrics["vel_r2"].update_train(rates, batch["behavior"], batch["decode_fold"])

    def compute(self) -> dict[str, float]:
        """All scores by name, NaN where one is undefined."""
        scores = {name: float(metric.compute()) for name, metric in self.metrics.items()}
        if "rates_r2" in scores:
            bits = "co_bps" if "co_bps" in self.metrics else "bps"
            oracle = scores[f"oracle_{bits}"]
            scores["oracle_share"] = scores[bits] / oracle if oracle else math.nan
        return scores
