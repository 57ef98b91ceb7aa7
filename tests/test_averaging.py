"""Averages of the weights are what they are said to be, and what is validated, saved and scored."""

import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import PLAIN, ROOT, TINY, checkpoint, here, record, rows, same
from tiny import Tiny
from torch import nn

from neuro_lightning.callbacks.averaging import EMA, RAW, SWA
from neuro_lightning.errors import ConfigError
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.evaluation import evaluate, network_predictor
from neuro_lightning.settings.config import instantiate

FAST = ["model.optimizer.lr=0.05"]
AVERAGES = {
    "ema": ["callbacks/average=ema", "callbacks.average.decay=0.7", "callbacks.average.start=0.2"],
    "swa": ["callbacks/average=swa", "callbacks.average.start=0.3"],
}
STEPS = ("+callbacks.steps={_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',save_top_k:-1,"
         "auto_insert_metric_name:false,every_n_train_steps:1,filename:'step{step}'}")  # fmt: skip


def raw_weights(folder, steps) -> list[dict[str, torch.Tensor]]:
    """The network after each of these steps, whose checkpoints the run kept."""
    contents = [checkpoint(folder, f"step{step}.ckpt") for step in steps]
    return [
        content.get(RAW)
        or {k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")}
        for content in contents
    ]


def averaged(folder, name="last.ckpt") -> dict[str, torch.Tensor]:
    state = checkpoint(folder, name)["state_dict"]
    return {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}


def assert_mean(found, members, weights):
    total = sum(weights)
    for name, value in found.items():
        wanted = sum(w * member[name].double() for w, member in zip(weights, members, strict=True)) / total
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)
        if "weight" in name:
            assert not torch.equal(value, members[-1][name])


