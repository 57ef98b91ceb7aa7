import csv
import io
import os
import runpy
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from neuro_lightning.artifacts.records import read_record, write_json
from neuro_lightning.artifacts.sweep_jobs import collect, varied_keys
from neuro_lightning.errors import DataError
from neuro_lightning.sweeps.results.summary import summarize
from neuro_lightning.sweeps.results.table import print_summary, write_table

ROOT = Path(__file__).parent.parent

APP = """
import math
import os
import sys
import hydra
from hydra.core.hydra_config import HydraConfig
from neuro_lightning.artifacts.records import RunRecord

@hydra.main(version_base="1.3", config_path="conf", config_name="config",
            execution_whitelist=["neuro_lightning.*"])
def app(cfg):
    if cfg.fail == "early":
        raise ValueError("no such file\\nsecond line")
    record = RunRecord(HydraConfig.get().runtime.output_dir)
    record.start(config={}, overrides=HydraConfig.get().overrides.task, seed=cfg.seed)
    try:
        if cfg.fail == "late":
            raise RuntimeError("out of memory")
        if cfg.fail == "handled":
            raise KeyError("bad unit")
        if cfg.fail == "killed":
            return 0.0
        value = {"a": 1.0, "b": 2.0}[HydraConfig.get().runtime.choices.model] + cfg.seed / 10
        moments = {"end": value - (cfg.seed == 0) * 0.5, "peak": value + 0.1}
        record.close("finished", objective={"name": "val/co_bps", "value": value, "mode": "max", **moments},
                      metrics={"val/co_bps": value},
                      data={"name": HydraConfig.get().runtime.choices.data, "simulated": True},
                      checkpoints={"best": "best.ckpt"})
        return value
    except KeyError as error:
        record.fail(error)
        return math.nan
    except Exception as error:
        record.fail(error)
        raise

app()
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A small app with our Hydra settings, in a folder of its own."""
    folder = tmp_path_factory.mktemp("app")
    for group, names in {"model": "ab", "data": "x"}.items():
        (folder / "conf" / group).mkdir(parents=True)
        for name in names:
            (folder / "conf" / group / f"{name}.yaml").write_text("{}")
    (folder / "conf" / "hydra").mkdir()
    (folder / "conf" / "hydra" / "default.yaml").symlink_to(ROOT / "conf" / "hydra" / "default.yaml")
    (folder / "conf" / "config.yaml").write_text(
        "defaults: [_self_, data: x, model: a, hydra: default]\nseed: 0\nfail: ''\n"
    )
    (folder / "app.py").write_text(APP)
    return folder


