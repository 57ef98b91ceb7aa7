"""``hydra/launcher=stacked``: jobs of a sweep that are trained as one are the jobs that they would be alone."""

import csv

import pytest
from hydra import compose, initialize_config_dir
from runs import PLAIN, ROOT, TINY, checkpoint, command_here, record, same
from test_members import at, close, files, learned

from neuro_lightning.errors import ConfigError
from neuro_lightning.sweeps.launchers import Stacked
from neuro_lightning.sweeps.stacked import group_jobs

SWEPT = ["-m", *TINY, "trainer.max_epochs=2", "hydra.sweep.dir=sweep"]
JOBS = [f"{k}_tiny_gru" for k in range(3)]


def table(folder):
    with open(folder / "sweep" / "sweep.csv", newline="") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def test_a_stacked_sweep_ends_in_the_table_of_another(tmp_path):
    words = [*SWEPT, *PLAIN, "seed=0,1", "model.optimizer.lr=0.01,0.003"]
    stacked = command_here(tmp_path / "stacked", *words, "hydra/launcher=stacked")
    assert stacked.returncode == 0 and "4 jobs are trained as one stack" in stacked.stdout, stacked.stderr
    alone = command_here(tmp_path / "alone", *words)
    assert [line.split("  ")[0] for line in stacked.stdout.splitlines() if line.startswith("job ")] == [
        line.split("  ")[0] for line in alone.stdout.splitlines() if line.startswith("job ")
    ]
    one, other = table(tmp_path / "stacked"), table(tmp_path / "alone")
    assert one.keys() == other.keys() and len(one) == 4
    for job, row in one.items():
        mine, own = (tmp_path / place / "sweep" / job for place in ("stacked", "alone"))
        assert float(row["objective"]) == pytest.approx(float(other[job]["objective"]), abs=1e-7)
        assert close(learned(mine), learned(own)) and files(mine) == files(own)
        assert record(mine)["overrides"] == record(own)["overrides"]
        assert "val/co_bps" in (mine / "output.log").read_text()


def test_a_resumed_stack_of_jobs_ends_in_the_same_bits(tmp_path):
    words = [*SWEPT, "seed=0,1", "model.readin.dropout=0.5", "hydra/launcher=stacked", "trainer.max_epochs=3"]
    whole = command_here(tmp_path, *words, at(1, 2, "copy"))
    assert whole.returncode == 0, whole.stderr
    copy = tmp_path / "copy"
    assert [checkpoint(copy / job)["global_step"] for job in JOBS[:2]] == [12, 8]
    resumed = command_here(tmp_path, "-m", "sweep.resume=copy")
    assert resumed.returncode == 0, resumed.stderr
    for job in JOBS[:2]:
        assert same(learned(copy / job), learned(tmp_path / "sweep" / job))


def grouped(*jobs, most=10):
    with initialize_config_dir(str(ROOT / "conf")):
        configs = [compose("train", overrides=[*TINY, *job]) for job in jobs]
    return group_jobs(configs, most)


def test_jobs_that_differ_in_numbers_of_the_training_are_grouped():
    numbers = ["seed=1", "model.optimizer.lr=0.1", "model.optimizer.weight_decay=1", "model.readin.dropout=0.1",
               "model.masking.rate=0.3", "masking@model.masking=variable", "trainer.max_epochs=9"]  # fmt: skip
    together = [[word] for word in numbers]
    others = [["model.hidden=4"], ["data.n_train=20"], ["++trainer.precision=64-true"]]
    alone = [["optimizer@model.optimizer=sam"], ["model.members=3"]]
    stacks, reasons = grouped(*together, *others, *alone)
    assert stacks == [[0, 1, 2, 3, 4, 5, 6]]
    assert reasons.keys() == {7, 8, 9, 10, 11} and len(set(reasons.values())) == 3
    assert "SAM" in reasons[10] and "a stack already" in reasons[11]
    assert "hydra.sweeper.n_jobs" in grouped(["seed=1"])[1][0], "a search that proposes one at a time"
    assert grouped(*together, most=3)[0] == [[0, 1, 2], [3, 4, 5]]


def test_a_number_of_jobs_below_one_is_refused():
    with pytest.raises(ConfigError, match="most=0"):
        Stacked(most=0)._launch([], 0)
