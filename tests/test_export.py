"""Networks as files that run without this package: equal numbers, and a description that says how to use them."""

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from runs import ROOT, TINY, here
from tiny import BINS, FORWARD, N_IN, N_OUT

import neuro_lightning as nl
from neuro_lightning.errors import ConfigError
from neuro_lightning.export.__main__ import main
from neuro_lightning.export.command import export

WITHOUT = [word for word in TINY if not word.startswith("model")]
MODELS = {
    "gru": ["model=gru_smoothed", "model.hidden=6", "model.layers=1", "model.bidirectional=false"],
    "ndt": ["model=ndt", "model.width=8", "model.layers=2", "model.attention.context_forward_ms=0"],
    "stndt": ["model=stndt", "model.width=8", "model.layers=2", "model.attention.context_forward_ms=0"],
    "plds": ["model=plds", "model.causal=true", "model.n_latents=2", "model.iterations=1"],
    "gpfa": ["model=gpfa", "model.causal=true", "model.n_latents=2", "model.iterations=1"],
    "smoothing": ["model=smoothing", "model.causal=true"],
    "bidirectional": ["model=gru", "model.hidden=6", "model.layers=1"],
}
onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the optional packages of ONNX are not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, by the model's name; each is trained once."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            here(made[name], *MODELS[name], "trainer.max_epochs=1", base=WITHOUT)
        return made[name]

    return folder


def by_bins(file, about, counts):
    """Rates (B, T, N) and behavior of an exported step, fed bin by bin; counts that are NaN are said to be missing."""
    state = [torch.full(part["shape"], 0, dtype=getattr(torch, part["dtype"])) + torch.tensor(part["start"])
             for part in about["state"].values()]  # fmt: skip
    if file.suffix == ".onnx":
        session = __import__("onnxruntime").InferenceSession(file)
        known = [given.name for given in session.get_inputs()]
        names = ["counts", "observed", *(f"state.{name}" for name in about["state"])]
        wanted = [output.name for output in session.get_outputs()]

        def step(*inputs):
            given = {name: value.numpy() for name, value in zip(names, inputs, strict=True) if name in known}
            return [torch.from_numpy(value) for value in session.run(wanted, given)]
    else:
        step = torch.export.load(file).module()
    said = []
    for t in range(counts.shape[1]):
        missing = np.isnan(counts[:, t])
        given = torch.from_numpy(np.where(missing, 0, counts[:, t]).astype(np.float32)), torch.from_numpy(~missing)
        found = step(*given, *state)
        said.append(dict(zip(about["outputs"], found[: len(about["outputs"])], strict=True)))
        state = found[len(about["outputs"]) :]
    return {name: np.stack([each[name].numpy() for each in said], axis=1) for name in about["outputs"]}


@onnx
@pytest.mark.parametrize(
    ("model", "to"),
    [("gru", "onnx"), *(pytest.param(*case, marks=pytest.mark.rare) for case in (
        ("gru", "torch"), ("ndt", "onnx"), ("ndt", "torch"), ("stndt", "onnx"), ("smoothing", "onnx"), ("gpfa", "onnx"),
        ("plds", "torch"),
    ))],
)  # fmt: skip
def test_the_file_says_of_each_bin_what_the_stream_says(run, tmp_path, model, to):
    folder = run(model)
    counts = nl.load(folder, trusted=["tiny"]).data.recording.splits["val"].heldin[:2].astype(np.float32)
    counts[0, 3, 1] = counts[1, 0, :] = np.nan
    file, description = export(folder, to=to, behavior=True, batch=2, trusted=["tiny"], out=tmp_path)
    about = json.loads(description.read_text())
    stream = nl.stream(folder, behavior=True, trusted=["tiny"])
    bins = [stream.step(counts[:, t]) for t in range(BINS)]
    found = by_bins(file, about, counts)
    np.testing.assert_allclose(found["rates"], np.stack([each.rates for each in bins], 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["behavior"], np.stack([each.behavior for each in bins], 1), rtol=1e-4, atol=1e-4)
    if "latents" in found:
        np.testing.assert_allclose(found["latents"], np.stack([each.latents for each in bins], 1), rtol=1e-4, atol=1e-5)
    assert about["bin_ms"] == 10 and about["unit_ids"] == list(range(N_IN + N_OUT)) and about["n_in"] == N_IN
    assert about["longest_trial"] == (BINS if "ndt" in model else None)
    assert about["outputs"]["rates"] == {
        "shape": [2, N_IN + N_OUT], "dtype": "float32", "unit": "expected spikes of each neuron in the bin",
    }  # fmt: skip
    assert about["sha256"][file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, description.name])


@onnx
@pytest.mark.parametrize("to", ["torch", pytest.param("onnx", marks=pytest.mark.rare)])
def test_networks_of_whole_trials_are_exported_too(run, tmp_path, to):
    folder = run("bidirectional")
    counts = nl.load(folder, trusted=["tiny"]).data.recording.splits["val"].heldin[:1].astype(np.float32)
    file, description = export(folder, to=to, trial=True, trusted=["tiny"], out=tmp_path)
    if to == "onnx":
        (rates, *_) = __import__("onnxruntime").InferenceSession(file).run(["rates"], {"counts": counts})
    else:
        rates = torch.export.load(file).module()(torch.from_numpy(counts))[0].numpy()
    expected = nl.load(folder, trusted=["tiny"]).rates("val")[:1]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-6)
    assert json.loads(description.read_text())["outputs"]["rates"]["shape"] == [1, BINS + FORWARD, N_IN + N_OUT]


@onnx
@pytest.mark.slow
def test_the_example_runs_without_this_package(run, tmp_path, capsys):
    folder = run("gru")
    counts = nl.load(folder, trusted=["tiny"]).data.recording.splits["val"].heldin[0]
    np.save(tmp_path / "counts.npy", counts)
    assert main([str(folder), "--trusted", "tiny"]) == 0
    assert f"written     {folder / 'export' / 'step.onnx'}" in capsys.readouterr().out
    without = (
        "import sys, runpy; sys.modules |= dict.fromkeys(['neuro_lightning', 'torch']); sys.argv[:] = sys.argv[1:]"
    )
    code = f"{without}; runpy.run_path(sys.argv[0])"
    example = ROOT / "docs" / "how_to" / "stream_onnx.py"
    arguments = [str(example), str(folder / "export" / "step.onnx"), "counts.npy"]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, check=True)
    stream = nl.stream(folder)
    np.testing.assert_allclose(
        np.load(tmp_path / "rates.npy"), [stream.step(each).rates for each in counts], rtol=1e-5, atol=1e-6
    )
    assert len(example.read_text().split('"""', 2)[2].strip().splitlines()) <= 30


def test_what_cannot_be_exported_is_refused_in_one_line(run, tmp_path, monkeypatch, capsys):
    assert main([str(run("bidirectional")), "--trusted", "tiny"]) == 1
    assert "error: GRUNet cannot run bin by bin: it looks ahead; train it with" in capsys.readouterr().err
    monkeypatch.setattr("neuro_lightning.export.files.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs onnx, onnxscript, onnxruntime: pip install 'neuro_lightning\[onnx\]'"
    ):
        export(run("smoothing"), trusted=["tiny"], out=tmp_path)
    assert not list(tmp_path.iterdir())


@onnx
@pytest.mark.rare
def test_what_onnx_has_no_operators_for_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="PLDSNet computes what ONNX has no operators for; take --to torch"):
        export(run("plds"), to="onnx", trusted=["tiny"], out=tmp_path)
