"""Names of classes, keys and weights that earlier versions wrote: their checkpoints and run folders still open."""

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
    "neuro_lightning.models.ndt.CountInputs": "neuro_lightning.nn.readin.ReadInSettings",
    "neuro_lightning.nn.step_transformer.Inputs": "neuro_lightning.nn.readin.ReadInSettings",
}
"""Old path of a class -> its path today."""

DATASETS = {"array_images": "images"}
"""Old name of a dataset -> its name today; ``conf/data`` has a file of the old name that composes today's."""

TWINS = {"stringer_spontaneous": 2}
"""Version that a dataset's simulated twin had when identities did not say it, where it was not 1."""

MODELS = "neuro_lightning.models"
CNN = f"{MODELS}.cnn.CNN"
NDT, STNDT, GRU = f"{MODELS}.ndt.NDT", f"{MODELS}.stndt.STNDT", f"{MODELS}.gru.GRU"
LFADS, ROBERTA = f"{MODELS}.lfads.LFADS", f"{MODELS}.neural_roberta.NeuralRoberta"
AUTOENCODER = f"{MODELS}.lstm_autoencoder.LSTMAutoencoder"
TRANSFORMER_KEYS = {
    "smoothed_ms": "readin.smoothed_ms",
    "inputs.smoothed_ms": "readin.smoothed_ms",
    "raw_counts": "readin.counts",
    "inputs.raw_counts": "readin.counts",
    "context_forward_ms": "attention.context_forward_ms",
    "context_backward_ms": "attention.context_backward_ms",
    "reach_ms": "attention.reach_ms",
    "embedding_dropout": "dropout.embedding",
    "layer_dropout": "dropout.layers",
    "attention_dropout": "dropout.attention",
    "readout_dropout": "readout.dropout",
    "dropout.readout": "readout.dropout",
}
ATTENTION_HEADS = {"heads": "attention_heads"}  # a number; today heads are what decodes behavior, by name
EMBEDDING_KEYS = {"count_width": "readin.count_width", "max_count": "readin.max_count"}
MOVED_KEYS = {
    NDT: {
        **ATTENTION_HEADS,
        **TRANSFORMER_KEYS,
        **EMBEDDING_KEYS,
        **{f"inputs.{old}": new for old, new in EMBEDDING_KEYS.items()},
        "linear_embedder": "readin.width",
        "inputs.linear_embedder": "readin.width",
        "inputs.positions": "positions",
    },
    STNDT: {
        **ATTENTION_HEADS,
        **TRANSFORMER_KEYS,
        "contrast": "contrast.weight",
        "contrast_ratio": "contrast.ratio",
        "temperature": "contrast.temperature",
    },
    GRU: {
        "input_dropout": "readin.dropout",
        "readout_dropout": "readout.dropout",
        "smoothed_ms": "readin.smoothed_ms",
        "projection": "readin.width",
    },
    AUTOENCODER: {"init_bias_mean": "readout.start_at_mean"},
    ROBERTA: ATTENTION_HEADS,
    LFADS: {},
}
"""Class -> its old keys, with today's."""
SHARED_DROPOUT = {ROBERTA: ("readin", "readout"), LFADS: ("readin",)}
"""Class -> parts that had no dropout of their own, but that of ``dropout``."""
GROUPS = {
    "readin": "neuro_lightning.nn.readin.ReadInSettings",
    "readout": "neuro_lightning.nn.rate_readout.ReadoutSettings",
    "attention": "neuro_lightning.nn.step_transformer.Attention",
    "dropout": "neuro_lightning.nn.step_transformer.Dropouts",
    "contrast": f"{MODELS}.stndt.Contrast",
}
"""Group of keys -> the class that holds them today."""
WIDTHS = {True: "auto", False: None}
"""Whether there was a linear embedder -> today's ``readin.width``."""
PARTS = {"projection": "readin.linear", "embedder": "readin.linear", "embedding": "readin.embedding.0"}
"""First name of a network's weights -> today's; of the readout ``readout.linear``, of all others the core."""