class Net(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
        self.norm = nn.BatchNorm1d(1)
        self.norm.running_mean += value
        self.norm.num_batches_tracked += int(value)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_ema_of_a_known_sequence(decay):
    values = [3.0, -1.0, 4.0, 1.0]
    average = EMA(decay)
    for value in values:
        average.update(Net(value))
    weights = [decay**i for i in reversed(range(4))]
    wanted = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert average.average["weight"].item() == pytest.approx(wanted, rel=1e-12)
    assert average.average["norm.running_mean"].item() == pytest.approx(wanted, rel=1e-6)
    assert average.average["weight"].dtype == torch.float64
    assert not {"mask", "norm.num_batches_tracked"} & set(average.average), "infinities and counters have no mean"


def test_swa_of_a_known_sequence():
    average = SWA()
    for value in (3.0, -1.0, 4.0, 1.0):
        average.update(Net(value))
    assert average.average["weight"].item() == pytest.approx(1.75, rel=1e-12)


@pytest.fixture(scope="module", params=list(AVERAGES))
def run(request, tmp_path_factory):
    """Four epochs of four steps, with a checkpoint after each step; and its folder as it was then."""
    overrides = [*FAST, *AVERAGES[request.param], STEPS, "trainer.max_epochs=4"]
    done = here(tmp_path_factory.mktemp("run") / "run", *overrides)
    done.name, done.overrides = request.param, overrides
    done.last, done.rows, done.record = checkpoint(done.folder), rows(done.folder), record(done.folder)
    done.kept = shutil.copytree(done.folder, done.folder.with_name("kept"))
    return done


def test_what_is_saved_is_the_average_of_the_steps(run):
    """EMA of all steps after a fifth of the 16; SWA of the epochs' ends after three tenths."""
    steps = list(range(4, 17)) if run.name == "ema" else [8, 12, 16]
    weights = [0.7 ** (16 - step) if run.name == "ema" else 1.0 for step in steps]
    assert_mean(averaged(run.kept), raw_weights(run.kept, steps), weights)
    middle = {"ema": list(range(4, 11)), "swa": [8]}[run.name]
    found = averaged(run.kept, "step10.ckpt")
    if run.name == "ema":
        assert_mean(found, raw_weights(run.kept, middle), [0.7 ** (10 - step) for step in middle])
    else:
        assert same(found, raw_weights(run.kept, middle)[0])


def test_training_continues_with_the_raw_weights(run, tmp_path):
    plain = here(tmp_path / "plain", *FAST, STEPS, "trainer.max_epochs=4")
    for step in (3, 8, 16):
        (one,), (other,) = raw_weights(plain.folder, [step]), raw_weights(run.kept, [step])
        assert same(dict(one), dict(other))
    assert plain.score != run.score


def test_what_is_scored_is_what_is_saved(run):
    """As returned, as logged at the best validation, and as computed anew from best.ckpt alone."""
    with initialize_config_dir(str(ROOT / "conf")):
        data = instantiate(compose("train", overrides=TINY).data, trusted=["tiny"])
    anew = evaluate(network_predictor(load_checkpoint(run.kept).model.net), data, "val")
    assert anew["co_bps"] == run.score == run.record["metrics"]["val/co_bps"]
    assert max(float(row["val/co_bps"]) for row in run.rows) == pytest.approx(run.score, rel=1e-6)


@pytest.mark.parametrize("moment", [2, 4, 10, 12])
def test_a_resumed_run_is_the_uninterrupted_one(run, moment):
    shutil.rmtree(run.folder)
    shutil.copytree(run.folder.with_name("snapshots") / f"step{moment}", run.folder)
    score = here(run.folder, *run.overrides, f"resume='{run.folder}/checkpoints/step{moment}.ckpt'").score
    last = checkpoint(run.folder)
    for what in ("state_dict", "optimizer_states", "lr_schedulers", RAW, "global_step"):
        assert same(last[what], run.last[what]), what
    mine = [value for name, value in last["callbacks"].items() if name in ("EMA", "SWA")]
    assert mine == [{"count": 13 if run.name == "ema" else 3}]
    assert rows(run.folder) == run.rows and score == run.score


def test_a_decay_of_zero_keeps_the_last_weights(tmp_path):
    plain = here(tmp_path / "plain", *FAST)
    none = here(tmp_path / "none", *FAST, "callbacks/average=ema", "callbacks.average.decay=0")
    assert none.score == plain.score and rows(none.folder) == rows(plain.folder)
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = checkpoint(none.folder, name), checkpoint(plain.folder, name)
        assert same(ours["state_dict"], theirs["state_dict"])
        assert same(ours["optimizer_states"], theirs["optimizer_states"])


@pytest.mark.parametrize("name", list(AVERAGES))
def test_several_steps_at_once_and_double_precision(tmp_path, name):
    overrides = [*FAST, *AVERAGES[name], "++trainer.precision=64-true"]
    one = here(tmp_path / "one", *overrides)
    three = here(tmp_path / "three", *overrides, "data.steps_at_once=3")
    assert three.score == one.score
    for file in ("best.ckpt", "last.ckpt"):
        ours, theirs = checkpoint(three.folder, file), checkpoint(one.folder, file)
        assert same(ours["state_dict"], theirs["state_dict"]) and same(ours[RAW], theirs[RAW])
    assert all(value.dtype == torch.float64 for value in ours[RAW].values())
    assert all(ours["state_dict"][f"net.{name}"].dtype == torch.float64 for name in ours[RAW])


@pytest.mark.parametrize("name", list(AVERAGES))
def test_a_fitted_model_is_not_averaged(tmp_path, name):
    chosen = [word for word in TINY if not word.startswith("model")] + ["model=smoothing"]
    plain = here(tmp_path / "plain", base=chosen)
    with_average = here(tmp_path / "average", *AVERAGES[name], base=chosen)
    assert with_average.score == plain.score
    content = checkpoint(with_average.folder, "best.ckpt")
    assert RAW not in content and same(content["state_dict"], checkpoint(plain.folder, "best.ckpt")["state_dict"])


def test_without_checkpoints_the_final_model_is_the_average(tmp_path):
    kept = here(tmp_path / "kept", *FAST, *AVERAGES["swa"], "trainer.max_epochs=4")
    words = ["callbacks.checkpoint=null", "trainer.max_epochs=4"]
    none = here(tmp_path / "none", *FAST, *AVERAGES["swa"], *words)
    last = load_checkpoint(kept.folder / "checkpoints/last.ckpt").model.net
    data = Tiny(n_train=37, n_val=11, poison={}, batch_size=10, eval_batch_size=4)
    assert evaluate(network_predictor(last), data, "val")["co_bps"] == none.score


@pytest.mark.parametrize("words", ["EMA(decay=1)", "EMA(0.9, start=1)", "SWA(start=-0.1)"])
def test_invalid_decay_and_start_are_refused(words):
    with pytest.raises(ConfigError, match=r"callbacks\.average\.(decay|start)="):
        eval(words)


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ema", pytest.param("swa", marks=pytest.mark.rare)])
def test_two_processes_average_as_one(tmp_path, name):
    descent = ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.5"]
    words = [*PLAIN, *descent, *AVERAGES[name]]
    here(tmp_path / "two", *words, "trainer=ddp_cpu", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1")
    one = here(tmp_path / "one", *words)
    ours, theirs = checkpoint(tmp_path / "two"), checkpoint(one.folder)
    for key in ("state_dict", RAW):
        for weight, value in theirs[key].items():
            torch.testing.assert_close(ours[key][weight], value, rtol=1e-9, atol=1e-11)
    assert record(tmp_path / "two")["objective"]["value"] == pytest.approx(one.score, rel=1e-9)
