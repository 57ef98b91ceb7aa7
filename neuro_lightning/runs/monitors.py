"""The score that chooses a run's checkpoint: which one the data have, and whether anything logs it."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from neuro_lightning.artifacts.lines import say
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.metrics.catalog import info
from neuro_lightning.metrics.collection import build_metrics
from neuro_lightning.metrics.heads import head_scores
from neuro_lightning.models.base import PopulationModule
from neuro_lightning.settings.settings import TrainSettings

CO_SMOOTHING = "val/co_bps"


def monitor_without_heldout(settings: TrainSettings, spec: DataSpec) -> dict[str, str]:
    """Without held-out neurons there is no co-smoothing: ``val/fp_bps`` or ``val/bps`` takes its place, a line says so.

    Args:
        settings: of the run.
        spec: what is known of the data.

    Returns:
        The keys to change, every ``monitor`` that is ``val/co_bps``, and their value; empty where nothing changes.
    """
    if spec.kind != "spikes" or spec.n_out or settings.monitor != CO_SMOOTHING:
        return {}
    name = "fp_bps" if spec.n_forward else "bps"
    watching = [f"{path}.monitor" for path, node in _nodes_with_monitor(settings) if node.monitor == CO_SMOOTHING]
    say(f"No neurons are held out: val/{name}, {info(name).title}, takes the place of {CO_SMOOTHING}.")
    return dict.fromkeys(["monitor", *watching], f"val/{name}")


def monitor_of_heads(settings: TrainSettings) -> dict[str, str]:
    """Where nothing but heads is trained, the score of the first one chooses, and a line says so.

    Args:
        settings: of the run.

    Returns:
        The keys to change: every ``monitor`` that is the one of the data, unless it was typed, and how it is compared;
        empty where nothing changes.

    Raises:
        ConfigError: there are no heads either.
    """
    if not trains_heads_only(settings):
        return {}
    heads = {name: node for name, node in (settings.model.get("heads") or {}).items() if node is not None}
    if not heads:
        raise ConfigError(
            "model.loss is none and there is no head: nothing would be trained; add +head@model.heads.velocity=linear"
        )
    if any(word.startswith("monitor=") for word in settings.overrides):
        return {}
    name, node = next(iter(heads.items()))
    score = f"val/{head_scores(name, node.kind)[0]}"
    watching = [f"{path}.monitor" for path, part in _nodes_with_monitor(settings) if part.monitor == settings.monitor]
    say(f"Nothing but heads is trained: {score} takes the place of {settings.monitor}.")
    return {**dict.fromkeys(["monitor", *watching], score), "mode": "max"}


def trains_heads_only(settings: TrainSettings) -> bool:
    """Whether the loss of the rates is left out."""
    return (settings.model.get("loss") or {}).get("_target_") == "neuro_lightning.losses.none"


def check_monitors(settings: TrainSettings, model: PopulationModule, data: PopulationDataModule) -> None:
    """Refuse a monitored metric that is not logged, before the training and not after it.

    Raises:
        ConfigError: naming the key.
    """
    logged = ["val/loss"]
    if "val" in (references := data.references()):
        logged += [f"val/{name}" for name in build_metrics(data.spec, heads=model.heads, **references["val"]).names]
    watching = [("", settings.monitor, settings.mode)]
    watching += [(f"{path}.", node.monitor, node.get("mode")) for path, node in _nodes_with_monitor(settings)]
    for path, metric, mode in watching:
        if mode not in (None, "max", "min"):
            raise ConfigError(f"{path}mode={mode}: give max where more is better, else min")
        # schedules are shown the scores of the validation only
        trained = str(metric).startswith("train/") and not path.startswith("model.")
        if metric is not None and metric not in logged and not trained:
            raise ConfigError(f"{path}monitor={metric}: it is not logged; there are {', '.join(logged)}")


def _nodes_with_monitor(settings: TrainSettings) -> Iterator[tuple[str, DictConfig]]:
    """The model's parts and the callbacks that watch a score, with their place in the config."""
    for group in ("model", "callbacks"):
        yield from _find_monitors(getattr(settings, group), group)


def _find_monitors(node: object, path: str) -> Iterator[tuple[str, DictConfig]]:
    if not isinstance(node, DictConfig):
        return
    if "monitor" in node:
        yield path, node
    for key in node:
        yield from _find_monitors(node.get(key), f"{path}.{key}")
