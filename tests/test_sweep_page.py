"""sweep.md: what each kind of job looks like, and what a sweep prints in its end."""

import csv

import numpy as np
import pytest

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.artifacts.sweep_jobs import collect
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
    assert finish(tmp_path).files and "What mattered" not in (tmp_path / PAGE_FILE).read_text()


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
    end = finish(tmp_path)
    assert [path.name for path in end.files] == [
        "sweep.csv", "sweep.md", "sweep.png", "sweep_coordinates.png", "sweep_history.png"
    ], "no .hydra, so no best.yaml"  # fmt: skip
    text = (tmp_path / PAGE_FILE).read_text()
    assert "![Scores of the settings](sweep.png)" in text
    assert "![Parallel coordinates of the settings](sweep_coordinates.png)" in text
    shares = section(text, "What mattered")
    assert shares[1][0] == "`lr`" and float(shares[1][1]) > 0.4 > float(shares[2][1]) and shares[1][2] == "█" * 20
    print_summary(tmp_path, end)
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
    assert [path.name for path in finish(tmp_path).files] == ["sweep.csv", "sweep.md"]
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


def test_a_page_without_scores(tmp_path):
    job(tmp_path, "0_j", status="failed", error="ValueError: no", width=1)
    jobs = collect(tmp_path)
    assert "No job has finished yet." in page(tmp_path, jobs, summarize(jobs))
