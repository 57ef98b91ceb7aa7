"""The final fit sees training and validation trials, takes the chosen path, and predicts test trials only."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import PLAIN, ROOT, TINY, checkpoint, here, record, rows, same
from tiny import Tiny
from tiny_traces import TinyTraces

from neuro_lightning.data.images import ImageTrials
from neuro_lightning.data.join_splits import cut_sequences, join_train_and_val
from neuro_lightning.data.recording import Recording
from neuro_lightning.errors import CheckpointError, ConfigError, DataError, Interrupted
from neuro_lightning.models.loading import choose_checkpoint, load_checkpoint
from neuro_lightning.runs import refit as module
from neuro_lightning.runs.evaluation import evaluate, network_predictor
from neuro_lightning.runs.predict import predict as run_predict
from neuro_lightning.runs.refit import joint_data

REFIT = ["refit=true", "model.optimizer.lr=0.3", "trainer.max_epochs=4"]  # so fast that the best is not the last


def tiny(**changes) -> Tiny:
    return Tiny(**{"n_train": 37, "n_val": 11, "poison": {}, "batch_size": 10, "eval_batch_size": 4, **changes})


def predict(folder, *words) -> str:
    """What ``predict.py`` prints."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=[f"ckpt={folder}", "trusted=[tiny]", "overwrite=true", *words])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run_predict(cfg)
    return printed.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return here(tmp_path_factory.mktemp("run") / "run", *REFIT)


# ---- which trials


def test_joined_splits_hold_every_trial_once():
    data = tiny()
    splits, joint = data.recording.splits, joint_data(data)
    both = joint.recording.splits["train"]
    for name in ("heldin", "heldout", "heldin_forward", "heldout_forward", "behavior", "condition", "rates", "row"):
        np.testing.assert_array_equal(
            getattr(both, name), np.concatenate([getattr(splits[split], name) for split in ("train", "val")])
        )
    assert set(joint.recording.splits) == {"train", "test"} and set(data.recording.splits) == {"train", "val", "test"}
    counts = np.concatenate([both.heldin, both.heldout], axis=2)
    np.testing.assert_allclose(joint.spec.mean_rates, np.nanmean(counts, (0, 1), dtype=float), rtol=1e-12)
    assert joint.spec.mean_rates != data.spec.mean_rates
    assert [*joint.spec.to_dict()] == [*data.spec.to_dict()] and joint.spec.unit_ids == data.spec.unit_ids


@pytest.mark.parametrize(("n_val", "batch"), [(11, 10), (2, 10), (90, 10), (11, 37), (11, 1)])
def test_an_epoch_has_its_number_of_steps_and_every_trial_once(n_val, batch):
    data = tiny(n_val=n_val, batch_size=batch)
    steps, joint = len(data.train_dataloader()), joint_data(data)
    index = [batch["index"] for batch in joint.train_dataloader()]
    assert len(index) == steps == len(joint.train_dataloader())
    assert torch.cat(index).sort().values.tolist() == list(range(37 + n_val))


def test_longer_sequences_are_cut_into_training_windows():
    data = TinyTraces(n_in=4, n_out=2, n_train=5, n_bins=8, noise=0.1)
    val = data.recording.splits["val"]
    joint = join_train_and_val(data.recording, stride=3).splits["train"]
    assert joint.heldin.shape == (5 + 4, 8, 4) and joint.heldout.shape == (9, 8, 2)
    for k, start in enumerate((0, 3, 6, 8)):
        np.testing.assert_array_equal(joint.heldin[5 + k], val.heldin[0, start : start + 8])
        np.testing.assert_array_equal(joint.rates[5 + k], val.rates[0, start : start + 8])
        assert joint.condition[5 + k] == val.condition[0]
    side_by_side = cut_sequences(val, 8)
    np.testing.assert_array_equal(side_by_side.heldin.reshape(1, 16, 4), val.heldin)
    with pytest.raises(DataError, match=r"16 bins to validate with and trains on windows of 20: take data\.window=16"):
        data.recording.splits["train"] = cut_sequences(TinyTraces(
            n_in=4, n_out=2, n_train=1, n_bins=20, noise=0.1).recording.splits["train"], 20)  # fmt: skip
        join_train_and_val(data.recording)


def pictures(n, seed, repeats=None):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, 1, 3, 3)).astype(np.float32)
    shown = None if repeats is None else rng.normal(size=(n, repeats, 2))
    return ImageTrials(images, rng.normal(size=(n, 2)), repeats=shown)


