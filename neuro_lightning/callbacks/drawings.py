"""The figures that a run's data and network allow, and their contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.callbacks.drawings_dynamics import draw_flow
from neuro_lightning.callbacks.drawings_spikes import Drawings, spike_drawings
from neuro_lightning.callbacks.shown_trials import as_numpy, targets_or_nan
from neuro_lightning.contracts import evaluation_mode, rates_of
from neuro_lightning.display import figures, figures_checks, figures_images, figures_latents, figures_traces
from neuro_lightning.display.style import evenly_spaced
from neuro_lightning.functional.dimensions import variance_shares
from neuro_lightning.functional.exciting_images import contrast_of, most_discriminative_images, most_exciting_images
from neuro_lightning.functional.explainable import average_correlation, explainable, feve
from neuro_lightning.functional.receptive_fields import AT_ONCE, mean_gradients, receptive_fields, triggered_averages
from neuro_lightning.functional.svca import random_half, svca
from neuro_lightning.models.dynamics import has_dynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_THE_END = frozenset({
    "against_oracle", "calibration", "decoding", "dimensions", "discriminative_images", "exciting_images", "feve",
    "flow", "forward", "single_trials", "sorted_raster", "triggered_averages",
})  # fmt: skip
"""Figures that are not drawn during training."""
MOST_NEURONS = 1000  # that shared variance is taken from
MOST_IMAGES = 2000  # training images that responses are predicted for
FIELDS = 12  # receptive fields and tuning curves shown


def drawings(trials: Mapping[str, Tensor], module: Any, data: Any, n: int) -> Drawings:
    """The figures by name; each is drawn when it is called.

    Args:
        trials: see ``neuro_lightning.callbacks.figures.predict_trials``.
        module: with ``net`` and ``spec``.
        data: the data module.
        n: trials shown as rasters.
    """
    of_kind = {"spikes": spike_drawings, "traces": trace_drawings, "images": image_drawings}
    return of_kind[module.spec.kind](trials, module, data, n) if trials else {}


def joint_drawings(trials: Mapping[str, Mapping[str, Tensor]], data: Mapping[str, Any]) -> Drawings:
    """The figures of several sessions together, by name.

    Args:
        trials: of each session, with ``latents`` and, where they have some, ``condition``.
        data: the data module of each.
    """
    latents = {session: as_numpy(found.get("latents")) for session, found in trials.items()}
    if any(values is None for values in latents.values()) or len({values.shape[2] for values in latents.values()}) > 1:
        return {}
    recordings = [of_session.recording for of_session in data.values()]
    windows = [recording.info.get("window", {}) for recording in recordings]
    conditions = {session: as_numpy(found.get("condition")) for session, found in trials.items()}
    return {
        "latents_together": lambda: figures_latents.sessions_figure(
            latents, bin_ms=recordings[0].bin_ms, conditions=conditions,
            simulated=any(recording.simulated for recording in recordings),
            **(windows[0] if all(window == windows[0] for window in windows) else {}),
        )
    }  # fmt: skip


# ---- traces


def trace_drawings(trials: Mapping[str, Tensor], module: Any, data: Any, n: int) -> Drawings:
    """The first sequence beside its reconstruction, latents over time, each neuron's R2."""
    spec = module.spec
    observed, predicted = targets_or_nan(trials)[0], trials["predicted"][0].numpy()
    behavior = trials["behavior"][0].numpy() if "behavior" in trials else None
    heldout = np.arange(spec.n_neurons) >= spec.n_in
    found: Drawings = {
        "reconstruction": lambda: figures_traces.reconstruction_figure(
            observed, predicted, bin_ms=spec.bin_ms, simulated=spec.simulated
        ),
        "neurons": lambda: figures.neuron_scores_figure(
            neuron_r2(trials), label="R2", heldout=np.tile(heldout, len(trials["targets"])), simulated=spec.simulated
        ),
        "dimensions": lambda: figures_checks.dimensions_figure(trace_shares(trials), simulated=spec.simulated),
    }
    if "latents" in trials:
        found["latents"] = lambda: figures_traces.latents_figure(
            trials["latents"][0].numpy(), bin_ms=spec.bin_ms, behavior=behavior,
            behavior_names=tuple(data.recording.info.get("behavior", ())), simulated=spec.simulated,
        )  # fmt: skip
    if has_dynamics(module.net):
        found["flow"] = lambda: draw_flow(module, data)
    return found


