"""The pages of runs, sweeps and comparisons: what they say equals the records, and a browser shows them whole."""

import html
import json
import re
import shutil
import sys
import time

import numpy as np
import pytest
from browser import visit
from runs import TINY, here, record

import neuro_lightning as nl
from neuro_lightning.artifacts.records import write_json
from neuro_lightning.artifacts.trial_scores import read_trial_scores, trial_scores_file
from neuro_lightning.functional.likelihood import bits_per_spike_from_sums
from neuro_lightning.metrics.trial_sums import as_sums
from neuro_lightning.pages import command
from neuro_lightning.pages.html import to_html
from neuro_lightning.pages.latents import principal_components
from neuro_lightning.pages.parts import Page, Section, Table
from neuro_lightning.pages.published import published_table

HOSTILE = "<script>alert('x')</script>\"&"
WITH_FIGURES = [*(word for word in TINY if not word.startswith(("callbacks", "baselines"))), "callbacks=default"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [here(folder / f"seed {seed}", f"seed={seed}", base=WITH_FIGURES).folder for seed in (0, 1)]


@pytest.fixture(scope="module")
def page(runs):
    """The page of a run, and its text."""
    path = nl.report(runs[0], trusted=["tiny"])
    return path, path.read_text()


def cells(text, section):
    """The rows of the first table of a section, as text."""
    part = text.split(f'id="{section}"')[1].split("</table>")[0]
    rows = re.findall(r"<tr.*?>(.*?)</tr>", part, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def test_a_runs_page_has_its_scores_figures_neurons_and_config(page, runs):
    path, text = page
    assert path == runs[0] / "report.html" and path.stat().st_size < 5e6
    saved = record(runs[0])
    scores = cells(text, "scores")
    model = next(row for row in scores if row[:2] == ["val", "model"])
    assert model[scores[0].index("co-bps")] == f"{saved['metrics']['val/co_bps']:.4f}"
    assert {"smoothing baseline", "each neuron's mean rate", "true rates (oracle)"} <= {row[1] for row in scores}
    assert text.count("data:image/png;base64,") == len(list((runs[0] / "figures").rglob("*.png"))) >= 5
    assert "simulated: scores say nothing about recordings" in text
    assert ("python train.py" in text and "SHA-256" in text) or "version" in text
    assert html.escape("lr: 0.001") in text or "optimizer:" in text


def test_neurons_and_conditions_are_scored_as_the_sums_say(page, runs):
    _, text = page
    rows = cells(text, "neurons")
    sums = as_sums(kept := read_trial_scores(trial_scores_file(runs[0]), "val"))
    total = type(sums)(*(value.sum(0) for value in sums))
    bits = bits_per_spike_from_sums(total, per_neuron=True).tolist()
    shown = {row[0]: row[1:] for row in rows[1:]}
    assert rows[0] == ["unit", "spikes", "rate (Hz)", "bits/spike"]
    for n, unit in enumerate(nl.load(runs[0], trusted=["tiny"]).unit_ids[-len(bits) :]):
        spikes, bins = float(total.spikes[n]), float(total.bins[n])
        assert shown[str(unit)] == [f"{spikes:.0f}", f"{spikes / bins / 0.01:.3f}", f"{bits[n]:.3f}"]
    conditions = [row for row in re.findall(r"<tr>(.*?)</tr>", text.split('id="neurons"')[1], re.DOTALL) if row]
    found = [re.findall(r">([^<>]+)</td>", row) for row in conditions]
    of_condition = [row for row in found if len(row) == 4][len(bits) :]
    assert [int(row[1]) for row in of_condition] == np.bincount(kept["condition"]).tolist()
    spikes = [float(row[2]) for row in of_condition]
    mean = sum(float(row[3]) * n for row, n in zip(of_condition, spikes, strict=True)) / sum(spikes)
    assert mean == pytest.approx(float(bits_per_spike_from_sums(total)), abs=1e-3)  # one null model for all


def test_latents_are_drawn_as_they_are(page, runs):
    _, text = page
    drawing = json.loads(html.unescape(re.search(r'data-drawing="([^"]+)"', text).group(1)))
    lines = [part for part in drawing["data"] if part["mode"] == "lines"]
    run = nl.load(runs[0], trusted=["tiny"])
    latents = run.latents("val")
    points, share = principal_components(latents)
    condition = run.data.recording.splits["val"].condition
    assert [line["name"] for line in lines] == [f"condition {k}" for k in np.unique(condition)]
    first = np.array([[lines[0][axis][k] for axis in "xyz"] for k in range(latents.shape[1])])
    assert first == pytest.approx(points[np.flatnonzero(condition == 0)[0]], abs=1e-3)
    assert lines[0]["x"][latents.shape[1]] is None, "trials are not joined"
    assert f"{share:.0%} of the latents" in html.unescape(text)


def test_the_page_loads_nothing_from_elsewhere_and_escapes_names(runs, tmp_path):
    saved = record(runs[0])
    saved["overrides"].append(f"name={HOSTILE}")
    saved["data"]["name"] = saved["error"] = HOSTILE
    write_json(tmp_path / "run.json", saved)
    text = nl.report(tmp_path).read_text()  # without a checkpoint, too
    assert HOSTILE not in text and html.escape(HOSTILE, quote=False).split("'")[0] in text
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)
    assert "Not drawn" in text


@pytest.mark.parametrize("status", ["failed", "running"])
def test_a_run_without_scores_has_a_page(tmp_path, status):
    write_json(tmp_path / "run.json", {"status": status, "error": "ValueError: out of luck", "config": {}, "seed": 0})
    text = nl.report(tmp_path).read_text()
    assert f"There are no scores: the run is {status}." in text and "out of luck" in text


def test_runs_side_by_side_with_their_interval(runs, tmp_path):
    path = nl.report(*runs, file=tmp_path / "both.html", trusted=["tiny"])
    text = html.unescape(path.read_text())
    rows = {row[0]: row[1:] for row in cells(text, "differences")}
    table = nl.compare({"a": nl.load(runs[0], trusted=["tiny"]), "b": nl.load(runs[1], trusted=["tiny"])})
    expected = [table.loc["val/co_bps", f"b {what}"] for what in ("difference", "low", "high")]
    assert rows["val/co_bps"][:3] == [f"{value:.4f}" for value in expected]
    assert "GRU 1" in text and ("is better than" in text or "is worse than" in text or "do not differ clearly" in text)


def test_a_sweep_of_a_hundred_jobs_is_quick_and_says_what_failed(tmp_path):
    for number in range(100):
        folder = tmp_path / f"{number}_j"
        overrides = [f"model.hidden={number % 20}", f"seed={number // 20}"]
        failed = number == 7
        saved = {
            "status": "failed" if failed else "finished", "error": f"ValueError: {HOSTILE}" if failed else None,
            "overrides": overrides, "config": {"monitor": "val/co_bps"}, "wall_s": 60.0,
            "data": {"name": "maze", "simulated": False},
        }  # fmt: skip
        if not failed:
            saved["objective"] = {"name": "val/co_bps", "value": 0.01 * (number % 20), "mode": "max"}
            saved["metrics"] = {"val/co_bps": 0.01 * (number % 20)}
        folder.mkdir()
        write_json(folder / "run.json", saved)
    (tmp_path / "multirun.yaml").write_text("")
    begin = time.perf_counter()
    text = nl.report(tmp_path).read_text()
    assert time.perf_counter() - begin < 60  # seconds on an idle machine; it would take minutes if it opened the runs
    settings = cells(text, "settings")
    assert settings[1][:3] == ["model.hidden=19", "5", "0.1900"] and len(settings) == 21
    assert len(cells(text, "jobs")) == 100 and cells(text, "failed")[1][-1] == f"ValueError: {HOSTILE}"
    assert HOSTILE not in text and "Scores of the settings" in text


def test_the_command(runs, capsys, tmp_path):
    target = tmp_path / "page.html"
    assert command.main([str(runs[0]), "--out", str(target), "--no-latents", "--trusted", "tiny"]) == 0
    assert "open it in a browser" in capsys.readouterr().out and "data-drawing=" not in target.read_text()
    assert command.main([str(tmp_path)]) == 1
    assert "is no folder of a run or a sweep" in capsys.readouterr().err


def test_published_scores_are_ranked():
    rows = published_table("mc_rtt").rows
    assert rows[0] == ["RNNf and r-RoBERTa, ensemble", 0.2168] and len(rows) == 10
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
    assert published_table("lorenz") is None


# ---- in a browser

MEASURE = """<script>addEventListener("load", () => {
  const seen = FRAME.document, heads = [...seen.querySelectorAll("th button")];
  heads.find(head => head.textContent === "spikes").click();
  Object.assign(document.body.dataset, {
    scroll: seen.documentElement.scrollWidth,
    ground: FRAME.getComputedStyle(seen.body).backgroundColor,
    broken: [...seen.images].filter(image => !image.naturalWidth).length,
    links: [...seen.querySelectorAll("nav a")].every(link => seen.getElementById(link.hash.slice(1))),
    spikes: [...seen.querySelectorAll("#neurons ~ .scroll tbody tr")].map(row => row.cells[1].textContent).join(),
  });
  setTimeout(() => { document.body.dataset.drawn = seen.querySelector("[data-drawn] canvas") !== null; }, 9000);
});</script>"""


@pytest.mark.parametrize(
    ("width", "looks", "ground"),
    [(1280, [], "rgb(255, 255, 255)"), (400, ["--blink-settings=preferredColorScheme=0"], "rgb(21, 25, 30)")],
)
def test_a_browser_shows_it_whole(page, tmp_path, width, looks, ground):
    shutil.copy(page[0], tmp_path / "page.html")
    # a frame: headless Chromium makes no window as narrow as a telephone
    frame = f'<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe>'
    (tmp_path / "frame.html").write_text(frame + MEASURE.replace("FRAME", "frames[0]"))
    looks = ["--allow-file-access-from-files", *looks]
    seen = visit(f"file://{tmp_path / 'frame.html'}", tmp_path / "browser", *looks, width=width + 100)
    assert seen.errors == []
    values = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body([^>]*)>", seen.dom).group(1)))
    assert int(values["scroll"]) <= width, "nothing sticks out"
    assert values["ground"] == ground and values["broken"] == "0" and values["links"] == "true"
    assert values["drawn"] == "true", "the latents are drawn"
    spikes = [int(value) for value in values["spikes"].split(",")][: len(cells(page[1], "neurons")) - 1]
    assert spikes == sorted(spikes, reverse=True) and len(spikes) > 2, "a click sorts"


def test_tables_show_what_is_missing():
    table = Table(["a", "b"], [[1, None], [2, 0.5], [3, float("nan")]], digits=1)
    assert [table.shown(row[1]) for row in table.rows] == ["-", "0.5", "-"] and table.is_number(1)
    text = to_html(Page("t", [], [Section("one", "one", tables=[table]), Section("none", "none")]))
    assert 'id="one"' in text and 'id="none"' not in text


def test_the_function_and_the_command_have_one_name(tmp_path):
    import neuro_lightning.report  # noqa: F401  it becomes an attribute of the package

    write_json(tmp_path / "run.json", {"status": "running", "config": {}, "seed": 0})
    assert nl.report(tmp_path).name == "report.html"


def test_without_plotly_a_line_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    text = nl.report(runs[0], file=tmp_path / "plain.html", trusted=["tiny"]).read_text()
    assert "Not drawn" in text and "pip install" in text and "data-drawing=" not in text
