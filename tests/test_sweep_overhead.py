"""What the jobs of a sweep in one process do once: read the data, fit the baselines, import. Times: benchmarks/."""

import os

import numpy as np
import pytest
import tiny
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, checkpoint, command_here, record, same

from neuro_lightning.data import memory
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.models.smoothing import Smoothing
from neuro_lightning.runs.train import train

BASELINES = [word for word in TINY if word != "baselines=null"]


@pytest.fixture(autouse=True)
def nothing_of_another_test():
    memory.JOBS.clear()
    yield
    memory.JOBS.clear()


def job(folder, *overrides, group="sweep"):
    """A run as a job of a sweep, in this process."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*BASELINES, f"paths.output_dir={folder}", *overrides])
    train(cfg, overrides, group)
    return folder


@pytest.fixture
def counts(monkeypatch):
    """How often data are read and baselines fitted."""
    found = {"load": 0, "fit_net": 0}

    def counted(cls, name):
        function = getattr(cls, name)

        def call(*args, **kwargs):
            found[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(cls, name, call)

    counted(tiny.Tiny, "load")
    counted(Smoothing, "fit_net")
    return found


def test_jobs_that_share_data_and_baselines_give_the_same_results(tmp_path, counts):
    seeds = [0, 1]
    apart = [job(tmp_path / f"apart{seed}", f"seed={seed}", group=None) for seed in seeds]
    assert counts == {"load": 2, "fit_net": 2}
    together = [job(tmp_path / f"together{seed}", f"seed={seed}") for seed in seeds]
    assert counts == {"load": 3, "fit_net": 3}  # once for both, whatever the seed and the order of trials
    for one, other in zip(apart, together, strict=True):
        assert same(checkpoint(one)["state_dict"], checkpoint(other)["state_dict"])
        assert same(checkpoint(one)["optimizer_states"], checkpoint(other)["optimizer_states"])
        for key in ("objective", "metrics", "baselines", "oracle", "references", "data"):
            assert record(one)[key] == record(other)[key]
        assert record(one)["baselines"].keys() == {"smoothing"}


def test_other_data_are_read_anew_but_other_batch_sizes_reuse_them(tmp_path, counts):
    job(tmp_path / "a")
    job(tmp_path / "b", "data.batch_size=7", "data.eval_batch_size=5")
    assert counts == {"load": 1, "fit_net": 2}  # sums over other batches may differ in the last digit
    job(tmp_path / "c", "data.n_train=20")
    assert counts == {"load": 2, "fit_net": 3}
    job(tmp_path / "d", "baselines.smoothing.kernel_sd_ms=[20]")
    assert counts == {"load": 2, "fit_net": 4}
    assert record(tmp_path / "d")["baselines"] != record(tmp_path / "a")["baselines"]


def test_results_that_draw_from_the_global_generators_are_not_shared(tmp_path, counts, monkeypatch):
    for cls, name in ((tiny.Tiny, "load"), (Smoothing, "fit_net")):
        function = getattr(cls, name)
        draws = lambda *args, function=function: (torch.rand(1), function(*args))[1]  # noqa: E731
        monkeypatch.setattr(cls, name, draws)
    folders = [job(tmp_path / name) for name in "ab"]
    assert counts == {"load": 2, "fit_net": 2}
    assert same(*(checkpoint(folder)["state_dict"] for folder in folders))


# ---- what is kept


def recording(value=0.0, n=3, **more):
    heldin = np.full((n, 4, 2), value, np.float32)
    splits = {name: Trials(heldin.copy(), behavior=np.zeros((n, 4, 2)).transpose(0, 2, 1)) for name in ("train", "val")}
    return Recording("x", 10, splits, np.arange(2), info={"list": [1]}, **more)


def test_changes_by_one_job_do_not_reach_the_next():
    first = recording()
    memory.JOBS.keep_recording("key", first)
    for spoiled in (first, memory.JOBS.find_recording("key"), memory.JOBS.find_recording("key")):
        spoiled.splits["train"].heldin[:] = np.nan
        spoiled.info["list"].append(2)
        spoiled.splits.pop("val")
        found = memory.JOBS.find_recording("key")
        assert not found.splits["train"].heldin.any() and found.info == {"list": [1]} and len(found.splits) == 2
    assert found.splits["train"].behavior.strides == recording().splits["train"].behavior.strides
    with pytest.raises(ValueError, match="read-only"):
        memory.JOBS._recordings["key"][0].splits["train"].heldin[:] = 1
    first = {"val": {"co_bps": 1.0}}
    for spoiled in (memory.JOBS.scores("key", dict, lambda _: first), first, memory.JOBS.scores("key", dict, dict)):
        spoiled["val"]["co_bps"] = 2.0
        assert memory.JOBS.scores("key", dict, dict) == {"val": {"co_bps": 1.0}}


def test_least_recently_used_recordings_are_dropped(monkeypatch):
    size = memory._size(recording())
    monkeypatch.setattr(memory, "MOST_BYTES", 2 * size)
    memory.JOBS.keep_recording("a", recording(1))
    memory.JOBS.keep_recording("b", recording(2))
    assert memory.JOBS.find_recording("a") is not None
    memory.JOBS.keep_recording("c", recording(3))
    assert [memory.JOBS.find_recording(key) is None for key in "abc"] == [False, True, False]
    memory.JOBS.keep_recording("d", recording(n=9))  # too large by itself: nothing else goes for it
    assert memory.JOBS.find_recording("d") is None and memory.JOBS.find_recording("a") is not None


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "data.h5"
    path.write_text("one")
    memory.JOBS.keep_recording("key", recording(sources=[{"path": str(path), "size": 3}]))
    assert memory.JOBS.find_recording("key") is not None
    before = memory.config_key({"path": str(path), "more": [str(tmp_path)]})
    os.utime(path, ns=(1, 1))
    assert memory.JOBS.find_recording("key") is None
    assert memory.config_key({"path": str(path), "more": [str(tmp_path)]}) != before


def test_a_sweep_reads_its_data_once_in_each_of_its_processes(tmp_path):
    words = [word for word in TINY if not word.startswith("trusted")]
    done = command_here(
        tmp_path, "-m", *words, "trusted=[tiny,launched]", "data._target_=launched.Counted", "seed=0,1,2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 of 3 jobs finished" in done.stdout
    assert len((tmp_path / "loads.txt").read_text().splitlines()) == 1
