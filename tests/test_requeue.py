"""A job that SLURM runs again resumes in its folder; an interrupt is one line."""

import json

import pytest
from folder_holder import a_run

from neuro_lightning import cli
from neuro_lightning.runs.resume import resume_requeued_job
from neuro_lightning.settings.quoting import typed_value


def test_a_requeued_job_resumes_in_its_folder(tmp_path, monkeypatch):
    folder, words = tmp_path / "it's a run", ["model=gru", f"hydra.run.dir={tmp_path}/it's a run"]
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resume_requeued_job(words) == words, "nothing is there yet"
    a_run(folder, "interrupted", "metrics.csv")

    def noted(**values):
        (folder / "run.json").write_text(json.dumps({"status": "interrupted", "slurm_job": "77", **values}))

    noted()
    assert resume_requeued_job(words) == [*words, "overwrite=true"], "interrupted before its first checkpoint"
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    for status in ("interrupted", "running"):  # the second was killed
        noted(status=status)
        *same, resume = resume_requeued_job(words)
        assert same == words and typed_value([resume], "resume") == str(folder)
    assert resume_requeued_job([*words, "resume=latest"]) == [*words, "resume=latest"]
    assert resume_requeued_job(words[:1]) == words[:1]
    for others in ({"slurm_job": "78"}, {"slurm_job": None}, {"status": "finished"}, {"status": "failed"}):
        noted(**others)
        assert resume_requeued_job(words) == words, others
    noted()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert resume_requeued_job(words) == words


def test_an_interrupt_before_there_is_a_run_is_one_line(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "add_trusted_packages", interrupted)
    monkeypatch.setattr("sys.argv", ["train.py"])  # not pytest's, whose flags are refused
    for command_ in (cli.train, cli.predict):
        with pytest.raises(SystemExit) as ended:
            command_()
        assert ended.value.code == 130 and capsys.readouterr().err == "interrupted.\n"
