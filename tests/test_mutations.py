import copy
import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from runs import ROOT, TESTS, command, record

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.mutations import Mutations, expand, mutate

MODEL = {
    "conv": [{"filters": 32, "kernel": 5}, {"filters": 64, "kernel": 5, "batch_norm": True}],
    "dense": [{"units": 512, "dropout": 0.4}],
    "logits": {"dropout": 0.4},
    "output": "relu",
}
LAYERS = {key: MODEL[key] for key in ("conv", "dense", "logits")}


@pytest.fixture(autouse=True)
def no_trials_of_another_test():
    """What a test registers is gone after it."""
    yield
    ConfigStore.instance().repo.pop("mutation", None)


@pytest.mark.parametrize(
    ("name", "arguments", "place", "expected"),
    [
        ("base", {}, "conv", LAYERS["conv"]),
        ("toggle_batch_norm", {"layer_id": 0}, "conv",
         [{"filters": 32, "kernel": 5, "batch_norm": True}, LAYERS["conv"][1]]),
        ("toggle_batch_norm", {"layer_id": 1}, "conv",
         [LAYERS["conv"][0], {"filters": 64, "kernel": 5, "batch_norm": False}]),
        ("add_conv_layer", {"filters": 96, "kernel": 3, "batch_norm": True}, "conv",
         [*LAYERS["conv"],
          {"filters": 96, "kernel": 3, "padding": "same", "dropout": 0, "l2": 0, "batch_norm": True}]),
        ("delete_last_conv_layer", {}, "conv", LAYERS["conv"][:1]),
        ("change_conv_layer", {"layer_id": 1, "kernel": 3, "batch_norm": False}, "conv",
         [LAYERS["conv"][0], {"filters": 64, "kernel": 3, "batch_norm": False}]),
        ("add_dense_layer", {"units": 9}, "dense", [*LAYERS["dense"], {"units": 9, "dropout": 0, "l2": 0}]),
        ("change_dense_layer", {"layer_id": 0, "dropout": 0}, "dense", [{"units": 512, "dropout": 0}]),
        ("change_logits_layer", {"dropout": 0.2}, "logits", {"dropout": 0.2}),
    ],
)  # fmt: skip
def test_a_mutation_changes_one_thing_of_a_copy(name, arguments, place, expected):
    before = copy.deepcopy(MODEL)
    assert mutate(MODEL, [(name, arguments)]) == {**LAYERS, place: expected}
    assert before == MODEL  # no mutation leaks into the trials after it