def test_images_are_joined_without_their_repeats_but_never_with_test_images():
    splits = {"train": pictures(4, 0, repeats=1), "val": pictures(3, 1, repeats=5), "test": pictures(3, 2)}
    recording = Recording("pictures", 0, splits, np.arange(2), kind="images")
    joint = join_train_and_val(recording).splits["train"]
    np.testing.assert_array_equal(joint.images[4:], splits["val"].images)
    assert joint.repeats is None and len(joint) == 7
    splits["test"] = pictures(3, 1)
    with pytest.raises(DataError, match="pictures validates on its test trials; a refit would train on them"):
        join_train_and_val(recording)


def test_trials_of_other_lengths_are_refused():
    data = tiny()
    val = data.recording.splits["val"]
    val.heldin = val.heldin[:, :-1]
    with pytest.raises(DataError, match=r"heldin of shape \(12, 6\) in a training trial and \(11, 6\)"):
        join_train_and_val(data.recording)


# ---- which steps


def test_the_same_path_for_as_many_steps(tmp_path, monkeypatch):
    """With the training trials alone, the refit is the checkpoint that was chosen, bit for bit."""
    monkeypatch.setattr(module, "join_train_and_val", lambda recording, stride: recording)
    words = ["scheduler@model.scheduler=cosine", "callbacks/average=ema", "callbacks.average.decay=0.6"]
    run = here(tmp_path / "run", *REFIT, *words, "data.steps_at_once=3", "model.masking.rate=0.3")
    best, again = (checkpoint(run.folder, name) for name in ("best.ckpt", "refit.ckpt"))
    assert best["global_step"] == again["global_step"] < checkpoint(run.folder)["global_step"]
    assert same(best["state_dict"], again["state_dict"])


def test_a_schedule_is_shown_what_it_saw(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "join_train_and_val", lambda recording, stride: recording)
    words = ["scheduler@model.scheduler=plateau", "model.scheduler.patience=0", "model.scheduler.monitor=val/loss",
             "model.scheduler.mode=max", "monitor=val/fp_bps"]  # fmt: skip
    run = here(tmp_path / "run", *REFIT, *words)
    best, again = (checkpoint(run.folder, name) for name in ("best.ckpt", "refit.ckpt"))
    lowered = best["optimizer_states"][0]["param_groups"][0]["lr"]
    assert best["global_step"] > 4 and lowered < 0.3, "the rate fell before the best checkpoint"
    assert same(best["state_dict"], again["state_dict"])


def test_rates_of_the_schedule_in_the_refit(tmp_path, monkeypatch):
    """Step by step those of the first training, although there are more trials."""
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a, **k: rates.append(self.param_groups[0]["lr"]) or step(self, *a, **k)
    )
    run = here(tmp_path / "run", *REFIT, "scheduler@model.scheduler=cosine", "mode=min")
    total, steps = checkpoint(run.folder)["global_step"], record(run.folder)["refit"]["steps"]
    assert total == 16 and len(rates) == total + steps and steps < total
    assert rates[total:] == rates[:steps] and len(set(rates[:steps])) > 2


# ---- what is left of it


def test_what_the_record_says(run):
    said = record(run.folder)
    best, again = (checkpoint(run.folder, name) for name in ("best.ckpt", "refit.ckpt"))
    assert said["status"] == "finished" and said["refit"].keys() == {
        "steps", "trials", "checkpoint", "seconds", "metrics"
    }  # fmt: skip
    assert said["refit"]["steps"] == best["global_step"] == again["global_step"] and said["refit"]["trials"] == 48
    assert said["refit"]["checkpoint"] == str(run.folder / "checkpoints" / "refit.ckpt")
    saved = load_checkpoint(said["refit"]["checkpoint"])
    assert saved.fitted_on == ("train", "val") and load_checkpoint(run.folder).fitted_on == ("train",)
    assert saved.spec == joint_data(tiny()).spec
    anew = evaluate(network_predictor(saved.model.net), tiny(), "test")
    assert said["refit"]["metrics"] == {f"test/{name}": value for name, value in anew.items()}


