"""However a training ends, one that was interrupted ends in the same bits, and one that has ended stays as it is."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from runs import checkpoint, here, record, rows, same

from neuro_lightning.callbacks.averaging import RAW
from neuro_lightning.callbacks.seeds import StepSeed

STEPS = ("+callbacks.steps={_target_:tiny.Snapshot,dirpath:'${paths.output_dir}/checkpoints',save_top_k:-1,"
         "auto_insert_metric_name:false,every_n_train_steps:1,filename:'step{step}'}")  # fmt: skip
STOP = "_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/loss"
# four steps an epoch; a loss that is to rise stops the training after the second validation
ENDS = {
    "max_steps": (["trainer.max_epochs=-1", "+trainer.max_steps=10"], 5, 10),
    "max_steps, few validations": (["trainer.max_epochs=-1", "+trainer.max_steps=10",
                                    "trainer.check_val_every_n_epoch=2"], 9, 10),
    "max_steps, an average": (["trainer.max_epochs=-1", "+trainer.max_steps=10", "callbacks/average=ema"], 6, 10),
    "max_steps before max_epochs": (["trainer.max_epochs=5", "+trainer.max_steps=8"], 3, 8),
    "max_epochs, validated within": (["trainer.max_epochs=2", "+trainer.val_check_interval=0.5"], 2, 8),
    "max_epochs, accumulated": (["trainer.max_epochs=3", "+trainer.accumulate_grad_batches=3"], 3, 6),
    "early": (["trainer.max_epochs=9", f"+callbacks.stop={{{STOP},mode:max,patience:1}}"], 5, 8),
    "early, few validations": (["trainer.max_epochs=9", "trainer.check_val_every_n_epoch=2",
                                f"+callbacks.stop={{{STOP},mode:max,patience:1}}"], 9, 16),
    "not before min_epochs": (["trainer.max_epochs=9", "+trainer.min_epochs=3",
                               f"+callbacks.stop={{{STOP},mode:max,patience:1}}"], 9, 12),
    "not before min_steps": (["trainer.max_epochs=9", "+trainer.min_steps=10",
                              f"+callbacks.stop={{{STOP},mode:max,patience:1}}"], 8, 10),
    "an average by epochs, and a refit": (["trainer.max_epochs=4", "callbacks/average=swa", "refit=true"], 15, 16),
    "several steps at once": (["trainer.max_epochs=3", "data.steps_at_once=3"], 3, 12),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDS)
def test_the_same_bits(tmp_path, ending):
    """From the middle, and after the last step: in the scoring, say."""
    words, middle, end = ENDS[ending]
    words = ["model.optimizer.lr=0.05", *words, STEPS]
    folder = tmp_path / "run"
    whole = here(folder, *words)
    final, table, said = checkpoint(folder), rows(folder), record(folder)
    refit = checkpoint(folder, "refit.ckpt")["state_dict"] if "refit" in said else None
    assert final["global_step"] == end == said["steps"]
    assert table[-1]["val/co_bps"] and said["objective"]["end"] == pytest.approx(float(table[-1]["val/co_bps"]))
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "snapshots" / f"step{middle}", folder)
    # one way to end shows that a training that has ended may be resumed twice
    for resumed in (f"step{middle}.ckpt", "last.ckpt", *["last.ckpt"] * (ending == "early, few validations")):
        again = here(folder, *words, f"resume={folder}/checkpoints/{resumed}")
        last = checkpoint(folder)
        for what in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step", "Tiny"):
            assert same(last[what], final[what]), what
        assert same(last.get(RAW), final.get(RAW)) and (RAW in final) == any("average=" in word for word in words)
        assert refit is None or same(checkpoint(folder, "refit.ckpt")["state_dict"], refit)
        assert rows(folder) == table and again.score == whole.score
        after = record(folder)
        for what in ("metrics", "objective", "steps", "status", "checkpoints"):
            assert after[what] == said[what], what
        (folder / "run.json").unlink()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_the_default_callbacks_in_any_precision(tmp_path, precision):
    words = ["callbacks=default", "trainer.max_epochs=1", f"++trainer.precision={precision}", "monitor=val/co_bps"]
    run = here(tmp_path, *words, "mode=max")
    assert record(tmp_path)["status"] == "finished" and record(tmp_path)["metrics"]["val/co_bps"] == run.score
    assert (tmp_path / "figures" / "neurons.png").is_file()


def test_a_figure_that_fails_costs_nothing(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no paper")

    monkeypatch.setattr("neuro_lightning.callbacks.figures.predict_trials", fails)
    with pytest.warns(UserWarning, match="Figures failed; the run continues .*: RuntimeError: no paper"):
        here(tmp_path, "callbacks=default", "trainer.max_epochs=1")
    assert record(tmp_path)["status"] == "finished"


def test_each_step_and_each_process_draws_its_own_numbers():
    seeds, drawn = StepSeed(3), set()
    for step in range(500):
        for rank in range(4):
            seeds.seed_step(step, rank)
            drawn.add(int(torch.randint(2**62, ())))
    assert len(drawn) == 2000


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_trainer_numbers_the_steps_of_all_epochs(tmp_path, monkeypatch, at_once):
    """Also those of a resumed run, which goes on counting."""
    drawn, draw = [], StepSeed.seed_step
    monkeypatch.setattr(StepSeed, "seed_step", lambda self, *given: (drawn.append(given), draw(self, *given)))
    words = [f"data.steps_at_once={at_once}", "trainer.max_epochs=2"]
    here(tmp_path, *words)
    assert drawn == [(step, 0) for step in range(8)]
    here(tmp_path, *words, "trainer.max_epochs=3", f"resume={tmp_path}/checkpoints/last.ckpt")
    assert drawn == [(step, 0) for step in range(12)]


def test_every_process_draws_by_its_own_rank():
    seeds, model, drawn = StepSeed(3), SimpleNamespace(automatic_optimization=True), set()
    for rank in range(2):
        trainer = SimpleNamespace(global_rank=rank, fit_loop=SimpleNamespace(total_batch_idx=7))
        seeds.on_train_batch_start(trainer, model, None, 0)
        one = int(torch.randint(2**62, ()))
        seeds.on_train_start(trainer, model)
        model.before_step(7)
        assert int(torch.randint(2**62, ())) == one, "a step of several at once draws as one of the trainer's"
        drawn.add(one)
    assert len(drawn) == 2


def test_what_make_trainer_replaces_is_there():
    from pytorch_lightning import Trainer

    loop = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu").fit_loop
    assert callable(getattr(loop, "_iteration_based_training", None)), (
        "Lightning's fit loop has no _iteration_based_training any more, which building.make_trainer replaces: see how "
        "a training with max_steps is resumed now"
    )
