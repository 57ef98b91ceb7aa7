"""``predict.py`` with several models: what it prints and writes."""

import json

import h5py
import numpy as np
import pytest
from ensembles import TRUSTED, members_of, written
from runs import TINY, here

from neuro_lightning.ensemble.report import differing_settings
from neuro_lightning.errors import ConfigError
from neuro_lightning.submission.layout import EVAL


def test_predict_prints_and_writes_the_ensemble(ensemble_sweep, tmp_path, capsys):
    path = written(f"ckpt={ensemble_sweep}", "ensemble=greedy", f"file={tmp_path / 's.h5'}")
    said = capsys.readouterr().out
    kept = json.loads((tmp_path / "s.h5.json").read_text())["tiny"]
    assert "3_tiny_gru is left out: failed" in said and "on tiny (simulated data): co-bps" in said
    rows = {line[:11]: line.split()[2 + (line[0] == "m") :] for line in said.splitlines()
            if line.startswith(("best member", "mean of all", "ensemble   "))}  # fmt: skip
    for name, who in (("best member", "best"), ("mean of all", "mean")):
        assert (
            f"{kept['scores'][who]['reports']:.4f}" in rows[name] and f"{kept['gain'][who]['over']:.4f}" in rows[name]
        )
    assert f"{kept['scores']['ensemble']['chose']:.4f}" in said
    assert sorted(kept["halves"]["chose"] + kept["halves"]["reports"]) == list(range(11))
    runs = [str(path.parent.parent) for path in members_of(ensemble_sweep)]
    assert [member["run"] for member in kept["members"]] == runs
    assert sum(member["weight"] for member in kept["members"]) == pytest.approx(1)
    assert {"seed", "space", "versions"} <= set(kept) | set(kept["halves"]) and path == tmp_path / "s.h5"
    written(f"ckpt={ensemble_sweep / '0_tiny_gru'}", f"file={tmp_path / 'one.h5'}")
    assert not (tmp_path / "one.h5.json").exists()


def test_members_file_keeps_the_entries_of_the_datasets_that_stay_in_the_submission(ensemble_sweep, tmp_path):
    path, members = tmp_path / "s.h5", tmp_path / "s.h5.json"
    words = [f"file={path}", "output=submission", "overwrite=true", "evaluate=false"]

    def entries():
        return set(json.loads(members.read_text())) if members.exists() else set()

    def add_dataset():
        with h5py.File(path, "a") as file:
            for name in EVAL:
                file[f"other/{name}"] = np.ones((2, 3, 4), np.float32)
        members.write_text(json.dumps({**json.loads(members.read_text()), "other": {"ensemble": "mean"}}))

    written(f"ckpt={ensemble_sweep}", *words)
    add_dataset()
    assert entries() == {"tiny_10", "other"}, "named like the groups of the submission, which differ by bin width"
    written(f"ckpt={ensemble_sweep}", *words, f"merge_into={path}")
    assert entries() == {"tiny_10", "other"}, "merging keeps the other dataset and its entry"
    written(f"ckpt={ensemble_sweep / '0_tiny_gru'}", *words, f"merge_into={path}")
    assert entries() == {"other"}, "a single model removes the entry of the ensemble that it replaces, and no other"
    written(f"ckpt={ensemble_sweep}", *words)
    with h5py.File(path) as file:
        assert set(file) == {"tiny_10"}
    assert entries() == {"tiny_10"}, "a new file has entries of its own datasets only"
    written(f"ckpt={ensemble_sweep / '0_tiny_gru'}", *words)
    assert not members.exists()


@pytest.mark.parametrize("data", ["tiny_traces", "pictures"])
def test_predict_with_an_ensemble_of_traces_or_images(tmp_path, data, capsys):
    models = {"tiny_traces": ("pca", "mean"), "pictures": ("rln", "mean")}[data]
    base = [word for word in TINY if not word.startswith(("data=", "model", "trusted"))]
    for model in models:
        here(tmp_path / "sweep" / model, base=[*base, TRUSTED, f"data={data}", f"model={model}"])
    (tmp_path / "sweep" / "sweep.csv").touch()
    capsys.readouterr()
    path = written(f"ckpt={tmp_path / 'sweep'}", "ensemble=greedy", f"file={tmp_path / 'p.h5'}")
    said = capsys.readouterr().out
    assert "MSE (lower is better)" in " ".join(said.split())
    kept = json.loads((tmp_path / "p.h5.json").read_text())[data]["scores"]
    assert kept["ensemble"]["chose"] <= kept["best"]["chose"] <= kept["mean"]["chose"]
    with h5py.File(path) as file:
        assert np.isfinite(file["val/predictions"][()]).all()
    with pytest.raises(ConfigError, match="space=log_rate is for rates of spikes"):
        written(f"ckpt={tmp_path / 'sweep'}", "space=log_rate", f"file={tmp_path / 'q.h5'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ensemble=best"], "ensemble=best: must be one of mean, top, greedy, stack, per_neuron"),
        (["space=log"], "space=log: must be one of rate, log_rate"),
        (["max_members=0"], "max_members=0: give a number from 1 on"),
        (["max_members=1.5"], "max_members=1.5: must be a whole number"),
        (["shrinkage=-1"], "shrinkage=-1: give a number from 0 on"),
        (["ensemble_seed=-1"], "ensemble_seed=-1"),
    ],
)
def test_invalid_ensemble_settings_are_refused(ensemble_sweep, words, message):
    with pytest.raises(ConfigError, match=message):
        written(f"ckpt={ensemble_sweep}", *words)


def test_bookkeeping_overrides_are_no_setting_of_a_member(tmp_path):
    for i in range(2):
        (tmp_path / str(i) / "checkpoints").mkdir(parents=True)
        (tmp_path / str(i) / "checkpoints" / "best.ckpt").touch()
        words = ["model=gru", f"model.hidden={i + 4}", f"sweep.trial={i}"]
        (tmp_path / str(i) / "run.json").write_text(json.dumps({"overrides": words}))
    found = differing_settings([tmp_path / str(i) / "checkpoints" / "best.ckpt" for i in range(2)])
    assert found == {"model.hidden": ["4", "5"]}
