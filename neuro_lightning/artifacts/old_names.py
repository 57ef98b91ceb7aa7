"""Names of classes and keys in configs that earlier versions wrote: checkpoints keep opening when one moves."""

from __future__ import annotations

from typing import Any

DATA = "neuro_lightning.data"
MOVED = {
    f"{DATA}.datamodules.NLB": f"{DATA}.nlb.datamodule.NLB",
    f"{DATA}.datamodules.NWB": f"{DATA}.nwb.datamodule.NWB",
    f"{DATA}.datamodules.LFADSH5": f"{DATA}.lfads_h5.datamodule.LFADSH5",
    f"{DATA}.datamodules.Lorenz": f"{DATA}.synthetic.datamodule.Lorenz",
    f"{DATA}.datamodules.ChaoticRNN": f"{DATA}.synthetic.datamodule.ChaoticRNN",
    f"{DATA}.simulate.trials.Sizes": f"{DATA}.synthetic.simulate.Sizes",
    f"{DATA}.antolik.datamodules.AntolikV1": f"{DATA}.antolik.datamodule.AntolikV1",
    f"{DATA}.stringer.datamodules.Spontaneous": f"{DATA}.stringer.datamodule.Spontaneous",
    f"{DATA}.stringer_stimuli.datamodules.NaturalImages": f"{DATA}.stringer_stimuli.datamodule.NaturalImages",
    f"{DATA}.stringer_stimuli.datamodules.Orientations": f"{DATA}.stringer_stimuli.datamodule.Orientations",
    f"{DATA}.uwndc19.datamodules.UWNDC19": f"{DATA}.uwndc19.datamodule.UWNDC19",
}
"""Old path of a class -> its path today."""

SETTINGS = "neuro_lightning.nn.step_transformer"
TRANSFORMER_KEYS = {
    "smoothed_ms": "inputs.smoothed_ms",
    "raw_counts": "inputs.raw_counts",
    "context_forward_ms": "attention.context_forward_ms",
    "context_backward_ms": "attention.context_backward_ms",
    "reach_ms": "attention.reach_ms",
    "embedding_dropout": "dropout.embedding",
    "layer_dropout": "dropout.layers",
    "attention_dropout": "dropout.attention",
    "readout_dropout": "dropout.readout",
}
MOVED_KEYS = {
    "neuro_lightning.models.ndt.NDT": {
        **TRANSFORMER_KEYS,
        **{name: f"inputs.{name}" for name in ("count_width", "max_count", "linear_embedder", "positions")},
    },
    "neuro_lightning.models.stndt.STNDT": {
        **TRANSFORMER_KEYS,
        "contrast": "contrast.weight",
        "contrast_ratio": "contrast.ratio",
        "temperature": "contrast.temperature",
    },
}
"""Class -> its old keys, with today's."""
GROUPS = {
    ("neuro_lightning.models.ndt.NDT", "inputs"): "neuro_lightning.models.ndt.CountInputs",
    ("neuro_lightning.models.stndt.STNDT", "inputs"): f"{SETTINGS}.Inputs",
    ("neuro_lightning.models.stndt.STNDT", "contrast"): "neuro_lightning.models.stndt.Contrast",
    **{
        (model, group): f"{SETTINGS}.{name}"
        for model in MOVED_KEYS
        for group, name in (("attention", "Attention"), ("dropout", "Dropouts"))
    },
}
"""(Class, group of keys) -> the class that holds them today."""


def update_override(word: str, model: str) -> str:
    """An override of an earlier version, such as ``model.layer_dropout=0.3``, with today's key.

    Args:
        word: the override.
        model: the class that ``model`` names.
    """
    key, equals, value = word.partition("=")
    sign = key[: len(key) - len(key.lstrip("+~"))]
    new = MOVED_KEYS.get(model, {}).get(key.removeprefix(f"{sign}model."))
    return f"{sign}model.{new}{equals}{value}" if new and key.startswith(f"{sign}model.") else word


def _update_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The same arguments of one class, those that have moved in their groups."""
    model = str(config.get("_target_"))
    moved, groups = MOVED_KEYS.get(model, {}), dict[str, dict[str, Any]]()
    for old, new in moved.items():
        group, name = new.split(".")
        if old in config and not isinstance(config[old], dict):
            groups.setdefault(group, {"_target_": GROUPS[model, group]})[name] = config[old]
    if not groups:
        return config
    return {key: value for key, value in config.items() if key not in moved} | groups


def update_names(config: Any) -> Any:
    """The same config, with today's path in each ``_target_``, and today's keys."""
    if isinstance(config, dict):
        return _update_keys(
            {
                key: MOVED.get(value, value) if key == "_target_" and isinstance(value, str) else update_names(value)
                for key, value in config.items()
            }
        )
    if isinstance(config, list | tuple):
        return type(config)(update_names(value) for value in config)
    return config
