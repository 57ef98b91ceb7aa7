"""The figures of models of spikes that a run's data and network allow, and their contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.callbacks.drawings_dynamics import draw_flow
from neuro_lightning.callbacks.shown_trials import as_numpy, predict_trials, targets_or_nan
from neuro_lightning.display import figures, figures_checks, figures_spikes, figures_trials
from neuro_lightning.display.style import evenly_spaced
from neuro_lightning.functional.calibration import calibration
from neuro_lightning.functional.dimensions import variance_shares
from neuro_lightning.functional.likelihood import bits_over_bins, bits_per_spike_from_sums, spike_sums
from neuro_lightning.functional.psth import condition_sums
from neuro_lightning.metrics.catalog import axis_label
from neuro_lightning.metrics.collection import bits_of
from neuro_lightning.metrics.decoding import VelocityR2
from neuro_lightning.models.dynamics import has_dynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawings = dict[str, Callable[[], "Figure"]]
MOST_ENTRIES = 2_000_000  # bins of neurons in trials that calibration is taken from


def spike_drawings(trials: Mapping[str, Tensor], module: Any, data: Any, n: int) -> Drawings:
    """Rasters and rates, each neuron's score, latents, PSTHs, and what :func:`further_drawings` are."""
    spec = module.spec
    bits = axis_label(bits_of(spec)[0])
    recording = getattr(data, "recording", None)
    psth, window = getattr(recording, "psth", None), getattr(recording, "info", {}).get("window", {})
    jittered = bool(trials["jitter"].any()) if "jitter" in trials else False  # then trials share no time of the event
    angles = movement_angles(trials, data)
    found: Drawings = {
        "rates": lambda: _rates(trials, spec, n, window),
        "neurons": lambda: figures.neuron_scores_figure(
            neuron_bits(trials, spec), label=bits, simulated=spec.simulated
        ),
    }
    if "latents" in trials:
        found["latents"] = lambda: figures_spikes.latents_figure(
            trials["latents"].numpy(), bin_ms=spec.bin_ms, condition=as_numpy(trials.get("condition")),
            angles=angles, simulated=spec.simulated, **({} if jittered else window),
        )  # fmt: skip
    if psth is not None and "condition" in trials:
        found["psth"] = lambda: figures_spikes.psth_figure(
            predicted_psth(trials, spec, len(psth)), np.asarray(psth), bin_ms=spec.bin_ms, simulated=spec.simulated,
            **window,
        )  # fmt: skip
    return found | further_drawings(trials, module, data, {} if jittered else window)


def further_drawings(trials: Mapping[str, Tensor], module: Any, data: Any, window: Mapping[str, Any]) -> Drawings:
    """Calibration, single trials by condition, rasters sorted by a latent, bits over forward bins, decoded behavior.

    Args:
        trials: as in :func:`spike_drawings`.
        module: likewise.
        data: likewise.
        window: the trials' common time, see ``display.figures_trials``; empty where there is none.
    """
    spec = module.spec
    found: Drawings = {
        "calibration": lambda: figures_checks.calibration_figure(
            calibration_groups(trials, spec), bin_ms=spec.bin_ms, simulated=spec.simulated
        ),
        "single_trials": lambda: figures_trials.single_trials_figure(
            trials["predicted"][:, : spec.n_bins].numpy(), bin_ms=spec.bin_ms, simulated=spec.simulated,
            condition=as_numpy(trials.get("condition")), angles=movement_angles(trials, data),
            n_in=spec.n_in if spec.n_out else None, **window,
        ),
        "dimensions": lambda: figures_checks.dimensions_figure(variance_of(trials), simulated=spec.simulated),
    }  # fmt: skip
    if "latents" in trials:
        found["sorted_raster"] = partial(_sorted_raster, trials, spec, window)
    if has_dynamics(module.net):
        found["flow"] = partial(draw_flow, module, data)
    if spec.n_forward:
        found["forward"] = lambda: figures_checks.forward_figure(
            forward_bits(trials, spec), bin_ms=spec.bin_ms, simulated=spec.simulated,
            first_ms=window.get("start_ms", 0) + spec.n_bins * spec.bin_ms, align=window.get("align", ""),
        )  # fmt: skip
    if "rates" in trials:
        name = axis_label(bits_of(spec)[0])
        found["against_oracle"] = lambda: figures_checks.against_figure(
            neuron_bits(trials, spec), neuron_bits({**trials, "predicted": trials["rates"]}, spec),
            label=f"model: {name}", reachable_label=f"true rates: {name}", simulated=spec.simulated,
        )  # fmt: skip
    if spec.behavior_kind == "velocity" and "decode_fold" in trials:
        found["decoding"] = partial(_decoding, trials, module, data, window)
    return found


