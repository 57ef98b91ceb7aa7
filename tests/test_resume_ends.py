"""However a training ends, one that was interrupted ends in the same bits, and one that has ended stays as it is."""

import shutil

import pytest
from runs import checkpoint, here, record, rows, same

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
    "several steps at once": (["trainer.max_epochs=3", "data.steps_at_once=3"], 3, 12),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDS)
def test_the_same_bits(tmp_path, ending):
    """From the middle, and twice after the last step: in the scoring, say."""
    words, middle, end = ENDS[ending]
    words = ["model.optimizer.lr=0.05", *words, STEPS]
    folder = tmp_path / "run"
    whole = here(folder, *words)
    final, table, said = checkpoint(folder), rows(folder), record(folder)
    assert final["global_step"] == end == said["steps"]
    assert table[-1]["val/co_bps"] and said["objective"]["end"] == pytest.approx(float(table[-1]["val/co_bps"]))
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "snapshots" / f"step{middle}", folder)
    for resumed in (f"step{middle}.ckpt", "last.ckpt", "last.ckpt"):
        again = here(folder, *words, f"resume={folder}/checkpoints/{resumed}")
        last = checkpoint(folder)
        for what in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step", "Tiny"):
            assert same(last[what], final[what]), what
        assert rows(folder) == table and again.score == whole.score
        after = record(folder)
        for what in ("metrics", "objective", "steps", "status", "checkpoints"):
            assert after[what] == said[what], what
        (folder / "run.json").unlink()
