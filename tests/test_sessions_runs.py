"""Whole runs on several recordings: resumed to the bit, the same in two processes, in any order, from the config."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TESTS, TINY, checkpoint, command_here, here, record, rows, same
from test_ddp import DESCENT, TWO

from neuro_lightning.cli import train_arguments
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.runs.sessions import with_sessions

A, B = "+data@data.sessions.a=tiny_session", "+data@data.sessions.b=tiny_session"
SIZES = ["data.sessions.a.n_train=23", "data.sessions.b.n_train=11", "data.sessions.b.seed=1",
         "data.sessions.b.missing=2"]  # fmt: skip
SESSIONS = [
    *(word for word in TINY if not word.startswith(("data=", "trusted"))), "trusted=[tiny,tiny_sessions]",
    "data=sessions", "data.batch_size=5", "data.eval_batch_size=4",
]  # fmt: skip
BASE = [*SESSIONS, A, B, *SIZES]
STEPS = ("+callbacks.steps={_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',save_top_k:-1,"
         "auto_insert_metric_name:false,every_n_train_steps:1,filename:'step{step}'}")  # fmt: skip
EMA = ["callbacks/average=ema", "callbacks.average.decay=0.7", "callbacks.average.start=0.2"]
KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step", "neuro_lightning")


def assert_same_run(one, other):
    for what in KEPT:
        assert same(checkpoint(one)[what], checkpoint(other)[what]), what
    assert rows(one) == rows(other) and record(one)["metrics"] == record(other)["metrics"]


@pytest.mark.parametrize(
    ("moments", "words"),
    [
        (["step4", "step8", "step10"], []),  # eight batches in an epoch
        (["step5", "step12"], [*EMA, "data.sampling=even"]),
        (["step11"], ["data.steps_at_once=3"]),
    ],
    ids=["plain", "average", "several at once"],
)
def test_from_within_an_epoch_the_same_bits(tmp_path, moments, words):
    whole = here(tmp_path / "run", STEPS, *words, base=BASE).folder
    shutil.copytree(whole, tmp_path / "whole")
    for moment in moments:
        shutil.rmtree(whole)
        shutil.copytree(tmp_path / "snapshots" / moment, whole)
        assert len(rows(whole)) < 3, "there was something left to do"
        here(whole, STEPS, *words, f"resume={whole}/checkpoints/{moment}.ckpt", base=BASE)
        assert_same_run(whole, tmp_path / "whole")


def test_several_steps_at_once_and_sessions_in_another_order_give_the_same_bits(tmp_path):
    one = here(tmp_path / "one", base=BASE).folder
    assert_same_run(here(tmp_path / "order", base=[*SESSIONS, B, A, *SIZES]).folder, one)
    many = here(tmp_path / "many", "data.steps_at_once=5", base=BASE).folder
    for what in ("state_dict", "optimizer_states", "global_step"):
        assert same(checkpoint(many)[what], checkpoint(one)[what])
    assert rows(many) == rows(one)
    even = here(tmp_path / "even", "data.sampling=even", base=BASE).folder
    assert not same(checkpoint(even)["state_dict"], checkpoint(one)["state_dict"])


def test_a_sessions_scores_and_their_mean_are_logged_and_kept(tmp_path):
    run = here(tmp_path, "baselines={smoothing:{_target_:neuro_lightning.models.smoothing.Smoothing,"
               "kernel_sd_ms:[20],alpha:[0.1]}}", base=BASE)  # fmt: skip
    found = record(tmp_path)
    last = rows(tmp_path)[-1]
    assert float(last["val/co_bps"]) == pytest.approx(np.mean([float(last[f"val/co_bps/{name}"]) for name in "ab"]))
    metrics = found["metrics"]
    assert run.score == metrics["val/co_bps"] == pytest.approx((metrics["val/co_bps/a"] + metrics["val/co_bps/b"]) / 2)
    assert {"co_bps", "co_bps/a", "co_bps/b"} <= set(found["baselines"]["smoothing"]["val"])
    assert set(found["data"]["sessions"]) == {"a", "b"}


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["++trainer.accumulate_grad_batches=3", "data.sampling=even"]])
def test_two_processes_equal_one(tmp_path, words):
    """Though a batch leaves the networks of the other sessions without a gradient."""
    two = here(tmp_path / "two", *DESCENT, *TWO, *words, base=BASE).folder
    one = here(tmp_path / "one", *DESCENT, *words, base=BASE).folder
    assert (record(two)["processes"], record(one)["processes"]) == (2, 1)
    ours, theirs = checkpoint(two)["state_dict"], checkpoint(one)["state_dict"]
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-9, atol=1e-11)
    assert record(two)["metrics"] == pytest.approx(record(one)["metrics"], rel=1e-9)
    assert record(two)["config"]["trainer"]["strategy"]["find_unused_parameters"] is True


@pytest.mark.slow
def test_regions_of_images_are_trained_on_together(tmp_path):
    """And the best setting of a sweep names their score."""
    twin = "twin={train_images: 60, neurons: 6, dogs: 2, noise: 1}"
    words = [
        "data=sessions", "+data@data.sessions.r1=antolik_v1", "+data@data.sessions.r2=antolik_v1",
        "data.sessions.r2.region=2", f"paths.data={tmp_path}", "trainer=cpu", "trainer.max_epochs=1", "logger=csv",
        "callbacks=minimal", "baselines.rln=null", "model.conv=[{filters: 2, kernel: 3}]", "model.dense=[{units: 3}]",
        *(f"data.sessions.{name}.{word}" for name in ("r1", "r2") for word in ("simulate=true", twin)),
    ]  # fmt: skip
    sweep = tmp_path / "sweep"
    done = command_here(tmp_path, "-m", *words, "model=cnn", "seed=0,1", f"hydra.sweep.dir={sweep}")
    assert done.returncode == 0, done.stderr
    best = command_here(tmp_path, f"experiment={sweep / 'best.yaml'}", f"hydra.run.dir={tmp_path / 'again'}")
    assert best.returncode == 0, best.stderr
    found = record(tmp_path / "again")
    assert {"val/corr", "val/corr/r1", "val/corr/r2", "test/corr/r2"} <= set(found["metrics"])
    assert found["objective"]["name"] == "val/corr" and "rates_corr/r1" in found["oracle"]["val"]


def test_traces_are_autoencoded_together(tmp_path):
    """Beside linear baselines of each recording alone."""
    base = [word for word in SESSIONS if not word.startswith(("model", "baselines", "trusted"))]
    words = [
        "trusted=[tiny_traces]", "+data@data.sessions.a=tiny_traces", "+data@data.sessions.b=tiny_traces",
        "data.sessions.b.n_in=6", "model=lstm_autoencoder", "model.latent_dim=3",
    ]  # fmt: skip
    here(tmp_path, *words, base=base)
    found = record(tmp_path)
    assert found["objective"]["name"] == "val/mse"
    for scores in (
        found["baselines"]["pca"]["val"],
        {k[4:]: v for k, v in found["metrics"].items() if k[:4] == "val/"},
    ):
        assert scores["mse"] == pytest.approx((scores["mse/a"] + scores["mse/b"]) / 2)
    weights = checkpoint(tmp_path)["state_dict"]
    assert weights["net.sessions.0.readin.linear.weight"].shape == (3, 8)
    assert weights["net.sessions.1.readin.linear.weight"].shape == (3, 6)


def test_short_runs(tmp_path):
    """A few batches are of all sessions, and epochs are counted by the steps on all of them."""
    here(tmp_path / "fast", "debug=fast", base=BASE)
    overfitted = here(tmp_path / "overfit", "++trainer.overfit_batches=2", base=BASE).folder
    assert record(overfitted)["steps"] == 6
    start = {name: value for name, value in checkpoint(tmp_path / "fast")["state_dict"].items()}
    end = checkpoint(overfitted)["state_dict"]
    assert {name.split(".")[2] for name in end if not torch.equal(start[name], end[name])} == {"0", "1"}
    words = [word for word in BASE if not word.startswith("trainer.max_epochs")]
    here(tmp_path / "least", "data.least_steps=30", "epochs=2", base=words)
    assert record(tmp_path / "least")["steps"] == 32, "four epochs of eight steps"


# ---- the config


def composed(*words):
    with initialize_config_dir(str(ROOT / "conf")):
        return with_sessions(compose("train", overrides=[*words]))


@pytest.mark.parametrize(
    ("data", "monitor", "baselines"),
    [
        (["mc_maze_small", "mc_maze_medium"], "val/co_bps", {"smoothing"}),
        (["antolik_v1", "stringer_natimg"], "val/corr", {"mean", "rln"}),
        (["stringer_spontaneous", "array_traces"], "val/mse", {"zero", "constant", "mean", "pca", "fa"}),
    ],
)
def test_configs_of_one_kind_bring_their_score(data, monitor, baselines):
    words = [f"+data@data.sessions.s{i}={name}" for i, name in enumerate(data)]
    cfg = composed("data=sessions", *words)
    assert cfg.monitor == monitor and set(cfg.baselines) == baselines


def test_sessions_are_listed_by_their_configs():
    words = train_arguments(["data=sessions", "data.sessions=[mc_maze_small,mc_rtt]", "data.sessions.mc_rtt.bin_ms=20"])
    cfg = composed(*words)
    assert {name: part.bin_ms for name, part in cfg.data.sessions.items()} == {"mc_maze_small": 5, "mc_rtt": 20}
    named = composed(*train_arguments(["data=sessions", "data.sessions={one: antolik_v1, two: antolik_v1}"]))
    assert set(named.data.sessions) == {"one", "two"} and named.monitor == "val/corr"
    for word, message in (
        ("data.sessions=[mc_rtt,mc_rtt]", r"lists mc_rtt more than once: .*{one: mc_rtt, two: mc_rtt}"),
        ("data.sessions=[mc_rtt],[dmfc_rsg]", "cannot be swept; give each list a file"),
        ("data.sessions=[mc_rt]", "did you mean 'mc_rtt'"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_arguments(["data=sessions", word])


def test_a_config_of_ones_own_names_the_sessions(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "defaults:\n  - sessions\n  - /data@sessions.a: tiny_session\n  - /data@sessions.b: tiny_session\n  - _self_\n"
        "batch_size: 5\neval_batch_size: 4\nsessions:\n  a: {n_train: 23}\n"
        "  b: {n_train: 11, seed: 1, missing: 2}\n"
    )
    search = f"hydra.searchpath=[file://{TESTS / 'conf'},file://{tmp_path}]"
    words = [word for word in SESSIONS if not word.startswith(("hydra.searchpath", "data"))]
    typed = command_here(tmp_path / "typed", *BASE, f"hydra.run.dir={tmp_path / 'one'}")
    mine = command_here(tmp_path / "file", *words, search, "data=mine", f"hydra.run.dir={tmp_path / 'other'}")
    assert typed.returncode == mine.returncode == 0, typed.stderr + mine.stderr
    assert_same_run(tmp_path / "one", tmp_path / "other")


@pytest.mark.slow
def test_models_and_sampling_are_swept(tmp_path):
    words = [word for word in BASE if not word.startswith("model")]
    done = command_here(
        tmp_path, "-m", *words, "model=gru,ndt", "data.sampling=proportional,even", "trainer.max_epochs=1",
        f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.sweep.subdir=${hydra.job.num}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = [record(tmp_path / "sweep" / str(job))["objective"]["value"] for job in range(4)]
    assert len(set(scores)) == 4


# ---- files


def write(path, seed, n=9, neurons=6):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["train_data"], file["valid_data"] = (rng.poisson(0.7, (k, 12, neurons)) for k in (n, 5))
    return path


FILES = [*(word for word in TINY if not word.startswith(("data=", "trusted"))), "data=lfads_h5", "data.batch_size=5"]


def test_a_list_a_folder_and_a_pattern_are_the_same_run(tmp_path):
    one, other = write(tmp_path / "in" / "x_mon.h5", 0), write(tmp_path / "in" / "x_tue.h5", 1, neurons=8)
    runs = [
        here(tmp_path / str(i), f"data.path={value}", base=FILES).folder
        for i, value in enumerate((f"[{other},{one}]", one.parent, f"'{one.parent}/x_*.h5'"))
    ]
    assert set(record(runs[0])["data"]["sessions"]) == {"mon", "tue"}
    for run in runs[1:]:
        assert same(checkpoint(run)["state_dict"], checkpoint(runs[0])["state_dict"]) and rows(run) == rows(runs[0])
    alone = here(tmp_path / "alone", f"data.path=[{one}]", base=FILES).folder
    assert set(record(alone)["data"]["sessions"]) == {"x_mon"}


def test_damaged_files_are_named(tmp_path, caplog):
    """Of a folder the others are trained on; in a list, which was typed, all of them are an error."""
    whole = [write(tmp_path / "in" / f"{name}.h5", seed) for seed, name in enumerate("ab")]
    damaged = [tmp_path / "in" / f"{name}.h5" for name in "cd"]
    for file in damaged:
        file.write_bytes(whole[0].read_bytes()[:700])
    here(tmp_path / "folder", f"data.path={tmp_path / 'in'}", base=FILES)
    assert set(record(tmp_path / "folder")["data"]["sessions"]) == {"a", "b"}
    for file in damaged:
        (line,) = [r.getMessage() for r in caplog.records if f"session {file.stem} is left out" in r.getMessage()]
        assert str(file) in line
    with pytest.raises(DataError) as caught:
        here(tmp_path / "list", f"data.path=[{','.join(map(str, [*whole, *damaged]))}]", base=FILES)
    assert all(str(file) in line for file, line in zip(damaged, str(caught.value).splitlines(), strict=True))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("[]", r"data\.path=\[\] names no file"),
        ("[{0}/a.h5,{0}/a.h5]", "names .*a.h5 more than once"),
        ("{0}/empty", "holds no .*: name a file, a list of files, a folder or a pattern"),
        ("'{0}/z*.h5'", "fits no file"),
        ("[{0}/a.h5,{0}/copy.h5]", "9 train trials of session a are training trials of session copy"),
    ],
)
def test_paths_that_name_no_sessions_are_one_line(tmp_path, path, message):
    shutil.copy(write(tmp_path / "a.h5", 0), tmp_path / "copy.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        here(tmp_path / "run", f"data.path={path.format(tmp_path)}", base=FILES)


def test_a_model_without_a_core_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"^PLDS cannot run on tiny .spikes.: it is fitted to one recording"):
        words = [word for word in BASE if not word.startswith("model")]
        here(tmp_path, "model=plds", base=words)