def neuron_groups(spec: Any) -> dict[str, slice]:
    """The neurons that are drawn apart: held-in and held-out ones, or all."""
    if not spec.n_out:
        return {"neurons": slice(None)}
    return {"held-in neurons": slice(0, spec.n_in), "held-out neurons": slice(spec.n_in, None)}


def calibration_groups(trials: Mapping[str, Tensor], spec: Any) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Calibration of held-in and of held-out neurons in the observed bins: rate, mean count and its error."""
    most = max(8, MOST_ENTRIES // max(1, spec.n_bins * spec.n_neurons))
    chosen = evenly_spaced(len(trials["targets"]), most)
    found = {}
    for name, neurons in neuron_groups(spec).items():
        part = (chosen, slice(0, spec.n_bins), neurons)
        rate, count, error, _ = calibration(trials["predicted"][part], trials["targets"][part], trials["mask"][part])
        found[name] = (rate.numpy(), count.numpy(), error.numpy())
    return found


def forward_bits(trials: Mapping[str, Tensor], spec: Any) -> dict[str, np.ndarray]:
    """Bits per spike of each forward bin (F,), of all neurons, held-in and held-out ones, and of the true rates."""
    groups = {"all neurons": slice(None), **(neuron_groups(spec) if spec.n_out else {})}
    ahead = slice(spec.n_bins, None)

    def bits(rates: Tensor, neurons: slice) -> np.ndarray:
        part = (slice(None), ahead, neurons)
        return bits_over_bins(rates[part], trials["targets"][part], trials["mask"][part]).numpy()

    found = {name: bits(trials["predicted"], neurons) for name, neurons in groups.items()}
    return found | ({"true rates": bits(trials["rates"], slice(None))} if "rates" in trials else {})


def variance_of(trials: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The variance on principal components of the latents, the predicted and the true rates, as shares."""
    names = {"latents": "latents", "predicted": "predicted rates", "rates": "true rates"}
    return {name: variance_shares(trials[key]).numpy() for key, name in names.items() if key in trials}