def trace_shares(trials: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Of the first sequence: the variance on principal components, and that on shared components that is reliable.

    Shared variance components are of a seeded half of the neurons and the other; of many neurons ``MOST_NEURONS``,
    evenly spaced, are used.
    """
    names = {"latents": "latents", "predicted": "predicted activity"}
    found = {name: variance_shares(trials[key][0]).numpy() for key, name in names.items() if key in trials}
    activity = trials["targets"][0].float()[:, trials["mask"][0].all(0)]
    activity = activity[:, evenly_spaced(activity.shape[1], MOST_NEURONS)] if activity.shape[1] else activity
    if activity.shape[1] > 1 and len(activity) > 7:
        shared = svca(activity.T, random_half(activity.shape[1]))
        found["recorded, reliable (SVCA)"] = (shared.reliable / shared.variance).numpy()
    return found


def neuron_r2(trials: Mapping[str, Tensor]) -> np.ndarray:
    """R2 of each neuron of each sequence, one after another, NaN for a constant one.

    Planes have neurons of their own, so they are not pooled.
    """
    observed, predicted = targets_or_nan(trials), trials["predicted"].numpy()
    residual = np.nansum((observed - predicted) ** 2, axis=1, dtype=float)
    total = np.nansum((observed - np.nanmean(observed, axis=1, keepdims=True)) ** 2, axis=1, dtype=float)
    return (1 - residual / np.where(total > 0, total, np.nan)).ravel()


# ---- images


def image_drawings(trials: Mapping[str, Tensor], module: Any, data: Any, n: int) -> Drawings:
    """Responses against predictions, receptive fields and what neurons look for, first-stage filters, tuning."""
    spec, net = module.spec, module.net
    observed, predicted = targets_or_nan(trials), trials["predicted"].numpy()
    scores, ceiling = image_scores(trials)
    best = [int(i) for i in np.argsort(-np.nan_to_num(scores, nan=-2.0), kind="stable")[:FIELDS]]
    images = data.dataset("train", evaluate=False).images
    found: Drawings = {
        "responses": lambda: figures_images.responses_figure(
            predicted, observed, scores=scores, ceiling=ceiling, repeats=as_numpy(trials.get("repeats")),
            simulated=spec.simulated,
        ),
        "receptive_fields": lambda: figures_images.receptive_field_figure(
            _fields(module, images, best), neurons=best, scores=scores[best], simulated=spec.simulated
        ),
        "exciting_images": lambda: _exciting(module, images, best),
        "discriminative_images": lambda: _discriminative(module, images, best),
        "triggered_averages": lambda: _triggered(module, data, best),
    }  # fmt: skip
    if "repeats" in trials:
        found["feve"] = lambda: figures_checks.against_figure(
            feve(trials["repeats"], trials["predicted"]).numpy(), explainable(trials["repeats"]).fev.numpy(),
            label="share of it that is explained (FEVE)", reachable_label="explainable share of the variance (FEV)",
            title="Explainable variance explained", diagonal=False, simulated=spec.simulated,
        )  # fmt: skip
    if hasattr(net, "filters"):
        found["filters"] = lambda: figures_images.filters_figure(
            net.filters().detach().cpu().numpy(), simulated=spec.simulated
        )
    if hasattr(net, "dog_parameters") and net.dog_parameters():
        dogs = {name: values.detach().cpu().numpy() for name, values in net.dog_parameters().items()}
        found["dogs"] = lambda: figures_images.dog_figure(
            dogs, image_shape=spec.image_shape, planted=planted_dogs(data.recording.info), simulated=spec.simulated
        )
    if "angle" in trials:
        found["tuning"] = lambda: figures_images.tuning_figure(
            trials["angle"].numpy(), observed, predicted, neurons=best, period=np.deg2rad(spec.angle_period),
            simulated=spec.simulated,
        )  # fmt: skip
    return found


def image_scores(trials: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray | None]:
    """Each neuron's correlation over images, and the highest that its noise allows where there are repeats, (N,)."""
    repeats = trials.get("repeats")
    single = torch.from_numpy(targets_or_nan(trials))[:, None] if repeats is None else repeats
    scores = average_correlation(single.double(), trials["predicted"].double()).numpy()
    return scores, None if repeats is None else explainable(repeats.double()).cc_max.numpy()


def planted_dogs(info: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The differences of Gaussians that simulated data were made with, None where there are none."""
    if not info.get("dog"):
        return None
    return dict(zip(("x", "y", "s1", "s2", "a1", "a2"), np.asarray(info["dog"], float).T, strict=True))


def _fields(module: Any, images: Tensor, neurons: list[int]) -> np.ndarray:
    """(n, C, H, W) gradients at the mean image; of neurons that are flat there, mean gradients over images."""
    with evaluation_mode(module.net):
        fields = receptive_fields(module.net, images.to(module.device), neurons)
        flat = [k for k in range(len(neurons)) if not bool(fields[k].any())]
        if flat:
            fields[flat] = mean_gradients(module.net, images.to(module.device), [neurons[k] for k in flat])
        return fields.cpu().numpy()


def _exciting(module: Any, images: Tensor, neurons: list[int]) -> Figure:
    """The figure of the images that neurons would answer most, at the contrast of the training images."""
    grey, contrast = contrast_of(images)
    with evaluation_mode(module.net):
        found, answers = most_exciting_images(
            module.net, grey.expand(images.shape[1:]).to(module.device), contrast, neurons
        )
    return figures_images.exciting_figure(
        found.cpu().numpy(), neurons=neurons, responses=answers.tolist(), simulated=module.spec.simulated
    )


def _discriminative(module: Any, images: Tensor, neurons: list[int]) -> Figure:
    """The figure of the images that tell neurons from all others, at the contrast of the training images."""
    grey, contrast = contrast_of(images)
    given = images[torch.from_numpy(evenly_spaced(len(images), MOST_IMAGES))]
    with evaluation_mode(module.net):
        usual = _predicted(module, given)
        found, shares = most_discriminative_images(
            module.net, grey.expand(images.shape[1:]).to(module.device), contrast, neurons,
            mean=usual.mean(0), spread=usual.std(0, correction=0),
        )  # fmt: skip
    return figures_images.discriminative_figure(
        found.cpu().numpy(), neurons=neurons, shares=shares.tolist(), simulated=module.spec.simulated
    )


def _triggered(module: Any, data: Any, neurons: list[int]) -> Figure:
    """The figure of averages of training images weighted by recorded and by predicted responses."""
    dataset = data.dataset("train", evaluate=False)
    batch = dataset[evenly_spaced(len(dataset), MOST_IMAGES).tolist()]
    images, recorded = batch["inputs"], torch.from_numpy(targets_or_nan(batch))[:, neurons]
    with evaluation_mode(module.net):
        predicted = _predicted(module, images)[:, neurons].masked_fill(recorded.isnan(), torch.nan)
    return figures_images.triggered_figure(
        triggered_averages(images, recorded).numpy(),
        triggered_averages(images, predicted).numpy(),
        neurons=neurons,
        simulated=module.spec.simulated,
    )


@torch.no_grad()
def _predicted(module: Any, images: Tensor) -> Tensor:
    """(B, N) responses, on the CPU."""
    parts = [rates_of(module.net(part.to(module.device))).float().cpu() for part in images.split(AT_ONCE)]
    return torch.cat(parts)
