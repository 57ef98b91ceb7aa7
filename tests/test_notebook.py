"""Every notebook runs from top to bottom in an empty folder, and leaves what it speaks of."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = {
    "01_quickstart": ["quickstart/submission.h5"],
    "02_stringer": ["stringer/autoencoder/run.json", "stringer/planes/latents.json", "stringer/images/run.json"],
    "03_uwndc19": ["uwndc19/cnn/run.json", "uwndc19/submission.csv"],
    "04_antolik": ["antolik/hsm/figures/dogs.png"],
    "05_submission": ["submission/gru/run.json", "submission/submission.h5"],
    "06_own_recording": ["own_recording/gru/run.json", "own_recording/mine.npz", "own_recording/session.nwb"],
    "07_new_day": ["new_day/together/run.json", "new_day/adapted/run.json", "new_day/scratch_60/run.json"],
    "08_real_time": ["real_time/gru/export/step.pt2"],
    "09_sweep": ["sweep/sizes/sweep.md", "sweep/ensemble.h5"],
    "10_extend": ["extend/filters/run.json", "extend/waves_filters/run.json"],
    "11_lfads": ["lfads/cheap_inputs/run.json", "lfads/dear_inputs/run.json"],
    "12_in_silico": ["in_silico/core_readout/run.json"],
    "13_antolik_thesis": ["antolik_thesis/antolik_lnln_2/run.json"],
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def read(path):
    return pytest.importorskip("nbformat").read(path, as_version=4)


def printed(notebook):
    """The text below a notebook's cells."""
    return "".join(o.text for cell in notebook.cells for o in cell.get("outputs", ()) if o.output_type == "stream")


def test_each_notebook_is_listed():
    assert {path.stem for path in NOTEBOOKS} == set(LEAVES)


@each_notebook
def test_kept_without_outputs(path):
    pytest.importorskip("nbformat").validate(notebook := read(path))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code), "outputs are not kept under version control"
    text = "\n".join(cell.source for cell in notebook.cells)
    assert not re.search(r"(?<![\w.:])/(home|root|tmp|work|Users)/", text), "paths of somebody's machine"


@pytest.mark.slow
@pytest.mark.rare  # half a minute and more; test_api is about what the first one shows
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    recordings = ROOT.parent / "shared" / "data"
    if recordings.is_dir():
        monkeypatch.setenv("NEURO_DATA", str(recordings))  # where a notebook looks at real files, too
    notebook = read(path)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for file in LEAVES[path.stem]:
        assert (tmp_path / file).is_file()
    assert len(list(tmp_path.iterdir())) == 1, "a notebook writes into one folder"
    assert "simulated data" in printed(notebook)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert pictures, "a notebook shows figures"
    real = (recordings / "antolik2016" / "region1" / "raw_validation_set.npy").is_file()
    if path.stem == "04_antolik":
        assert ("region 3, recorded" if real else "skipped: ") in printed(notebook)
