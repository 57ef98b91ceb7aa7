"""A sweep while it runs: many writers at once, a line for each job, and how long it goes on."""

import io
import logging
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from test_sweep_page import job

from neuro_lightning.artifacts import sweep_jobs as collecting
from neuro_lightning.artifacts.lines import shortened
from neuro_lightning.artifacts.locks import locked
from neuro_lightning.artifacts.output import JobOutput
from neuro_lightning.artifacts.records import read_record
from neuro_lightning.artifacts.sweep_jobs import collect
from neuro_lightning.artifacts.sweep_progress import begin_generation, begin_progress, in_words, progress_of
from neuro_lightning.private_names import LAUNCHER_LOGGERS
from neuro_lightning.sweeps.results.callback import SweepTable, is_warning
from neuro_lightning.sweeps.results.job_lines import lines_of_distant_jobs
from neuro_lightning.sweeps.results.table import write_table


def test_a_record_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    reads = []
    read = collecting.read_record
    monkeypatch.setattr(collecting, "read_record", lambda folder: reads.append(folder.name) or read(folder))
    for number in range(6):
        job(tmp_path, f"{number}_j", 0.1, width=number)
    job(tmp_path, "6_j", status="running", width=6)
    first = collect(tmp_path)
    assert len(reads) == 7
    assert collect(tmp_path) == first and reads[7:] == ["6_j"]
    job(tmp_path, "3_j", 0.75, width=3)
    assert collect(tmp_path)[3]["objective"] == 0.75 and reads[8:] == ["3_j", "6_j"]


def _write_many(folder, first):
    for number in range(first, first + 10):
        job(folder, f"{number}_j", 0.1, width=number)
        write_table(folder)