def test_mutations_are_composed_in_order():
    steps = [("delete_last_conv_layer", {}), ("add_conv_layer", {"filters": 8, "kernel": 1}),
             ("change_conv_layer", {"layer_id": 1, "filters": 9})]  # fmt: skip
    assert [layer["filters"] for layer in mutate(MODEL, steps)["conv"]] == [32, 9]
    with pytest.raises(ConfigError, match="layer_id=1"):
        mutate(MODEL, [steps[0], steps[2]])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("toggle_batch_norm", {"layer_id": 2}, "batch_norm-layer_id=2: layer_id=2: the model's conv layers are 0 to 1"),
        ("toggle_batch_norm", {"layer_id": -1}, "layer_id=-1: the model's conv layers are 0 to 1"),
        ("change_dense_layer", {"layer_id": "0", "units": 3}, "layer_id='0': the model's dense layers are 0 to 0"),
        ("change_conv_layer", {"layer_id": 0}, "changes nothing; give one of filters, kernel"),
        ("change_logits_layer", {"dropout_rate": 0.2}, "'dropout_rate'; its arguments are dropout, l2"),
        ("add_conv_layer", {"filters": 3}, "missing a required argument: 'kernel'"),
        ("add_conv_layer", {"filters": 0, "kernel": 3}, r"conv\[2\].filters=0: give a whole number from 1"),
        ("add_dense_layer", {"units": 3, "dropout": 1.5}, r"dense\[1\].dropout=1.5"),
        ("change_logits_layer", {"dropout": -1}, "logits.dropout=-1"),
        ("widen", {}, "mutation widen: no such mutation; there are base, toggle_batch_norm, .* and compose"),
    ],
)  # fmt: skip
def test_a_mutation_that_cannot_be_is_named(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        mutate(MODEL, [(name, arguments)])


def test_a_model_without_layers_or_with_none_left_is_refused():
    with pytest.raises(ConfigError, match="this one has no conv: model=cnn has"):
        mutate({"hidden": 3}, [("base", {})])
    with pytest.raises(ConfigError, match="delete_last_conv_layer: the model has no convolutional layer"):
        mutate(MODEL, [("delete_last_conv_layer", {})] * 3)


def test_grids_are_expanded_to_their_products():
    trials = expand({
        "base": [{}],
        "add_conv_layer": [{"filters": [8, 16], "kernel": [3, 5]}, {"filters": 8, "kernel": 3, "batch_norm": True}],
        "change_logits_layer": [{"dropout": [0, 0.2]}, {"dropout": 0.2}],
        "compose": [[{"delete_last_conv_layer": {}}, {"add_dense_layer": {"units": [4, 5]}}]],
    })  # fmt: skip
    assert list(trials) == [
        "base", "add_conv_layer-filters=8-kernel=3", "add_conv_layer-filters=8-kernel=5",
        "add_conv_layer-filters=16-kernel=3", "add_conv_layer-filters=16-kernel=5",
        "add_conv_layer-filters=8-kernel=3-batch_norm=true", "change_logits_layer-dropout=0",
        "change_logits_layer-dropout=0.2", "delete_last_conv_layer+add_dense_layer-units=4",
        "delete_last_conv_layer+add_dense_layer-units=5",
    ]  # fmt: skip
    assert trials["add_conv_layer-filters=16-kernel=5"] == [("add_conv_layer", {"filters": 16, "kernel": 5})]
    assert trials["delete_last_conv_layer+add_dense_layer-units=5"] == [
        ("delete_last_conv_layer", {}), ("add_dense_layer", {"units": 5}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must map mutations to lists of grids, such as"),
        ({"base": {}}, "base needs a list of grids"),
        ({"base": [3]}, "a grid of base must map arguments to lists of values, not 3"),
        ({"wider": [{}]}, "file.yaml: wider: no such mutation; there are base"),
        ({"compose": [{"base": {}}]}, "compose needs lists of mutations, such as"),
        ({"compose": [[{"wider": {}}]]}, "wider: no such mutation"),
    ],
)
def test_a_wrong_file_is_named(content, message):
    with pytest.raises(ConfigError, match=message):
        expand(content, "file.yaml")


def composed(*overrides):
    """What a sweep's own config is, as Hydra composes it."""
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", overrides=["sweep=uwndc19_mutations", *overrides], return_hydra_config=True)


def jobs_of(config, *arguments, **settings):
    sweeper = Mutations(**{"mutations": config.hydra.sweeper.mutations, **settings})
    sweeper.config, sweeper.hydra_context = config, SimpleNamespace(config_loader=None)
    return sweeper.jobs(arguments)


def test_the_winner_and_its_mutations_fit_together():
    config = composed()
    assert config.hydra.sweeper._target_ == "neuro_lightning.sweeps.mutations.Mutations"
    trials = expand(OmegaConf.to_container(config.hydra.sweeper.mutations))
    assert len(trials) > 20
    names = [job[-1] for job in jobs_of(config)]
    assert sorted(names) == sorted(f"+mutation='{name}'" for name in trials)
    assert names != [f"+mutation='{name}'" for name in trials]  # in random order, which the seed decides
    assert names == [job[-1] for job in jobs_of(config)] != [job[-1] for job in jobs_of(config, shuffle=1)]


def test_the_base_model_is_that_of_the_command_line():
    given = ["model.dense=[]", "++model.logits.dropout=0.1", "seed=1,2", "model.output=none"]
    config = composed(*(word for word in given if not word.startswith("seed")))
    few = OmegaConf.create({"add_dense_layer": [{"units": 7}]})
    # the layers are in the mutated config: given again they would undo the mutation
    assert jobs_of(config, *given, mutations=few) == [
        [f"seed={seed}", "model.output=none", "+mutation='add_dense_layer-units=7'"] for seed in (1, 2)
    ]
    node = ConfigStore.instance().load("mutation/add_dense_layer-units=7.yaml").node
    assert node.model.dense == [{"units": 7, "dropout": 0, "l2": 0}] and node.model.logits.dropout == 0.1
    with pytest.raises(ConfigError, match="model=cnn,gru: mutations are of one model; give one value"):
        jobs_of(config, "model.dense=[],[]", "model=cnn,gru", mutations=few)
    with pytest.raises(ConfigError, match=r"model.dense=\[\],\[\]: the mutations change these layers; give one value"):
        jobs_of(config, "model.dense=[],[]", mutations=few)
    with pytest.raises(ConfigError, match="this one has no conv: model=cnn has"):
        jobs_of(composed("model=gru", "data=lorenz"), mutations=few)


FEW = """
# @package _global_
defaults: [override /hydra/sweeper: mutations, override /model: cnn, override /data: pictures]
hydra:
  sweeper:
    mutations:
      base: [{}]
      add_conv_layer: [{filters: 3, kernel: 3, batch_norm: true}]
      change_conv_layer: [{layer_id: 0, kernel: 11, padding: valid}]
"""
NAMES = ["base", "add_conv_layer-filters=3-kernel=3-batch_norm=true",
         "change_conv_layer-layer_id=0-kernel=11-padding=valid"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_a_list_of_mutations_becomes_a_sweep_that_goes_on(tmp_path, launcher):
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "sweep" / "few.yaml").write_text(FEW)
    done = command(
        tmp_path, "-m", f"hydra.searchpath=[file://{TESTS / 'conf'},file://{tmp_path / 'conf'}]", "sweep=few",
        f"hydra/launcher={launcher}", "hydra.sweep.dir=here", "trusted=[pictures]", "debug=fast", "seed=0,1",
        "model.conv=[{filters:4,kernel:3}]", "model.dense=[]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Sweep: 4 of 6 jobs finished" in done.stdout
    folder = tmp_path / "here"
    with open(folder / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["mutation"], row["seed"]) for row in rows) == sorted((n, s) for n in NAMES for s in "01")
    convs = {}
    for row in rows:
        saved = record(folder / row["job"])
        convs[row["mutation"]] = [layer["kernel"] for layer in saved["config"]["model"]["conv"]]
        if row["mutation"] == NAMES[2]:  # 12 x 10 pixels have no room for it
            assert row["status"] == "failed" and "nothing is left of images of 12 x 10 pixels" in saved["error"]
        else:
            assert row["status"] == "finished" and np.isfinite(float(row["objective"]))
    assert list(map(convs.get, NAMES)) == [[3], [3, 3], [11]]
    if launcher == "basic":
        go_on(tmp_path, folder, next(row for row in rows if row["mutation"] == NAMES[1]))


def go_on(tmp_path, folder, row):
    """A job that was lost is done again, with its mutation; another goes on by itself."""
    before = record(folder / row["job"])
    shutil.rmtree(folder / row["job"])
    done = command(tmp_path, "-m", "sweep.resume=here")
    assert done.returncode == 0, done.stderr
    again = record(folder / row["job"])
    assert again["objective"] == before["objective"]
    assert again["config"]["model"]["conv"] == before["config"]["model"]["conv"]
    done = command(tmp_path, f"resume=here/{row['job']}", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    longer = record(folder / row["job"])
    assert longer["checkpoints"]["epochs"] == 2
    assert longer["config"]["model"]["conv"] == before["config"]["model"]["conv"]