def latent_weights(latent: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(N,) correlation of each neuron's rates (B, L, N) with a latent (B, L) over all bins; NaN for a constant."""
    x, y = latent.reshape(-1).astype(float), rates.reshape(-1, rates.shape[-1]).astype(float)
    known = np.isfinite(x) & np.isfinite(y).all(1)
    x, y = x[known] - x[known].mean(), y[known] - y[known].mean(0)
    scale = np.sqrt(x @ x * np.square(y).sum(0))
    return np.divide(x @ y, scale, out=np.full(y.shape[1], np.nan), where=scale > 0)


def decoders_of(trials: Mapping[str, Tensor], module: Any, data: Any) -> VelocityR2:
    """The ridge decoder of predicted rates, fitted on as many training trials at most as there are ``trials``."""
    spec = module.spec
    metric = VelocityR2(spec.n_neurons, spec.behavior_dim, spec.decode_groups, spec.mean_rates)
    train = predict_trials(data, module, len(trials["targets"]) * 2, "train")
    metric.update_train(train["predicted"][:, : spec.n_bins], train["behavior"], train["decode_fold"])
    return metric


def decode(rates: Tensor, fold: Tensor, metric: VelocityR2) -> np.ndarray:
    """(B, T, K) behavior decoded from rates (B, T, N), NaN where no group of ``fold`` (B, T, M) has the bin."""
    decoded = torch.full((*rates.shape[:2], metric.n_channels), torch.nan, dtype=torch.float64)
    for fit, used in zip(metric.decoders(), (fold >= 0).unbind(-1), strict=True):
        decoded[used] = rates[used].double() @ fit.weight + fit.bias
    return decoded.numpy()


def behavior_names(data: Any) -> tuple[str, ...]:
    """The series that the behavior was read from, where the data module says so."""
    options = getattr(data, "options", None)
    named = (options.get("behavior") if isinstance(options, Mapping) else getattr(options, "behavior", None)) or ()
    return (named,) if isinstance(named, str) else tuple(named)


def are_velocities(series: Sequence[str]) -> bool:
    """Whether behavior is velocity by the names of its series."""
    return all("vel" in name.lower() for name in series)


def movement_angles(trials: Mapping[str, Tensor], data: Any) -> dict[int, float] | None:
    """The direction in radians of each condition's mean movement, of velocities in a plane; None where there is none.

    Args:
        trials: with ``condition`` (B,) and ``behavior`` (B, T, K), NaN where unknown.
        data: the data module.
    """
    if "condition" not in trials or "behavior" not in trials or not are_velocities(behavior_names(data)):
        return None
    condition, velocity = trials["condition"].numpy(), trials["behavior"].numpy()
    if velocity.ndim != 3 or velocity.shape[2] < 2:
        return None
    moved = np.nansum(velocity[..., :2], axis=1)  # (B, 2)
    names = np.unique(condition[condition >= 0])
    means = [moved[condition == name].mean(0) for name in names]
    return {int(name): float(np.arctan2(y, x)) for name, (x, y) in zip(names, means, strict=True)}


def _decoding(trials: Mapping[str, Tensor], module: Any, data: Any, window: Mapping[str, Any]) -> Figure:
    spec, fold = module.spec, trials["decode_fold"]
    rates, behavior = trials["predicted"][:, : spec.n_bins], trials["behavior"]
    metric = decoders_of(trials, module, data)
    metric.update(rates, behavior, fold)
    heads = {name.removeprefix("heads/"): values for name, values in trials.items() if name.startswith("heads/")}
    series = behavior_names(data)
    return figures_trials.decoding_figure(
        behavior.masked_fill((fold < 0).all(-1, keepdim=True), torch.nan).numpy(),
        {"ridge on rates": decode(rates, fold, metric), **{f"head {name}": v.numpy() for name, v in heads.items()}},
        bin_ms=spec.bin_ms,
        trials=trial_names(trials),
        condition=as_numpy(trials.get("condition")),
        angles=movement_angles(trials, data),
        names=[f"{name} {axis}" for name in series for axis in "xyz"][: spec.behavior_dim]
        if spec.behavior_dim in (2 * len(series), 3 * len(series)) and len(series) == 1
        else series,
        scores={"ridge on rates": float(metric.compute())},
        paths=are_velocities(series),
        simulated=spec.simulated,
        **window,
    )


def _sorted_raster(trials: Mapping[str, Tensor], spec: Any, window: Mapping[str, Any]) -> Figure:
    scores, _ = figures.principal_components(trials["latents"].numpy(), 1)
    rates = trials["predicted"][:, : scores.shape[1]].numpy()  # some models have latents of observed bins alone
    weights = latent_weights(scores[..., 0], rates)
    return figures_trials.sorted_raster_figure(
        targets_or_nan(trials)[0, : spec.n_bins],
        scores[0, : spec.n_bins, 0],
        weights,
        bin_ms=spec.bin_ms,
        trial=int(trial_names(trials)[0]),
        heldout=np.arange(spec.n_neurons) >= spec.n_in if spec.n_out else None,
        simulated=spec.simulated,
        **window,
    )


def trial_names(trials: Mapping[str, Tensor]) -> np.ndarray:
    """(B,) the trials' rows in the file; their numbers in the split where those are unknown."""
    return trials["row" if "row" in trials else "index"].numpy()


def neuron_bits(trials: Mapping[str, Tensor], spec: Any) -> np.ndarray:
    """(N_out,) bits per spike of each held-out neuron in the observed bins; of all neurons where none is held out."""
    part = (slice(None), slice(0, spec.n_bins), slice(spec.n_in if spec.n_out else 0, None))
    sums = spike_sums(trials["predicted"][part], trials["targets"][part], trials["mask"][part])
    return bits_per_spike_from_sums(sums, per_neuron=True).numpy()


def predicted_psth(trials: Mapping[str, Tensor], spec: Any, n_conditions: int) -> np.ndarray:
    """(C, T, N) mean predicted rates in spikes per bin; NaN for a condition without trials."""
    rates = trials["predicted"][:, : spec.n_bins]
    recorded = trials["observed"].any(2) if "observed" in trials else None
    sums, count = condition_sums(rates, trials["condition"], n_conditions, trials.get("jitter"), recorded)
    count = count[:, None] if count.ndim == 1 else count
    return (sums / torch.where(count > 0, count, torch.nan)[..., None]).numpy()


def _rates(trials: Mapping[str, Tensor], spec: Any, n: int, window: Mapping[str, Any]) -> Figure:
    """Rasters of the held-out neurons (all neurons, where none is held out) in trials spread over the split."""
    chosen = evenly_spaced(len(trials["targets"]), n)
    part = (chosen, slice(None), slice(spec.n_in if spec.n_out else 0, None))
    shift = trials["jitter"][chosen].numpy() * spec.bin_ms if "jitter" in trials else 0
    return figures_spikes.rates_figure(
        targets_or_nan(trials)[part],
        trials["predicted"][part].numpy(),
        bin_ms=spec.bin_ms,
        start_ms=window.get("start_ms", 0) + shift,
        align=window.get("align", ""),
        n_bins=spec.n_bins,
        true_rates=trials["rates"][part].numpy() if "rates" in trials else None,
        trials=trial_names(trials)[chosen],
        neurons="held-out neurons" if spec.n_out else "neurons",
        simulated=spec.simulated,
    )
