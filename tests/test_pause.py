"""A run that rests and goes on is the run that did not."""

import pytest
from runs import checkpoint, here, record, rows, same

from neuro_lightning.errors import ConfigError

LONG = ["trainer.max_epochs=6", "trainer.check_val_every_n_epoch=2"]


def last(folder):
    return f"resume={folder / 'checkpoints' / 'last.ckpt'}"


def test_two_pauses_change_no_bit(tmp_path):
    """Schedules know the whole length; every rest is a record without scores, the end a finished run."""
    whole = here(tmp_path / "whole", *LONG)
    rested = here(tmp_path / "rested", *LONG, "sweep.until=2")
    first = record(rested.folder)
    assert first["status"] == "paused" and first["error"] is None and first["metrics"] == {}
    assert first["objective"]["value"] == rested.score
    assert rested.score == pytest.approx(float(rows(rested.folder)[-1]["val/co_bps"]), rel=1e-6)
    assert [row["epoch"] for row in rows(rested.folder)] == ["0", "1"]
    here(tmp_path / "rested", *LONG, "sweep.until=4", last(rested.folder))
    assert record(rested.folder)["checkpoints"]["epochs"] == 4
    after = here(tmp_path / "rested", *LONG, last(rested.folder))
    for what in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(checkpoint(rested.folder)[what], checkpoint(whole.folder)[what])
    assert rows(rested.folder) == rows(whole.folder) and after.score == whole.score
    assert record(rested.folder)["status"] == "finished"
    assert record(rested.folder)["metrics"] == record(whole.folder)["metrics"]
    assert record(rested.folder)["objective"] == record(whole.folder)["objective"]


def test_a_run_past_the_epoch_pauses_at_once(tmp_path):
    here(tmp_path / "run", *LONG, "sweep.until=4")
    before = rows(tmp_path / "run"), checkpoint(tmp_path / "run")["state_dict"]
    here(tmp_path / "run", *LONG, "sweep.until=4", last(tmp_path / "run"))
    assert record(tmp_path / "run")["status"] == "paused"
    assert rows(tmp_path / "run") == before[0] and same(checkpoint(tmp_path / "run")["state_dict"], before[1])


def test_the_last_epoch_is_no_pause(tmp_path):
    here(tmp_path, *LONG, "sweep.until=6")
    assert record(tmp_path)["status"] == "finished"


def test_killed_between_the_last_checkpoint_and_the_record(tmp_path):
    """Resumed at its very end, nothing is validated again, and the record is whole all the same."""
    whole = here(tmp_path / "run", *LONG)
    before = record(whole.folder)
    (whole.folder / "run.json").unlink()
    again = here(tmp_path / "run", *LONG, last(whole.folder))
    assert again.score == whole.score and record(whole.folder)["objective"] == before["objective"]
    assert before["objective"]["end"] is not None


def test_a_pause_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"sweep\.until=3: .* multiple of trainer\.check_val_every_n_epoch=2"):
        here(tmp_path / "a", *LONG, "sweep.until=3")
    with pytest.raises(ConfigError, match=r"sweep\.until=0"):
        here(tmp_path / "b", *LONG, "sweep.until=0")
