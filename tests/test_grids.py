"""Several grids one after another in one sweep, as the mutations of the UWNDC19 winner."""

import csv
import shutil
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT, TESTS, command_here, record

from neuro_lightning.nn.conv import ConvLayer, DenseLayer
from neuro_lightning.settings.config import check_config
from neuro_lightning.settings.settings import TrainSettings
from neuro_lightning.sweeps.grid import Grid


def composed(*overrides):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


def grid(**settings):
    made = Grid(**settings)
    made.loader = None
    return made


def test_each_mutation_of_the_winner_is_another_network_that_can_be_built():
    jobs = grid(grids=composed("sweep=uwndc19_mutations").hydra.sweeper.grids).jobs([])
    assert len(jobs) == 31 and jobs[0] == [], "the first one is the network itself"
    found = []
    for job in jobs:
        config = composed("sweep=uwndc19_mutations", *job)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        check_config(config, known=TrainSettings.config_keys())
        model = OmegaConf.to_container(config.model)
        layers = [ConvLayer.parse(values, "conv") for values in model["conv"]]
        layers += [DenseLayer.parse(values, "dense") for values in (*model["dense"], {"units": 1, **model["logits"]})]
        found.append(layers)
    assert all(found.count(layers) == 1 for layers in found)
    assert {len(layers) for layers in found} == {4, 5, 6}


def test_a_grids_own_values_come_last_and_meet_all_others():
    given = grid(params={"x": 1, "y": "1,2"}, grids=[{}, {"x": "5,6", "z": None, "w": True}])
    assert given.jobs(["y=3", "s=0,1"]) == [
        ["x=1", "y=3", "s=0"], ["x=1", "y=3", "s=1"],
        *(["x=" + x, "y=3", "s=" + s, "z=null", "w=True"] for x in "56" for s in "01"),
    ]  # fmt: skip


GRIDS = "hydra.sweeper.grids=[{},{model.conv.0.kernel:11},{model.dense:'[{units:5}],[{units:6}]'}]"


@pytest.mark.slow
def test_a_sweep_of_grids_can_be_resumed(tmp_path):
    done = command_here(
        tmp_path, "-m", f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[pictures]", "data=pictures",
        "model=cnn", "model.conv=[{filters:4,kernel:3,padding:valid}]", "model.dense=[]", "debug=fast",
        "hydra.sweep.dir=here", GRIDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Sweep: 3 of 4 jobs finished" in done.stdout
    with open(tmp_path / "here" / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model.conv.0.kernel"] for row in rows] == ["", "11", "", ""]
    assert "nothing is left of images" in rows[1]["error"], "12 x 10 pixels are too few for it"
    assert [row["model.dense"] for row in rows] == ["[]", "[]", "[{units:5}]", "[{units:6}]"]
    job = SimpleNamespace(folder=tmp_path / "here" / rows[2]["job"])
    before = record(job.folder)
    shutil.rmtree(job.folder)
    assert command_here(tmp_path, "-m", "sweep.resume=here").returncode == 0
    assert record(job.folder)["objective"] == before["objective"]
    assert [layer["units"] for layer in record(job.folder)["config"]["model"]["dense"]] == [5]
