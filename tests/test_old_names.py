"""Configs that earlier versions wrote name classes by their old paths."""

import pytest
import torch
from networks import transformer

from neuro_lightning.artifacts.old_names import (
    AUTOENCODER,
    CNN,
    LFADS,
    MOVED,
    NDT,
    ROBERTA,
    STNDT,
    update_names,
    update_weights,
)
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.settings.registry import find_target


@pytest.mark.parametrize("old", MOVED)
def test_a_moved_class_is_found_under_its_path_of_today(old):
    assert callable(find_target(MOVED[old]))
    with pytest.raises(ConfigError, match=f"has moved: write {MOVED[old]}"):
        find_target(old)


def test_update_names_replaces_nested_paths_and_keeps_everything_else():
    old, new = next(iter(MOVED.items()))
    config = {"data": {"_target_": old, "sizes": [{"_target_": old}], "path": old}, "n": 3, "none": None}
    assert update_names(config) == {
        "data": {"_target_": new, "sizes": [{"_target_": new}], "path": old}, "n": 3, "none": None,
    }  # fmt: skip


def without_targets(config):
    parts = {k: without_targets(v) if isinstance(v, dict) else v for k, v in config.items()}
    return {k: v for k, v in parts.items() if k != "_target_"}


FLAT = {"_target_": NDT, "raw_counts": True, "linear_embedder": False, "readout_dropout": 0.2, "reach_ms": None}
GROUPED = {
    "_target_": NDT,
    "inputs": {"_target_": "x", "raw_counts": False, "linear_embedder": True, "positions": "learned"},
    "dropout": {"layers": 0.1, "readout": 0.2},
}
SHARED = {"dropout": 0.4, "readin": {"dropout": 0.4}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            FLAT,
            {
                "readin": {"counts": True, "width": None},
                "readout": {"dropout": 0.2},
                "attention": {"reach_ms": None},
            },
        ),
        (
            GROUPED,
            {
                "readin": {"counts": False, "width": "auto"},
                "positions": "learned",
                "dropout": {"layers": 0.1},
                "readout": {"dropout": 0.2},
            },
        ),
        (
            {"_target_": STNDT, "width": 8, "contrast": 0.3},
            {"width": 8, "readin": {"width": "auto"}, "contrast": {"weight": 0.3}},
        ),
        ({"_target_": ROBERTA, "dropout": 0.4}, {**SHARED, "readout": {"dropout": 0.4}}),
        ({"_target_": LFADS, "dropout": 0.4}, SHARED),
        ({"_target_": AUTOENCODER, "init_bias_mean": False}, {"readout": {"start_at_mean": False}}),
    ],
)
def test_older_configs_get_the_settings_of_read_in_and_readout(old, new):
    updated = update_names(old)
    assert without_targets(updated) == new
    for name in new:
        if isinstance(new[name], dict):
            assert callable(find_target(updated[name]["_target_"]))
    assert update_names(updated) == updated, "what is written today stays as it is"


def test_weights_and_optimizer_state_of_an_older_checkpoint_are_put_in_order():
    """A transformer's norm and readout came first in its module, and so in its optimizer."""
    torch.manual_seed(0)
    net = transformer(NDTNet, layers=1)
    values = dict(net.named_parameters())
    older = {
        "norm.": "core.norm.", "readout.": "readout.linear.", "embedder.": "readin.linear.",
        "positions.": "core.positions.", "layers.": "core.layers.",
    }  # fmt: skip
    old = {
        one + name.removeprefix(new): value
        for one, new in older.items()
        for name, value in values.items()
        if name.startswith(new)
    }
    assert len(old) == len(values) and list(old)[2:5] == ["readout.weight", "readout.bias", "embedder.weight"]
    checkpoint = {
        "state_dict": {f"net.{name}": value for name, value in old.items()},
        "trained_weights": dict(old),
        "optimizer_states": [{"state": dict(enumerate({"exp_avg": value} for value in old.values()))}],
    }
    update_weights(checkpoint, NDT)
    assert checkpoint["trained_weights"].keys() == values.keys()
    for name, value in values.items():
        assert checkpoint["state_dict"][f"net.{name}"] is value and checkpoint["trained_weights"][name] is value
    state = checkpoint["optimizer_states"][0]["state"]
    assert all(state[i]["exp_avg"] is value for i, value in enumerate(values.values()))
    before = dict(checkpoint["state_dict"])
    update_weights(checkpoint, NDT)
    assert checkpoint["state_dict"] == before, "today's names stay as they are"


def test_layers_of_an_older_convolutional_network_are_those_of_its_core():
    old = ["conv.0.linear.weight", "dense.0.linear.bias", "logits.linear.weight"]
    new = ["core.conv.0.linear.weight", "core.dense.0.linear.bias", "logits.linear.weight"]
    state = {"state": {i: {"exp_avg": torch.tensor(i)} for i in range(3)}}
    for _ in range(2):  # today's names stay as they are
        checkpoint = {"state_dict": {f"net.{name}": i for i, name in enumerate(old)}, "optimizer_states": [dict(state)]}
        update_weights(checkpoint, CNN)
        assert checkpoint["state_dict"] == {f"net.{name}": i for i, name in enumerate(new)}
        assert checkpoint["optimizer_states"] == [state]
        old = new
