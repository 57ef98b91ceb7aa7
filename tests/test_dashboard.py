"""The workspace and the report for Weights & Biases, by what would be sent; nothing is."""

import json
import socket

import pytest

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.loggers.sweep_run import TABLE
from neuro_lightning.report.dashboard import SECTIONS, Shown, config_key, main, spec

pytest.importorskip("wandb_workspaces")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("name look-up"))


def sections_of(found):
    """The panels of each section, of the workspace and of the report."""
    workspace = {s["name"]: s["panels"] for s in found["workspace"]["section"]["panelBankConfig"]["sections"]}
    blocks = found["report"]["blocks"]
    titles = [b["children"][0]["text"] for b in blocks if b["type"] == "heading"]
    grids = [b["metadata"]["panelBankSectionConfig"]["panels"] for b in blocks if b["type"] == "panel-grid"]
    return workspace, dict(zip(titles, grids, strict=True))


def test_what_would_be_sent():
    found = spec(Shown("reaching", "team"))
    for sections in sections_of(found):
        assert tuple(sections) == SECTIONS
        scores, curves, sweeps, neurons, system = sections.values()
        assert scores[0]["config"]["metrics"] == ["val/co_bps", "baseline/smoothing/val/co_bps", "oracle/val/co_bps"]
        assert scores[0]["config"]["xAxis"] == "trainer/global_step"
        bars = [panel["config"]["metrics"] for panel in scores[1:]]
        assert bars == [["summary_metrics.best/val/co_bps"], ["summary_metrics.test/co_bps"]]
        assert [panel["config"]["metrics"] for panel in curves] == [["train/loss"], ["val/loss"], ["train/lr"]]
        columns = [column["accessor"] for column in sweeps[0]["config"]["columns"]]
        assert columns == [
            "config:model.value._target_", "config:data.value._target_", "config:seed.value", "summary:best/val/co_bps",
        ]  # fmt: skip
        assert sweeps[1]["config"]["targetKey"] == "best/val/co_bps"
        assert f'"{TABLE}"' in json.dumps(sweeps) and '"neurons/val"' in json.dumps(neurons)
        assert [panel["config"]["metrics"][0].split(".")[0] for panel in system] == ["system"] * 4
    assert found["workspace"]["section"]["runSets"][0]["filters"]["filters"] == []


def test_a_sweep_is_shown_by_what_it_varies(tmp_path, capsys):
    for number, width in enumerate((8, 16)):
        words = ["model=gru", f"model.hidden={width}", f"masking@model.masking={'none' if number else 'coordinated'}"]
        objective = {"name": "val/rmse", "value": 0.1, "mode": "min"}
        write_json(tmp_path / "s" / f"{number}_j" / "run.json", {
            "status": "finished", "overrides": words, "objective": objective, "data": {"name": "x"},
        })  # fmt: skip
    assert main(["reaching", f"--sweep={tmp_path / 's'}", f"--out={tmp_path / 'spec.json'}"]) == 0
    found = json.loads((tmp_path / "spec.json").read_text())
    assert capsys.readouterr().out.startswith("written ")
    workspace, _ = sections_of(found)
    assert [column["accessor"] for column in workspace["Sweeps"][0]["config"]["columns"]] == [
        "config:model.value.hidden", "config:model.value.masking._target_", "summary:best/val/rmse",
    ]  # fmt: skip
    assert workspace["Sweeps"][0]["config"]["columns"][-1]["inverted"], "less is better"
    (runs,) = found["workspace"]["section"]["runSets"]
    assert runs["filters"]["filters"][0] | {"disabled": False} == {
        "key": {"section": "run", "name": "group"}, "op": "=", "value": "s", "disabled": False,
    }  # fmt: skip
    assert runs["sort"]["keys"] == [{"key": {"section": "summary", "name": "objective"}, "ascending": True}]
    assert main(["reaching", f"--sweep={tmp_path}", "--out=x"]) == 1
    assert "no jobs there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("model", "model._target_"),
        ("model.hidden", "model.hidden"),
        ("seed", "seed"),
        ("a@model.b", "model.b._target_"),
    ],
)
def test_where_the_config_holds_an_override(key, where):
    assert config_key(key) == where


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr("neuro_lightning.report.dashboard.importlib.util.find_spec", lambda name: None)
    assert main(["reaching"]) == 1 and "pip install 'neuro_lightning[dashboard]'" in capsys.readouterr().err