def update_override(word: str, model: str) -> str:
    """An override of an earlier version, such as ``model.layer_dropout=0.3``, with today's key.

    Args:
        word: the override.
        model: the class that ``model`` names.
    """
    key, equals, value = word.partition("=")
    sign = key[: len(key) - len(key.lstrip("+~"))]
    old = key.removeprefix(f"{sign}model.")
    new = MOVED_KEYS.get(model, {}).get(old)
    if not new or old == key or (old in ATTENTION_HEADS and not value[:1].isdigit()):
        return word
    if old.endswith("linear_embedder"):
        value = "auto" if value.lower() == "true" else "null"
    return f"{sign}model.{new}{equals}{value}"


def update_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """The same identity of data (:mod:`neuro_lightning.data.identity`), with today's names, and the twin's version."""
    sessions = {name: update_identity(one) for name, one in identity.get("sessions", {}).items()}
    found = {**identity, "name": DATASETS.get(identity["name"], identity["name"])}
    if identity.get("simulated") and identity.get("kind") in ("images", "traces") and not sessions:
        found.setdefault("twin", TWINS.get(found["name"], 1))
    return {**found, "sessions": sessions} if sessions else found


def _update_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The same arguments of one class, those that have moved in their groups."""
    model = str(config.get("_target_"))
    if isinstance(config.get("heads"), int) and "heads" in MOVED_KEYS.get(model, {}):
        config = {ATTENTION_HEADS.get(key, key): value for key, value in config.items()}
    if model not in MOVED_KEYS or "readin" in config:
        return config
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    if model == STNDT:
        found["linear_embedder"] = True
    for old, new in {**MOVED_KEYS[model], "linear_embedder": "readin.width"}.items():
        outer, _, name = old.rpartition(".")
        holder = found.get(outer, {}) if outer else found
        if not isinstance(holder, dict) or isinstance(holder.get(name, {}), dict):
            continue
        value = holder.pop(name)
        part, _, key = new.rpartition(".")
        (found.setdefault(part, {}) if part else found)[key] = WIDTHS[value] if "embedder" in old else value
    found.pop("inputs", None)
    for part in SHARED_DROPOUT.get(model, ()):
        found[part] = {"dropout": found.get("dropout", 0.0)}
    for group, target in GROUPS.items():
        if isinstance(found.get(group), dict):
            found[group].setdefault("_target_", target)
    return found


def update_weights(checkpoint: dict[str, Any], model: str) -> None:
    """Give the weights of a checkpoint today's names, and its optimizer's state today's order, in place.

    Networks of sequences had their read-in, core and readout side by side in one module, and convolutional ones the
    layers of their core.

    Args:
        checkpoint: as Lightning wrote it.
        model: the class that it is of.
    """
    old = [name for name in checkpoint.get("state_dict", {}) if name.startswith("net.")]
    if model not in (*MOVED_KEYS, CNN) or any(name.startswith(("net.core.", "net.sessions.")) for name in old):
        return
    today = _part_of_convolutions if model == CNN else _part
    names = {name: f"net.{today(name.removeprefix('net.'))}" for name in old}
    checkpoint["state_dict"] = {names.get(name, name): value for name, value in checkpoint["state_dict"].items()}
    if raw := checkpoint.get("trained_weights"):
        checkpoint["trained_weights"] = {today(name): value for name, value in raw.items()}
    parts = ("net.readin.", "net.core.", "net.readout.", "net.logits.")
    order = sorted(range(len(old)), key=lambda i: [names[old[i]].startswith(part) for part in parts].index(True))
    for optimizer in checkpoint.get("optimizer_states", ()):
        if order != sorted(order):
            optimizer["state"] = {new: optimizer["state"][i] for new, i in enumerate(order) if i in optimizer["state"]}


def _part(name: str) -> str:
    first, _, rest = name.partition(".")
    if first == "readout":
        return f"readout.linear.{rest}"
    return f"{PARTS[first]}.{rest}" if first in PARTS else f"core.{name}"


def _part_of_convolutions(name: str) -> str:
    return name if name.startswith("logits.") else f"core.{name}"


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