def launch(app, folder, *words):
    """The app in a process of its own, which the workers of a launcher need."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error::UserWarning:hydra._internal.callbacks",
    }
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, app / "app.py", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


@pytest.fixture
def launch_here(app, tmp_path, monkeypatch):
    """The app in this process, which is quicker."""

    def launch_here(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr(sys, "argv", [str(app / "app.py"), *words])
        out, error, code = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(error), warnings.catch_warnings():
            warnings.filterwarnings("error", category=UserWarning, module="hydra._internal.callbacks")
            try:
                runpy.run_path(str(app / "app.py"), run_name="__main__")
            except SystemExit as end:
                code = end.code
        return SimpleNamespace(stdout=out.getvalue(), stderr=error.getvalue(), returncode=code)

    return launch_here


def read_csv(folder):
    with open(folder / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def only(folder):
    (path,) = folder.iterdir()
    return path


def job(folder, name, value, *, mode="max", data="x", status="finished", moments=(), simulated=False, **overrides):
    write_json(folder / name / "run.json", {
        "status": status, "error": "ValueError: a\nb" if status == "failed" else None,
        "overrides": [f"{key}={text}" for key, text in {"data": data, **overrides}.items()], "wall_s": 1.5,
        "objective": {"name": "val/co_bps", "value": value, "mode": mode, **dict(moments)},
        "data": {"name": data, "simulated": simulated},
        "metrics": {"val/co_bps": value, "val/vel_r2": 0.5, "test/co_bps": 0.1},
        "checkpoints": {"best": f"{name}/best.ckpt"},
    })  # fmt: skip


# ---- from run.json files


def test_jobs_are_summarized_over_seeds(tmp_path):
    values = {("gru", 0): 0.3, ("gru", 1): 0.4, ("gru", 2): 0.35, ("ndt", 0): 0.2, ("ndt", 1): 0.25}
    for number, ((model, seed), value) in enumerate(values.items()):
        job(tmp_path, f"{number}_x_{model}", value, model=model, seed=seed)
    job(tmp_path, "10_x_ndt", None, model="ndt", seed=2, status="failed")
    jobs = collect(tmp_path)
    assert [j["job"].split("_")[0] for j in jobs] == ["0", "1", "2", "3", "4", "10"]  # by number, not by name
    assert varied_keys([job["overrides"] for job in jobs]) == ["model", "seed"]

    gru, ndt = summarize(jobs)
    assert gru["setting"] == {"model": "gru"} and (gru["n"], gru["failed"], gru["best"]) == (3, 0, 0.4)
    known = np.array([0.3, 0.4, 0.35])
    np.testing.assert_allclose([gru["mean"], gru["sem"]], [known.mean(), known.std(ddof=1) / np.sqrt(3)])
    assert (ndt["n"], ndt["failed"]) == (2, 1) and ndt["metrics"]["val/vel_r2"] == 0.5

    write_table(tmp_path)
    rows = read_csv(tmp_path)
    assert [row["objective"] for row in rows] == ["0.3", "0.4", "0.35", "0.2", "0.25", ""]
    np.testing.assert_allclose([float(row["seeds_mean"]) for row in rows], [0.35] * 3 + [0.225] * 3)
    assert rows[5]["status"] == "failed" and rows[5]["error"] == "ValueError: a" and rows[5]["model"] == "ndt"
    assert rows[0]["seed"] == "0" and rows[0]["checkpoint"] == "0_x_gru/best.ckpt" and rows[0]["seconds"] == "1.5"
    assert rows[0]["test/co_bps"] == "0.1" and rows[0]["simulated"] == "False"
    assert not list(tmp_path.glob(".*part"))


def test_the_best_setting_of_each_dataset_comes_first(tmp_path):
    scores = [("x", 1, 3.0), ("x", 2, 1.0), ("y", 1, 9.0), ("y", 2, 8.0), ("x", 3, None)]
    for mode, expected in (("min", ["x2", "x1", "x3", "y2", "y1"]), ("max", ["x1", "x2", "x3", "y1", "y2"])):
        for number, (data, width, value) in enumerate(scores):
            job(tmp_path, f"{number}_j", value, mode=mode, data=data, width=width,
                status="finished" if value is not None else "failed")  # fmt: skip
        rows = summarize(collect(tmp_path))
        assert [row["data"] + str(row["setting"]["width"]) for row in rows if row["data"]] == expected
    assert summarize(collect(tmp_path))[0]["sem"] is None
    (tmp_path / "0_j" / "run.json").write_text('{"status": "failed", "overrides": ["width=9"]}')
    assert [row["data"] for row in summarize(collect(tmp_path))] == ["x", "x", "y", "y", ""]


def test_seeds_alone_are_one_setting(tmp_path, capsys):
    for seed in range(3):
        job(tmp_path, f"{seed}_j", 0.1 * seed, mode="min", model="gru", seed=seed)
    (row,) = summarize(collect(tmp_path))
    assert row["setting"] == {} and row["n"] == 3 and row["best"] == 0.0
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    title = "Sweep: 3 of 3 jobs finished; val/co_bps on recorded data, of the saved checkpoints over seeds"
    assert " ".join(lines[1:3]) == title
    assert any(line.split() == ["3", "0.1000", "0.0577", "0.0000", "1.5s", "0.5000"] for line in lines)


def test_percentiles_over_seeds_at_the_end_and_at_the_peak(tmp_path, capsys):
    rng = np.random.default_rng(0)
    end, peak = rng.random((2, 10))
    for seed in range(10):
        job(tmp_path, f"{seed}_a", 0.5, model="gru", seed=seed, moments={"end": end[seed], "peak": peak[seed]})
    job(tmp_path, "10_a", 0.5, model="gru", seed=10)  # a record of before, that does not tell
    job(tmp_path, "11_a", 0.5, model="gru", seed=11, status="failed", moments={"end": 9.0, "peak": 9.0})
    for number in (12, 13):
        job(tmp_path, f"{number}_b", 0.4, model="ndt", seed=number, moments={"end": 0.4, "peak": 0.4})
    gru, ndt = summarize(collect(tmp_path))
    for moment, values in (("end", end), ("peak", peak)):
        found = [gru[f"p{percent}_{moment}"] for percent in (10, 50, 90)]
        np.testing.assert_allclose(found, np.percentile(values, [10, 50, 90]))
    assert gru["n"] == 11 and gru["mean"] == 0.5 and ndt["p10_end"] == 0.4
    write_table(tmp_path)
    row = read_csv(tmp_path)[0]
    assert (row["end"], row["peak"]) == (str(end[0]), str(peak[0]))
    assert row["seeds_p10_end"] == str(gru["p10_end"]) and row["seeds_p90_peak"] == str(gru["p90_peak"])
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    spread = ["/".join(f"{value:.3f}" for value in np.percentile(values, [10, 50, 90])) for values in (end, peak)]
    assert any(spread[0] in line and line.split()[-2:] == spread for line in lines)
    assert any(line.split()[:2] == ["ndt", "2"] and line.split()[-2:] == ["-", "-"] for line in lines)


def test_percentiles_of_a_loss_are_of_the_loss_itself(tmp_path):
    for seed in range(5):
        job(tmp_path, f"{seed}_a", seed, mode="min", seed=seed, moments={"end": seed, "peak": seed})
    (row,) = summarize(collect(tmp_path))
    np.testing.assert_allclose([row["p10_end"], row["p50_end"], row["p90_end"]], [0.4, 2.0, 3.6])
    assert row["best"] == 0


def test_older_records_without_end_and_peak_have_no_percentiles(tmp_path, capsys):
    for seed in range(4):
        job(tmp_path, f"{seed}_a", 0.5, seed=seed)
    (row,) = summarize(collect(tmp_path))
    assert row["p50_end"] is None and row["mean"] == 0.5
    write_table(tmp_path)
    assert read_csv(tmp_path)[0]["seeds_p50_end"] == ""
    print_summary(tmp_path)
    assert "p50" not in capsys.readouterr().out


def test_the_summary_keeps_to_a_terminals_width(tmp_path, capsys):
    names = ["delete_last_conv_layer", "change_conv_layer-layer_id=0-kernel=7"]
    for number in range(6):
        job(tmp_path, f"{number}_a", 0.1234, seed=number // 2, **{"+mutation": names[number % 2]},
            simulated=number > 2, moments={"end": -10.1234, "peak": 0.2})  # fmt: skip
        path = tmp_path / f"{number}_a" / "run.json"
        record = read_record(path)
        metrics = ("corr", "rmse", "rmse_columns", "trial_corr", "feve", "cc_norm", "oracle_fraction", "rates_corr")
        write_json(path, record | {"metrics": {f"val/{name}": 0.5 for name in metrics}})
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert any("mutation" in line and "source" in line for line in lines)
    assert any(line.split()[:3] == ["mutation", "end", "p10/p50/p90"] for line in lines), "below, beside the names"
    assert any(
        line.split()[:2] == [names[0], "simulated"] or line.split()[:2] == [names[0], "recorded"] for line in lines
    )


def test_jobs_that_left_little_are_rows_too(tmp_path, capsys):
    job(tmp_path, "0_a", 0.5, seed=0)
    (tmp_path / "1_a" / ".hydra").mkdir(parents=True)
    (tmp_path / "1_a" / ".hydra" / "overrides.yaml").write_text("[]")
    (tmp_path / "2_a").mkdir()
    (tmp_path / "2_a" / "run.json").write_text('{"status":')
    assert [j["status"] for j in collect(tmp_path)] == ["finished", "running", "failed"]
    write_table(tmp_path)
    print_summary(tmp_path)
    out = capsys.readouterr().out
    out = " ".join(out.split())
    assert "1_a: running" in out and "2_a: failed: " in out and "is damaged" in out
    assert [row["job"] for row in read_csv(tmp_path)] == ["0_a", "1_a", "2_a"]


def test_no_sweep_there(tmp_path):
    assert write_table(tmp_path) is None and os.listdir(tmp_path) == []
    with pytest.raises(DataError, match="no such folder; give that of a sweep"):
        collect(tmp_path / "gone")
    done = subprocess.run([sys.executable, "-m", "neuro_lightning.sweeps.results.table", tmp_path / "gone"], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


# ---- as a Hydra callback


def test_a_sweep_writes_and_prints_its_table(launch_here, tmp_path):
    done = launch_here("-m", "model=a,b", "data=x", "seed=0,1,2")
    assert done.returncode == 0, done.stderr
    folder = only(tmp_path / "multirun")
    rows = read_csv(folder)
    assert [row["job"] for row in rows] == [f"{i}_x_{'ab'[i // 3]}" for i in range(6)]
    np.testing.assert_allclose([float(row["objective"]) for row in rows], [1, 1.1, 1.2, 2, 2.1, 2.2])
    lines = [line.split() for line in done.stdout.splitlines()]
    starts = [line[:7] for line in lines]
    assert ["b", "3", "2.1000", "0.0577", "2.2000", "1.620/2.100/2.180", "2.120/2.200/2.280"] in starts
    assert ["a", "3", "1.1000", "0.0577", "1.2000", "0.620/1.100/1.180", "1.120/1.200/1.280"] in starts
    assert "Sweep: 6 of 6 jobs finished; val/co_bps on simulated data, of the saved" in done.stdout
    assert lines[-1] == ["table", f"multirun/{folder.name}/sweep.csv"]
    assert not any("=" in part for path in folder.iterdir() for part in path.parts)
    (folder / "sweep.csv").unlink()
    write_table(folder)
    assert read_csv(folder) == rows


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_failed_job_is_a_row_and_stops_no_other(app, launch_here, tmp_path, launcher):
    words = ["-m", "fail=early,late,handled,killed,''", f"hydra/launcher={launcher}"]
    done = launch_here(*words) if launcher == "basic" else launch(app, tmp_path, *words, "hydra.launcher.n_jobs=2")
    folder = only(tmp_path / "multirun")
    rows = read_csv(folder)
    assert [row["status"] for row in rows] == ["failed", "failed", "failed", "running", "finished"]
    assert [row["error"] for row in rows][:3] == ["ValueError: no such file", "RuntimeError: out of memory",
                                                  "KeyError: 'bad unit'"]  # fmt: skip
    assert rows[0]["fail"] == "early" and read_record(folder / "0_x_a")["status"] == "failed"
    assert "Sweep: 1 of 5 jobs finished" in done.stdout and "0_x_a: failed: ValueError: no such file" in done.stdout
    assert done.returncode == 1  # Hydra passes the first unhandled error on, after all jobs


def test_handled_errors_leave_the_sweep_whole(launch_here, tmp_path):
    done = launch_here("-m", "fail=handled,''", "seed=0,1")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert [row["status"] for row in read_csv(only(tmp_path / "multirun"))] == ["failed"] * 2 + ["finished"] * 2


def test_a_single_run_makes_no_table(launch_here, tmp_path):
    done = launch_here("seed=1")
    assert done.returncode == 0 and "Sweep" not in done.stdout
    folder = only(tmp_path / "outputs" / "x" / "a")
    assert sorted(os.listdir(folder)) == [".hydra", ".lock", "config.log", "run.json"]
    assert not list(tmp_path.rglob("sweep.csv"))


def test_the_callback_starts_quickly():
    heavy = "{'torch', 'pytorch_lightning', 'pandas'}"
    code = f"import sys, neuro_lightning.sweeps.results.callback; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
