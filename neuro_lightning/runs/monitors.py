"""The score that chooses a run's checkpoint: which one the data have, and whether anything logs it."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.module import PopulationDataModule
from neuro_lightning.errors import ConfigError
from neuro_lightning.metrics.catalog import info
from neuro_lightning.metrics.collection import build_metrics

CO_SMOOTHING = "val/co_bps"


def choose_monitor(cfg: DictConfig, spec: DataSpec) -> bool:
    """Without held-out neurons there is no co-smoothing: ``val/fp_bps`` or ``val/bps`` takes its place in the config.

    Args:
        cfg: the run's config; every ``monitor`` in it that is ``val/co_bps`` is changed.
        spec: what is known of the data.

    Returns:
        Whether the config was changed, which a line says.
    """
    if spec.kind != "spikes" or spec.n_out or cfg.monitor != CO_SMOOTHING:
        return False
    name = "fp_bps" if spec.n_forward else "bps"
    for node in [cfg, *(node for _, node in _watching(cfg))]:
        if node.monitor == CO_SMOOTHING:
            OmegaConf.update(node, "monitor", f"val/{name}")
    print(f"No neurons are held out: val/{name}, {info(name).title}, takes the place of {CO_SMOOTHING}.")
    return True


def check_monitors(cfg: DictConfig, data: PopulationDataModule) -> None:
    """A monitored metric that nobody logs is an error before the training, not after it.

    Raises:
        ConfigError: naming the key.
    """
    for key, mode in {"mode": cfg.mode, **{f"{path}.mode": node.get("mode") for path, node in _watching(cfg)}}.items():
        if mode not in (None, "max", "min"):
            raise ConfigError(f"{key}={mode}: give max where more is better, else min")
    logged = ["val/loss"]
    if "val" in (references := data.references()):
        logged += [f"val/{name}" for name in build_metrics(data.spec, **references["val"]).names]
    for key, metric in {"monitor": cfg.monitor, **{f"{p}.monitor": n.monitor for p, n in _watching(cfg)}}.items():
        # schedules are shown the scores of the validation only
        trained = str(metric).startswith("train/") and not key.startswith("model.")
        if metric is not None and metric not in logged and not trained:
            raise ConfigError(f"{key}={metric}: nobody logs it; with these data there are {', '.join(logged)}")


def _watching(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The model's parts and the callbacks that watch a score, with their place in the config."""
    for group in ("model", "callbacks"):
        yield from _with_monitor(cfg.get(group), group)


def _with_monitor(node: object, path: str) -> Iterator[tuple[str, DictConfig]]:
    if not isinstance(node, DictConfig):
        return
    if "monitor" in node:
        yield path, node
    for key in node:
        yield from _with_monitor(node.get(key), f"{path}.{key}")
