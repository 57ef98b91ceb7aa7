"""sweep.md and the table while a sweep runs: what each kind of job looks like, and many writers at once."""

import csv
import io
import logging
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from neuro_lightning.artifacts import sweep_jobs as collecting
from neuro_lightning.artifacts.lines import shortened
from neuro_lightning.artifacts.locks import locked
from neuro_lightning.artifacts.output import JobOutput
from neuro_lightning.artifacts.records import write_json
from neuro_lightning.artifacts.sweep_jobs import collect
from neuro_lightning.artifacts.sweep_progress import begin_generation, begin_progress, in_words, progress_of
from neuro_lightning.private_names import LAUNCHER_LOGGERS
from neuro_lightning.sweeps.results.callback import SweepTable, is_warning
from neuro_lightning.sweeps.results.job_lines import lines_of_distant_jobs
from neuro_lightning.sweeps.results.page import PAGE_FILE, clock, page
from neuro_lightning.sweeps.results.summary import summarize
from neuro_lightning.sweeps.results.table import finish, main, print_summary, write_table


def job(folder, name, value=None, *, status="finished", mode="max", error=None, data="x", simulated=True, **values):
    extra = {key: values.pop(key) for key in ("attempts", "config", "checkpoints") if key in values}
    values = {"data": data, **values}
    objective = {"name": "val/co_bps", "value": value, "mode": mode} if value is not None else None
    write_json(folder / name / "run.json", {
        "status": status, "error": error, "overrides": [f"{key}={text}" for key, text in values.items()],
        "wall_s": 75.0, "data": {"name": data, "simulated": simulated} if value is not None else None,
        "objective": objective, "checkpoints": {"best": str(folder / name / "checkpoints" / "best.ckpt")}, **extra,
    })  # fmt: skip


def written(folder):
    assert write_table(folder) is not None
    return (folder / PAGE_FILE).read_text()