def test_the_first_training_is_as_without_a_refit(run, tmp_path):
    plain = here(tmp_path / "run", *(word for word in REFIT if word != "refit=true"))
    assert plain.score == run.score and rows(plain.folder) == rows(run.folder)
    assert not (plain.folder / "checkpoints" / "refit.ckpt").exists() and "refit" not in record(plain.folder)
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = checkpoint(run.folder, name), checkpoint(plain.folder, name)
        assert same(ours["state_dict"], theirs["state_dict"])
    assert record(plain.folder)["metrics"] == record(run.folder)["metrics"]
    assert not same(checkpoint(run.folder, "refit.ckpt")["state_dict"], checkpoint(run.folder)["state_dict"])


ONE_EPOCH = [*REFIT, "trainer.max_epochs=1"]  # there is nothing to choose: both take its last step


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    return here(tmp_path_factory.mktemp("one") / "run", *ONE_EPOCH)


@pytest.mark.parametrize(("part", "changes"), [("test:nan", False), ("val.heldout:3.0", True)])
def test_what_reaches_the_refit(one_epoch, tmp_path, part, changes):
    """Validation targets do, test trials do not; neither reaches the best checkpoint."""
    other = here(tmp_path, *ONE_EPOCH, f"++data.poison={{{part}}}")
    for name, wanted in (("best.ckpt", True), ("refit.ckpt", not changes)):
        one, two = (checkpoint(run.folder, name)["state_dict"] for run in (one_epoch, other))
        assert same(one, two) == wanted, name


def test_resuming_the_end_refits_anew(tmp_path):
    """A refit that was interrupted is done from its beginning; a training that goes on drops the one it had."""
    folder, whole = tmp_path, here(tmp_path, *ONE_EPOCH)
    wanted = checkpoint(folder, "refit.ckpt")["state_dict"]
    (folder / "checkpoints/refit.ckpt").unlink()
    words = [*ONE_EPOCH, f"resume={folder}/checkpoints/last.ckpt"]
    assert here(folder, *words).score == whole.score
    assert same(checkpoint(folder, "refit.ckpt")["state_dict"], wanted)
    here(folder, *words, "trainer.max_epochs=2", "refit=false")
    assert not (folder / "checkpoints/refit.ckpt").exists() and "refit" not in record(folder)


def test_a_refit_that_was_interrupted_halfway_is_done_anew(tmp_path, monkeypatch):
    folder, _ = tmp_path, here(tmp_path, *ONE_EPOCH)
    wanted = checkpoint(folder, "refit.ckpt")["state_dict"]
    words = [*ONE_EPOCH, f"resume={folder}/checkpoints/last.ckpt"]

    def stops(_, trainer, *__):
        if trainer.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.RepeatChosenTraining, "on_train_batch_end", stops)
        with pytest.raises(Interrupted, match="resume with"):
            here(folder, *words)
    assert not (folder / "checkpoints/refit.ckpt").exists() and record(folder)["status"] == "interrupted"
    assert "refit" not in record(folder)
    here(folder, *words)
    assert same(checkpoint(folder, "refit.ckpt")["state_dict"], wanted) and record(folder)["refit"]["steps"] == 4


def test_an_interruption_leaves_the_training_whole(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "joint_data", interrupted)
    with pytest.raises(Interrupted, match=r"interrupted; resume with: python train\.py resume="):
        here(tmp_path / "run", "refit=true")
    said = record(tmp_path / "run")
    assert said["status"] == "interrupted" and said["metrics"]["val/co_bps"] == said["objective"]["value"]


def test_a_fitted_model_is_fitted_on_both(tmp_path):
    base = [*(word for word in TINY if not word.startswith("model")), "model=smoothing"]
    run = here(tmp_path / "run", "refit=true", base=base)
    best, again = (load_checkpoint(run.folder / "checkpoints" / name) for name in ("best.ckpt", "refit.ckpt"))
    assert record(run.folder)["refit"]["trials"] == 48
    expected = type(again.model)(again.spec, kernel_sd_ms=best.model.kernel_sd_ms, alpha=best.model.alpha)
    expected.fit_net(joint_data(tiny()).dataset("train", evaluate=False))
    assert same(dict(expected.net.state_dict()), dict(again.model.net.state_dict()))
    assert not same(dict(best.model.net.state_dict()), dict(again.model.net.state_dict()))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["callbacks=none"], ConfigError, "takes the number of steps from best.ckpt"),
        (["callbacks.checkpoint=null"], ConfigError, "takes the number of steps from best.ckpt"),
        (["+trainer.overfit_batches=1"], ConfigError, "overfit_batches"),
        (["data.n_val=0"], DataError, "tiny has no val trials"),
    ],
)
def test_what_cannot_be_refitted_is_said_before_the_training(tmp_path, words, error, message):
    with pytest.raises(error, match=message):
        here(tmp_path / "run", "refit=true", *words)
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.slow
def test_two_processes_refit_as_one(tmp_path, capfd):
    words = [*PLAIN, "model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.5", "refit=true"]
    here(tmp_path / "two", *words, "trainer=ddp_cpu", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1")
    assert capfd.readouterr().out.count("Refit: a new model on 48 trials") == 1, "one process speaks"
    one = here(tmp_path / "one", *words)
    ours, theirs = checkpoint(tmp_path / "two", "refit.ckpt"), checkpoint(one.folder, "refit.ckpt")
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=1e-9, atol=1e-11)
    said, wanted = record(tmp_path / "two")["refit"], record(one.folder)["refit"]
    assert said["steps"] == wanted["steps"] and said["metrics"] == pytest.approx(wanted["metrics"], rel=1e-9)