def test_several_processes_write_at_once(tmp_path):
    """Each of the four ends with a write: whoever writes last has seen all jobs."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_many, args=(tmp_path, 10 * i)) for i in range(4)]
    for process in processes:
        process.start()
    seen = 0
    while any(process.is_alive() for process in processes):
        if (tmp_path / "sweep.csv").is_file():
            lines = (tmp_path / "sweep.csv").read_text().splitlines()
            assert all(line.count(",") == lines[0].count(",") for line in lines), "a part of a table was seen"
            assert len(lines) >= seen, "an older table has replaced a newer one"
            seen = len(lines)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 41
    assert not list(tmp_path.glob(".*.part"))


def test_a_writer_that_hangs_does_not_block_others(tmp_path, monkeypatch):
    monkeypatch.setattr("neuro_lightning.sweeps.results.table.PATIENCE", 0.05)
    job(tmp_path, "0_j", 0.1, width=1)
    with locked(tmp_path / ".sweep.lock"):
        assert write_table(tmp_path).is_file()


def config_of(folder, name, *words):
    return OmegaConf.create({"hydra": {
        "mode": "RunMode.MULTIRUN", "sweep": {"dir": str(folder)}, "runtime": {"output_dir": str(folder / name)},
        "overrides": {"task": list(words)},
    }})  # fmt: skip


def test_a_job_is_one_line_and_its_output_lies_in_its_folder(tmp_path, capsys):
    callback, swept = SweepTable(), ("model=gru", "width=2")
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: [model=gru, 'width=1,2']}}")
    job(tmp_path, "0_j", 0.3, width=1)
    (tmp_path / "1_j").mkdir()
    terminal = sys.stdout
    callback.on_job_start(config_of(tmp_path, "1_j"))
    assert sys.stdout is not terminal and sys.stdout.terminal is terminal and not sys.stdout.isatty()
    print("a table of scores")
    job(tmp_path, "1_j", 0.4, width=2)
    callback.on_job_end(config_of(tmp_path, "1_j", *swept), SimpleNamespace(return_value=0.4))
    assert sys.stdout is terminal
    assert capsys.readouterr().out == "job 1  width=2  val/co_bps 0.4000 (best)  1:15\n"
    assert (tmp_path / "1_j" / "output.log").read_text() == "a table of scores\n"
    callback.on_job_start(config_of(tmp_path, "1_j"))  # once more, and it is done already
    callback.on_job_end(config_of(tmp_path, "1_j"), SimpleNamespace(return_value=0.4))
    assert capsys.readouterr().out == ""
    job(tmp_path, "1_j", status="failed", error="ValueError: no", width=2)
    callback.on_job_end(config_of(tmp_path, "1_j", *swept), SimpleNamespace(return_value=0.4))
    assert capsys.readouterr().out == "job 1  width=2  failed  1:15\n  1_j: ValueError: no\n"


def test_all_output_where_it_is_asked_for(tmp_path, capsys):
    job(tmp_path, "0_j", 0.3, width=1)
    callback = SweepTable(verbose=True)
    callback.on_job_start(config_of(tmp_path, "0_j"))
    print("a table of scores")
    callback.on_job_end(config_of(tmp_path, "0_j"), SimpleNamespace(return_value=0.4))
    assert capsys.readouterr().out == "a table of scores\n" and os.listdir(tmp_path / "0_j") == ["run.json"]


@pytest.mark.parametrize(
    ("statuses", "code"), [(["failed", "failed"], 1), (["diverged"], 1), (["failed", "finished"], 0), (["pruned"], 0)]
)
def test_a_sweep_without_a_finished_job_ends_with_status_1(tmp_path, capsys, statuses, code):
    for number, status in enumerate(statuses):
        job(tmp_path, f"{number}_j", 0.1 if status in ("finished", "pruned") else None, status=status, width=number)
    if code:
        with pytest.raises(SystemExit) as end:
            SweepTable().on_multirun_end(config_of(tmp_path, "0_j"))
        assert end.value.code == code
    else:
        SweepTable().on_multirun_end(config_of(tmp_path, "0_j"))
    assert "Sweep: " in capsys.readouterr().out


def test_the_error_that_ends_a_sweep_is_kept(tmp_path):
    """An interruption has an exit status of its own, and the terminal is given back."""
    job(tmp_path, "0_j", status="failed", error="ValueError: no", width=1)
    callback, terminal = SweepTable(), sys.stdout
    callback.on_job_start(config_of(tmp_path, "0_j"))
    with pytest.raises(SystemExit) as end:
        try:
            sys.exit(130)
        finally:
            callback.on_multirun_end(config_of(tmp_path, "0_j"))
    assert end.value.code == 130 and sys.stdout is terminal
    assert sorted(path.name for path in tmp_path.glob("sweep.*")) == ["sweep.csv", "sweep.md"]


@pytest.mark.parametrize(
    ("raised", "before", "after"),
    [
        (KeyboardInterrupt(), "running", "interrupted"), (KeyboardInterrupt(), None, "interrupted"),
        (SystemExit(130), "interrupted", "interrupted"), (ValueError("no"), "running", "failed"),
    ],
)  # fmt: skip
def test_a_job_that_was_interrupted_is_no_failed_one(tmp_path, capsys, raised, before, after):
    if before:
        job(tmp_path, "0_j", status=before, width=1)
    returned = JobReturn(overrides=["width=1"], status=JobStatus.FAILED)
    returned.return_value = raised
    SweepTable(verbose=True).on_job_end(config_of(tmp_path, "0_j"), returned)
    said = read_record(tmp_path / "0_j")
    assert said["status"] == after and "width=1" in said["overrides"]
    assert (said.get("error") == "ValueError: no") == (after == "failed")
    assert capsys.readouterr().err == "", "Hydra says of each error that it was raised"


def test_launchers_log_whole_lines_again_after_a_sweep(tmp_path):
    launcher = logging.getLogger(LAUNCHER_LOGGERS[0])
    before = list(launcher.filters)
    callback = SweepTable()
    callback.on_multirun_start(config_of(tmp_path, "0_j"))
    assert len(launcher.filters) == len(before) + 1
    callback.on_multirun_end(config_of(tmp_path / "gone", "0_j"))
    assert launcher.filters == before


def test_a_launcher_names_no_jobs():
    said = (("\t#3 : model=gru width=2", logging.INFO), ("a worker was lost", logging.WARNING))
    assert [is_warning(logging.LogRecord("x", level, "", 0, text, (), None)) for text, level in said] == [False, True]


def test_a_line_of_a_job_says_what_is_swept_and_how_long_the_sweep_goes_on(tmp_path, capsys, monkeypatch):
    begin_progress(tmp_path, 4, now=1000.0)
    monkeypatch.setattr("time.time", lambda: 1030.0)
    words = ["model=gru", "lr=0.0012345678", "+new=1", "sweep.trial=3", f"note={'long' * 20}"]
    job(tmp_path, "0_j", 0.3, width=1)
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['model=gru', 'lr=1,2']}}")
    SweepTable().on_job_end(config_of(tmp_path, "0_j", *words), SimpleNamespace(return_value=0.4))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "job 0  lr=0.001235 new=1 note=lo...  val/co_bps 0.3000  1 of 4, about 2 min left"
    assert len(line) == 80
    assert [shortened("0123456789", width) for width in (10, 9, 2, 0)] == ["0123456789", "012345...", "..", ""]


def test_how_far_a_sweep_is(tmp_path):
    assert progress_of(tmp_path) is None, "nobody has told how many jobs there are"
    job(tmp_path, "0_j", 0.3, width=1)
    begin_progress(tmp_path, 12, now=1000.0)  # resumed: one job has ended before
    assert str(progress_of(tmp_path, now=1040.0)) == "1 of 12"
    job(tmp_path, "1_j", 0.3, width=2)
    job(tmp_path, "2_j", status="failed", error="ValueError: no", width=3)
    job(tmp_path, "3_j", status="running", width=4)
    assert str(progress_of(tmp_path, now=1060.0)) == "3 of 12, about 4 min left"  # 60 s for two, and nine to go
    assert str(progress_of(tmp_path, collect(tmp_path), now=1004.0)) == "3 of 12, about 18 s left"
    begin_progress(tmp_path / "search", None)
    assert progress_of(tmp_path / "search") is None
    assert [in_words(s) for s in (0.2, 89, 91, 5000, 6000)] == ["1 s", "89 s", "2 min", "83 min", "1.7 h"]


def test_a_jobs_bar_is_in_the_terminal_and_its_lines_are_in_its_file(tmp_path, monkeypatch):
    from test_tables import fit

    from neuro_lightning.callbacks.progress import FitProgress

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", JobOutput(tmp_path / "output.log", terminal))
    fit(FitProgress(lines=2), max_epochs=4)
    sys.stdout.close()
    lines = [line for line in (tmp_path / "output.log").read_text().splitlines() if "%" in line]
    assert [line[:5] for line in lines] == [" 50 %", "100 %"] and "\x1b" not in "".join(lines)
    assert "training" in terminal.getvalue() and "best 0.4000" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[1A\x1b[2K"), "the bar is wiped away: the job's line takes its place"


def test_a_population_is_so_many_jobs_of_all_generations(tmp_path):
    """Four members and three generations: members pause after each, and a failed one counts as ended."""
    for k in range(4):
        job(tmp_path, f"{k}_j", 0.1, status="paused", checkpoints={"epochs": 5})
    begin_progress(tmp_path, 12, now=1000.0, ended=4)
    begin_generation(tmp_path, 4, 10)
    assert str(progress_of(tmp_path, now=1010.0)) == "4 of 12"
    job(tmp_path, "0_j", 0.1, status="paused", checkpoints={"epochs": 10})
    job(tmp_path, "1_j", status="running", checkpoints={"epochs": 10})
    job(tmp_path, "2_j", status="failed")
    assert str(progress_of(tmp_path, now=1060.0)) == "6 of 12, about 3 min left"
    begin_generation(tmp_path, 8, 15)
    assert progress_of(tmp_path, now=1060.0).ended == 9, "the failed one"


def test_jobs_of_other_machines_are_told_when_they_have_ended(tmp_path, capsys):
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['data=x', 'width=1,2']}}")
    begin_progress(tmp_path, 4)
    job(tmp_path, "0_j", 0.5, width=0)  # long ago
    with lines_of_distant_jobs(tmp_path, every=0.02):
        job(tmp_path, "1_j", status="running", width=1)
        job(tmp_path, "2_j", 0.25, width=2)
        deadline = time.monotonic() + 20
        while not (said := capsys.readouterr().out) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert said.startswith("job 2  width=2  val/co_bps 0.2500  2 of 4"), said
        job(tmp_path, "1_j", 0.75, width=1)  # no look is left: it is told at the end
        job(tmp_path, "3_j", status="failed", error="ValueError: no", width=3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", about")[0] for line in lines] == [
        "job 1  width=1  val/co_bps 0.7500 (best)  4 of 4", "job 3  width=3  failed  4 of 4", "  3_j: ValueError: no",
    ]  # fmt: skip