def section(text, title):
    """The rows of a section's table, cell by cell, its head first."""
    body = text.split(f"## {title}")[1].split("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# ---- what the page says


def test_settings_are_ranked_first_then_what_runs_was_stopped_and_failed(tmp_path):
    for number, (width, seed, value) in enumerate([(8, 0, 0.1), (8, 1, 0.2), (16, 0, 0.3), (16, 1, 0.5)]):
        job(tmp_path, f"{number}_x_gru", value, model="gru", width=width, seed=seed)
    job(tmp_path, "4_x_gru", status="failed", error="RuntimeError: out | of memory\nmore", model="gru", width=32,
        seed=0, attempts=2)  # fmt: skip
    job(tmp_path, "5_x_gru", 0.05, status="pruned", model="gru", width=64, seed=0)
    job(tmp_path, "6_x_gru", status="diverged", model="gru", width=128, seed=0)
    text = written(tmp_path)
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == [f"# Sweep {tmp_path.name}", "## Settings, best first", "## Stopped before their end", "## Failed"]
    assert "4 of 7 jobs finished, 1 diverged, 1 failed, 1 pruned." in text
    assert "`val/co_bps` (higher is better)" in text and "**simulated** data" in text
    assert "Every job: `data=x model=gru`" in text
    head, first, second = section(text, "Settings")
    assert head == ["#", "`width`", "n", "mean", "s.e.m.", "best", "time", "jobs", "best checkpoint"]
    assert first[:-1] == ["1", "16", "2", "0.4000", "0.1000", "0.5000", "1:15", "2, 3"]
    assert first[-1] == "[best.ckpt](<3_x_gru/checkpoints/best.ckpt>)" and second[:2] == ["2", "8"]
    assert section(text, "Failed")[1:] == [
        ["4_x_gru", "32", "0", "2", "RuntimeError: out \\| of memory"], ["6_x_gru", "128", "0", "1", "diverged"],
    ]  # fmt: skip
    assert section(text, "Stopped")[1] == ["5_x_gru", "64", "0", "pruned", "0.0500", "-", "1:15"]


def test_a_search_has_scores_not_means(tmp_path):
    for number, rate in enumerate([0.00123456, 0.1, 0.02]):
        job(tmp_path, f"{number}_j", 0.1 * number, lr=rate, masked="null")
    assert section(written(tmp_path), "Settings")[0] == ["#", "`lr`", "score", "time", "jobs", "best checkpoint"]
    assert [row[1] for row in section(written(tmp_path), "Settings")[1:]] == ["0.02", "0.1", "0.001235"]
    with open(tmp_path / "sweep.csv", newline="") as file:
        assert next(csv.DictReader(file))["lr"] == "0.00123456"


def test_two_datasets_are_two_rankings(tmp_path):
    for number, (data, simulated) in enumerate([("a", True), ("b", False), ("a", True), ("b", False)]):
        job(tmp_path, f"{number}_j", [1.0, 2.0, 3.0, 4.0][number], data=data, simulated=simulated, width=number // 2)
    text = written(tmp_path)
    assert "## Settings on a, best first" in text and "## Settings on b, best first" in text
    assert "**recorded** and **simulated** data" in text
    assert finish(tmp_path) and "What mattered" not in (tmp_path / PAGE_FILE).read_text()


def test_a_running_job_shows_its_best_score_so_far(tmp_path):
    job(tmp_path, "0_j", 0.3, width=4)
    config = {"monitor": "val/co_bps", "mode": "max"}
    job(tmp_path, "1_j", status="running", width=8, config=config)
    (tmp_path / "1_j" / "metrics.csv").write_text(
        "step,epoch,train/loss,val/co_bps\n4,0,0.5,0.1\n9,1,0.4,0.25\n14,2,0.4,nan\n19,3,0.3,0.2\n24,4,0.3"
    )
    job(tmp_path, "2_j", status="running", width=16, config={**config, "mode": "min"})
    (tmp_path / "2_j" / "metrics.csv").write_text("step,epoch,val/co_bps\n4,0,0.5\n9,1,0.7\n")
    job(tmp_path, "3_j", status="running", width=32, config=config)
    (tmp_path / "4_j" / ".hydra").mkdir(parents=True)  # has begun, and not said anything itself
    (tmp_path / "4_j" / ".hydra" / "overrides.yaml").write_text("- data=x\n- width=64\n- sweep.trial=4\n")
    assert section(written(tmp_path), "Running") == [
        ["job", "`width`", "best score", "epochs"],
        ["1_j", "8", "0.2500", "4"], ["2_j", "16", "0.5000", "2"], ["3_j", "32", "-", "-"], ["4_j", "64", "-", "-"],
    ]  # fmt: skip
    with open(tmp_path / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["peak"] for row in rows] == ["", "0.25", "0.5", "", ""]
    assert [row["objective"] for row in rows] == ["0.3", "", "", "", ""]
    job(tmp_path, "1_j", 0.4, width=8)  # now it is over
    assert section(written(tmp_path), "Settings")[1][1] == "8"


def test_where_a_job_stands_in_its_sweep_is_no_setting(tmp_path):
    for number in range(3):
        job(
            tmp_path, f"{number}_j", 0.1, width=4, **{"sweep.trial": number, "++sweep.until": 3 * number, "resume": "x"}
        )
    assert [row["n"] for row in summarize(collect(tmp_path))] == [3]
    text = written(tmp_path)
    assert "sweep." not in text and "resume" not in text
    assert "sweep." not in (tmp_path / "sweep.csv").read_text()


def test_an_end_with_all_that_a_sweep_leaves(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(24):
        lr, width = 10 ** rng.uniform(-4, -1), int(rng.choice([4, 8]))
        job(tmp_path, f"{number}_j", -abs(np.log10(lr) + 2.5), lr=lr, width=width)
    files = finish(tmp_path)
    assert [path.name for path in files] == [
        "sweep.csv", "sweep.md", "sweep.png", "sweep_coordinates.png", "sweep_history.png"
    ], "no .hydra, so no best.yaml"  # fmt: skip
    text = (tmp_path / PAGE_FILE).read_text()
    assert "![Scores of the settings](sweep.png)" in text
    assert "![Parallel coordinates of the settings](sweep_coordinates.png)" in text
    shares = section(text, "What mattered")
    assert shares[1][0] == "`lr`" and float(shares[1][1]) > 0.4 > float(shares[2][1]) and shares[1][2] == "█" * 20
    print_summary(tmp_path, files)
    out = capsys.readouterr().out
    assert "... and 14 more settings in sweep.md" in out and out.splitlines()[-1].split()[0] == "table"
    scores = [float(line.split()[2]) for line in out.splitlines() if line.endswith("1:15")]
    assert len(scores) == 10 and scores == sorted(scores, reverse=True)
    main([str(tmp_path)])  # makes it all again
    assert (tmp_path / PAGE_FILE).read_text().split("Written")[0] == text.split("Written")[0]


def test_why_importance_is_not_shown(tmp_path):
    for number in range(4):
        job(tmp_path, f"{number}_j", 0.1 * number, width=number)
    finish(tmp_path)
    text = (tmp_path / PAGE_FILE).read_text()
    assert "Not shown: it takes 8 settings that finished, and there are 4." in text and "sweep.png" in text


def test_a_sweep_over_seeds_alone_has_no_picture_and_no_importance(tmp_path):
    for seed in range(9):
        job(tmp_path, f"{seed}_j", 0.1 * seed, seed=seed)
    assert [path.name for path in finish(tmp_path)] == ["sweep.csv", "sweep.md"]
    assert "What mattered" not in (tmp_path / PAGE_FILE).read_text()


def test_many_failures_are_counted_in_the_terminal(tmp_path, capsys):
    for number in range(9):
        job(tmp_path, f"{number}_j", status="failed", error="ValueError: no", width=number)
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("failed: ValueError: no") for line in lines) == 5
    assert "... and 4 more such jobs in sweep.md" in lines


def test_a_search_over_many_keys_fits_the_terminal(tmp_path, capsys):
    """As many keys as there is room for, the rest on the page; a row is known by its job."""
    for i in range(3):
        keys = {f"model.a_rather_long_name_{k}": i + k / 8 for k in range(9)}
        job(tmp_path, f"{i}_x_gru", i / 10, **keys)
    print_summary(tmp_path)
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    assert "more keys that vary are in sweep.md" in text
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if len(row) > 3 and row[0].isdigit() and row[1] != "more"] == ["2", "1", "0"]
    assert all(f"a_rather_long_name_{k}" in written(tmp_path) for k in range(9))


def test_a_folder_that_is_no_sweep(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1 and "no jobs there; give the folder of a sweep" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="usage"):
        main([])


@pytest.mark.parametrize(("seconds", "text"), [(None, "-"), (3.21, "3.2s"), (65, "1:05"), (7200, "2:00:00")])
def test_durations(seconds, text):
    assert clock(seconds) == text


# ---- while it runs


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


def test_a_page_without_scores(tmp_path):
    job(tmp_path, "0_j", status="failed", error="ValueError: no", width=1)
    jobs = collect(tmp_path)
    assert "No job has finished yet." in page(tmp_path, jobs, summarize(jobs))


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