# ---- who predicts


def test_the_refit_predicts_test_trials(run, tmp_path):
    rates = f"file={tmp_path / 'a.h5'}"
    shown = predict(run.folder, rates)
    assert "refit.ckpt" in shown and "training and validation trials together: 1 of 1" in shown
    scores = record(run.folder)
    said = {
        name: values["test/co_bps"]
        for name, values in (("refit", scores["refit"]["metrics"]), ("best", scores["metrics"]))
    }
    assert f"{said['refit']:.4f}" in shown
    best = predict(run.folder, rates, "checkpoint=best")
    assert "refit.ckpt" not in best and f"{said['best']:.4f}" in best
    assert "refit.ckpt" not in predict(run.folder / "checkpoints/best.ckpt", rates), "a file is meant itself"
    assert "refit.ckpt" not in predict(run.folder, "output=latents", f"file={tmp_path / 'l.h5'}")
    both = predict(f"[{run.folder},{run.folder}/checkpoints/last.ckpt]", rates)
    assert "training and validation trials together: 1 of 2" in both


def test_the_refit_never_predicts_validation_trials(run, tmp_path, monkeypatch):
    load = Tiny.load

    def without_test(self):
        recording = load(self)
        del recording.splits["test"]
        return recording

    monkeypatch.setattr("tiny.Tiny.load", without_test)
    rates = f"file={tmp_path / 'a.h5'}"
    assert "refit.ckpt" not in predict(run.folder, rates)
    for words in ([run.folder, "checkpoint=refit"], [run.folder / "checkpoints/refit.ckpt"]):
        with pytest.raises(CheckpointError, match=r"refit\.ckpt was trained on the val trials that it is to predict"):
            predict(*words, rates)
    renamed = tmp_path / "mine.ckpt"
    renamed.write_bytes((run.folder / "checkpoints/refit.ckpt").read_bytes())
    with pytest.raises(CheckpointError, match="was trained on the val trials"):
        predict(renamed, rates)


def test_validation_trials_do_not_choose_among_refits(run, tmp_path):
    words = [f"[{run.folder},{run.folder}/checkpoints/last.ckpt]", f"file={tmp_path / 'a.h5'}", "ensemble=greedy"]
    with pytest.raises(CheckpointError, match=r"refit\.ckpt was trained on the val trials, which are to score it"):
        predict(f"[{run.folder}/checkpoints/refit.ckpt,{run.folder}/checkpoints/last.ckpt]", *words[1:])
    assert "refit.ckpt" not in predict(*words)


def test_which_checkpoint_of_a_run(run, tmp_path):
    found = {which: choose_checkpoint(run.folder, which, "test").name for which in ("auto", "best", "last", "refit")}
    assert found == {"auto": "refit.ckpt", "best": "best.ckpt", "last": "last.ckpt", "refit": "refit.ckpt"}
    assert choose_checkpoint(run.folder, "auto", "val").name == "best.ckpt"
    with pytest.raises(ConfigError, match="checkpoint=first: give auto, best, last or refit"):
        choose_checkpoint(run.folder, "first", "test")
    with pytest.raises(ConfigError, match="names another file"):
        choose_checkpoint(run.folder / "checkpoints/best.ckpt", "refit", "test")
    with pytest.raises(CheckpointError, match=r"refit\.ckpt"):
        choose_checkpoint(tmp_path, "refit", "test")
