"""Several models as one: chosen on half of the validation trials, from the models' own files to what is written."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from pictures import Pictures
from runs import ROOT, TINY, here
from test_nwb_trials import STARTS, random_spikes, write
from tiny import Tiny
from tiny_traces import TinyTraces

from neuro_lightning.ensemble import combine as combining
from neuro_lightning.ensemble import files
from neuro_lightning.ensemble.combine import METHODS, Recipe, combine, predict_rates
from neuro_lightning.ensemble.halves import Halves, deal
from neuro_lightning.ensemble.members import find_members
from neuro_lightning.ensemble.report import _settings
from neuro_lightning.errors import CheckpointError, ConfigError, DataError
from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.models.base import CHECKPOINT_KEY
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.runs.train import predict

CHOOSING = [method for method in METHODS if method != "mean"]
TRUSTED = "trusted=[tiny,tiny_traces,pictures]"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep's folder: three jobs that finished, one that failed, one that was killed.

    The three err in how much each neuron fires, so that each is the best for some and a mixture is better still.
    """
    folder = tmp_path_factory.mktemp("multirun")
    here(folder / "0_tiny_gru", "trainer.max_epochs=2")
    for job in range(1, 5):
        shutil.copytree(folder / "0_tiny_gru", folder / f"{job}_tiny_gru")
    scatter = np.random.default_rng(0).normal(0, 0.4, (3, 10))
    for job, offset in enumerate(torch.from_numpy(scatter - scatter.mean(0)).float()):
        path = folder / f"{job}_tiny_gru" / "checkpoints" / "best.ckpt"
        changed(path, path, lambda content, offset=offset: content["state_dict"]["net.readout.bias"].add_(offset))
    record = json.loads((folder / "3_tiny_gru" / "run.json").read_text())
    failed = record | {"status": "failed", "error": "RuntimeError: out of memory"}
    (folder / "3_tiny_gru" / "run.json").write_text(json.dumps(failed))
    (folder / "4_tiny_gru" / "run.json").write_text('{"status": "running"}')
    (folder / "multirun.yaml").touch()
    return folder


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where members' predictions wait; empty after every test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def members_of(sweep: Path) -> list[Path]:
    return [sweep / f"{i}_tiny_gru" / "checkpoints" / "best.ckpt" for i in range(3)]


def data_of(**poison: float) -> Tiny:
    return Tiny(n_train=37, n_val=11, poison=poison, eval_batch_size=4)


def combined(members, data=None, method="mean", **options):
    return combine(members, data or data_of(), ["train", "val", "test"], "cpu", Recipe(method, **options),
                   trusted=["tiny"])  # fmt: skip


def alone(path: Path) -> dict[str, np.ndarray]:
    net, data = load_checkpoint(path, trusted=["tiny"]).model.net, data_of()
    return {split: predict_rates(net, data, split, "cpu") for split in ("train", "val", "test")}


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[split], b[split]) for split in a)


# ---- the rates


@pytest.mark.parametrize(("method", "space"), [("mean", "log_rate"), ("greedy", "rate"), ("per_neuron", "log_rate")])
def test_one_model_is_itself(sweep, method, space):
    one = members_of(sweep)[1]
    rates, choice = combined([one], method=method, space=space)
    assert choice is None and equal(rates, alone(one))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_twice_is_itself(sweep, tmp_path, method):
    one = members_of(sweep)[1]
    shutil.copy(one, tmp_path / "twin.ckpt")
    rates, choice = combined([one, tmp_path / "twin.ckpt"], method=method)
    single = alone(one)
    assert all(np.array_equal(rates[split].astype(np.float32), single[split]) for split in single)
    assert choice.scores["ensemble"] == pytest.approx(choice.scores["best"], abs=1e-12)


@pytest.mark.parametrize(
    ("method", "space"),
    [("mean", "log_rate"), ("top", "rate"), ("greedy", "log_rate"), ("stack", "rate"), ("per_neuron", "log_rate")],
)
def test_the_order_of_members_does_not_matter(sweep, method, space):
    members = members_of(sweep)
    one, choice = combined(members, method=method, space=space, shrinkage=1.0)
    other, same = combined(members[::-1], method=method, space=space, shrinkage=1.0)
    assert equal(one, other) and choice.members == same.members and choice.scores == same.scores


def test_means_of_rates_and_of_log_rates(sweep):
    single = [alone(path) for path in members_of(sweep)]
    for space, mean in (("rate", np.mean), ("log_rate", lambda x, axis: np.exp(np.log(x).mean(axis)))):
        rates, choice = combined(members_of(sweep), space=space)
        for split in rates:
            expected = mean(np.array([member[split] for member in single], np.float64), axis=0)
            np.testing.assert_allclose(rates[split], expected, rtol=1e-10)
        assert choice.scores["ensemble"] == choice.scores["mean"] and (choice.weights == 1 / 3).all()


@pytest.mark.parametrize("method", CHOOSING)
def test_what_is_reported_is_what_is_written(sweep, method):
    """Weights and scores, by their definitions."""
    rates, choice = combined(members_of(sweep), method=method, shrinkage=0.1)
    single = [alone(path) for path in members_of(sweep)]
    assert choice.weights.sum(0) == pytest.approx(1)
    for split in rates:
        weighted = sum(w * member[split].astype(float) for w, member in zip(choice.weights, single, strict=True))
        np.testing.assert_allclose(rates[split], weighted, rtol=1e-9)
    batch = data_of().dataset("val", evaluate=True)[list(range(11))]
    best = min(range(3), key=lambda i: -choice.member_scores[i, 0])
    everyone = {"ensemble": rates["val"], "mean": sum(m["val"].astype(float) for m in single) / 3,
                "best": single[best]["val"]}  # fmt: skip
    for who, values in everyone.items():
        for half, trials in enumerate((choice.chose, ~choice.chose)):
            parts = (torch.from_numpy(values)[trials, :12, 6:], batch["targets"][trials, :12, 6:],
                     batch["mask"][trials, :12, 6:])  # fmt: skip
            assert choice.scores[who][half] == pytest.approx(float(bits_per_spike(*parts)), abs=1e-9)
    assert choice.gain["best"][0] == pytest.approx(choice.scores["ensemble"][1] - choice.scores["best"][1], abs=1e-12)
    assert choice.scores["ensemble"][0] > choice.scores["best"][0]


@pytest.mark.parametrize("method", METHODS)
def test_validation_trials_choose_where_only_others_are_written(sweep, method):
    """As in the challenge's file, which holds test images alone."""
    recipe = Recipe(method, shrinkage=0.1)
    rates, choice = combine(members_of(sweep), data_of(), ["test"], "cpu", recipe, trusted=["tiny"])
    whole, same = combined(members_of(sweep), method=method, shrinkage=0.1)
    assert list(rates) == ["test"] and np.array_equal(rates["test"], whole["test"]) and choice.scores == same.scores


def test_held_in_neurons_take_the_weights_of_all(sweep):
    stacked = combined(members_of(sweep), method="stack", shrinkage=0.1)[1].weights
    own = combined(members_of(sweep), method="per_neuron", shrinkage=0.1)[1].weights
    np.testing.assert_allclose(own[:, :6], np.repeat(stacked[:, None], 6, 1), atol=1e-12)
    assert np.abs(own[:, 6:] - stacked[:, None]).max() > 1e-3
    held = combined(members_of(sweep), method="per_neuron", shrinkage=float("inf"))
    assert equal(held[0], combined(members_of(sweep), method="stack", shrinkage=float("inf"))[0])


@pytest.mark.parametrize("method", ["top", "per_neuron"])
def test_test_trials_never_choose(sweep, method):
    """Nor do training trials, nor the half that reports."""
    choice = combined(members_of(sweep), method=method, shrinkage=0.1)[1]
    others = {f"{split}.{name}": 9.0 for split in ("train", "test") for name in ("heldout", "heldout_forward")}
    same = combined(members_of(sweep), data_of(**others), method=method, shrinkage=0.1)[1]
    assert np.array_equal(choice.weights, same.weights) and choice.scores == same.scores
    data = data_of()
    data.recording.splits["val"].heldout[~choice.chose] = 7.0
    shuffled = combined(members_of(sweep), data, method=method, shrinkage=0.1)[1]
    assert np.array_equal(choice.weights, shuffled.weights) and choice.scores["ensemble"] != shuffled.scores["ensemble"]


# ---- one pass, on the disk, and no longer


@pytest.mark.parametrize("method", ["mean", "stack"])
def test_every_network_predicts_every_split_once(sweep, monkeypatch, method):
    seen = []

    def counted(model, data, split, device):
        seen.append((id(model), split))
        kept.append(model)  # so that no other gets its id
        return predict_rates(model, data, split, device)

    kept = []
    monkeypatch.setattr(combining, "predict_rates", counted)
    combined(members_of(sweep), method=method)
    assert len(seen) == len(set(seen)) == 9


def test_nothing_stays_on_the_disk_after_a_failure(sweep, monkeypatch, scratch):
    def fails(model, data, split, device):
        if split == "test" and any(scratch.rglob("val")):
            raise KeyboardInterrupt
        return predict_rates(model, data, split, device)

    monkeypatch.setattr(combining, "predict_rates", fails)
    with pytest.raises(KeyboardInterrupt):
        combined(members_of(sweep), method="greedy")
    assert not list(scratch.iterdir())


def test_a_full_disk_is_said_before_anything_is_predicted(sweep, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    monkeypatch.setattr(combining, "predict_rates", None)
    with pytest.raises(DataError, match=r"predictions need 0\.0 GB of disk .* 0\.0 GB free: set TMPDIR"):
        combined(members_of(sweep), method="top")


@pytest.mark.parametrize("method", ["top", "per_neuron"])
def test_small_blocks_give_the_same(sweep, monkeypatch, method):
    whole = combined(members_of(sweep), method=method)[0]
    monkeypatch.setattr("neuro_lightning.functional.selection.BLOCK", 50)
    monkeypatch.setattr("neuro_lightning.ensemble.halves.BLOCK", 100)
    monkeypatch.setattr(files, "BLOCK", 400)
    for split, rates in combined(members_of(sweep), method=method)[0].items():
        np.testing.assert_allclose(rates, whole[split], rtol=1e-6)


# ---- the halves


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 99))
def test_halves_are_even_in_all_and_in_every_condition(conditions, seed):
    condition = np.array(conditions)
    chooses = deal(condition, seed)
    assert abs(2 * chooses.sum() - len(chooses)) <= 1
    for one in set(conditions):
        assert abs(2 * chooses[condition == one].sum() - (condition == one).sum()) <= 1
    assert np.array_equal(chooses, deal(condition, seed))


def test_other_seeds_deal_other_halves():
    assert len({tuple(deal(np.zeros(20, int), seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("kind", ["traces", "images"])
def test_other_data_are_judged_by_their_squared_error(kind):
    if kind == "traces":
        data = TinyTraces(n_in=4, n_out=2, n_train=3, n_bins=10, noise=0.1)
    else:
        data = Pictures(n_train=20, n_val=10, offset=0)
    halves = Halves(data, seed=0, space="rate")
    batch = data.dataset("val", evaluate=True)[list(range(len(data.recording.splits["val"])))]
    targets, mask = batch["targets"].numpy(), batch["mask"].numpy()
    rates = targets + np.random.default_rng(0).normal(size=targets.shape)
    found = halves.scores(halves.losses(rates))
    for half, chosen in enumerate((halves.chooses, ~halves.chooses)):
        seen = mask & chosen[halves.part][..., None]
        assert found[half] == pytest.approx(np.square(rates - targets)[seen].mean())
        assert seen.any()
    if kind == "traces":  # one sequence: its first or its second half
        assert (
            halves.chooses.tolist() in ([True, False], [False, True]) and halves.part[0].tolist() == [0] * 10 + [1] * 10
        )
    assert halves.metric == "MSE"


def test_without_held_out_neurons_forward_bins_judge():
    data = data_of()
    for trials in data.recording.splits.values():
        trials.heldin = np.concatenate([trials.heldin, np.nan_to_num(trials.heldout)], axis=2)
        trials.heldin_forward = np.concatenate([trials.heldin_forward, trials.heldout_forward], axis=2)
        trials.heldout = trials.heldout_forward = None
    assert data.spec.n_out == 0
    halves = Halves(data, seed=0, space="rate")
    assert halves.metric == "fp-bps" and halves.targets.shape == (11, 3, 10)
    data._spec = replace(data.spec, n_forward=0)
    assert Halves(data, seed=0, space="rate").metric == "bits/spike"


def test_one_validation_trial_cannot_choose(sweep):
    data = Tiny(n_train=37, n_val=1, poison={})
    with pytest.raises(ConfigError, match=r"tiny has 1 validation trials: too few to choose .* give ensemble=mean"):
        combined(members_of(sweep), data, method="greedy")
    assert combined(members_of(sweep), data)[1] is None, "a mean needs no choice"


# ---- which members


def test_a_sweeps_finished_jobs_are_members(sweep):
    found, remarks = find_members([sweep])
    assert found == members_of(sweep)
    assert remarks == ["3_tiny_gru is left out: failed: RuntimeError: out of memory", "4_tiny_gru is left out: running"]


def test_each_member_once(sweep):
    found, remarks = find_members([sweep / "1_tiny_gru", str(members_of(sweep)[1]), sweep])
    assert found == [members_of(sweep)[i] for i in (1, 0, 2)]
    assert sum("is named twice: it counts once" in remark for remark in remarks) == 2


def test_no_member_is_one_line(sweep, tmp_path):
    with pytest.raises(CheckpointError, match=r"give a .ckpt file, a run's folder .* or a sweep's folder"):
        find_members([tmp_path])
    shutil.copytree(sweep / "4_tiny_gru", tmp_path / "sweep" / "0_tiny_gru")
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with pytest.raises(CheckpointError, match="none of its 1 jobs finished with a checkpoint"):
        find_members([tmp_path / "sweep"])


def changed(path: Path, to: Path, change) -> Path:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, to)
    return to


def test_a_diverged_member_is_left_out(sweep, tmp_path):
    def diverge(content):
        for name, value in content["state_dict"].items():
            if value.is_floating_point() and name.startswith("net."):
                value.fill_(float("nan"))

    bad = changed(members_of(sweep)[0], tmp_path / "bad.ckpt", diverge)
    for method in ("mean", "greedy"):
        rates, choice = combined([bad, *members_of(sweep)], method=method)
        assert equal(rates, combined(members_of(sweep), method=method)[0]) and choice.members == members_of(sweep)
        assert "bad.ckpt is left out: not all of its weights are numbers" in choice.left_out[0]

    def diverge_where_nothing_chooses(content):  # a held-in neuron, where co-bps is of those held out
        content["state_dict"]["net.readout.bias"][0] = float("inf")

    part = changed(members_of(sweep)[0], tmp_path / "part.ckpt", diverge_where_nothing_chooses)
    assert "part.ckpt is left out" in combined([part, *members_of(sweep)], method="stack")[1].left_out[0]
    with pytest.raises(CheckpointError, match=r"bad.ckpt is left out"):
        combined([bad, changed(bad, tmp_path / "worse.ckpt", lambda content: None)], method="top")


def test_runs_that_lie_in_one_folder_are_no_set(sweep, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "lorenz" / "gru")
    (folder / "multirun.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"gru holds 5 runs of no sweep, .* or a list, ckpt=\[.*0_tiny_gru,"):
        find_members([folder])
    assert find_members([folder / "0_tiny_gru", folder / "1_tiny_gru"])[0] == [
        folder / f"{i}_tiny_gru" / "checkpoints" / "best.ckpt" for i in range(2)
    ]


def edited(sweep, tmp_path, change) -> Path:
    """The first member with another content of its description."""
    return changed(members_of(sweep)[0], tmp_path / "o.ckpt", lambda content: change(content[CHECKPOINT_KEY]))


@pytest.mark.parametrize("method", ["mean", "stack"])
def test_models_of_other_data_do_not_belong_together(sweep, tmp_path, method):
    def sized(recipe):
        recipe["identity"]["config"]["n_val"] = 12

    def shorn(recipe):  # as of an older version
        del recipe["identity"]
        recipe["data"]["n_val"] = 12

    def other_rates(recipe):
        del recipe["identity"]
        recipe["spec"]["mean_rates"][0] += 0.01

    def other_file(recipe):
        recipe["identity"].update(name="tiny2")

    size = r"data\.n_val is 1[12]"
    changes = {sized: size, shorn: size, other_file: "name is tiny", other_rates: "the training trials' mean rate is"}
    for change, key in changes.items():
        with pytest.raises(CheckpointError, match=rf"ckpt and .*\.ckpt do not belong together: {key}") as refused:
            combined([edited(sweep, tmp_path, change), *members_of(sweep)], method=method)
        assert "ensemble=" not in str(refused.value), "no other mode is right"
    harmless = edited(sweep, tmp_path, lambda recipe: recipe["identity"]["config"].update(batch_size=3))
    combined([harmless, members_of(sweep)[1]], method=method)


def test_a_refit_does_not_choose(sweep, tmp_path, caplog):
    other = edited(sweep, tmp_path, lambda recipe: recipe.update(fitted_on=["train", "val"]))
    with pytest.raises(CheckpointError, match=r"o\.ckpt was trained on the val trials, .* give checkpoint=best"):
        combined([other, *members_of(sweep)], method="stack")
    assert combined([other, *members_of(sweep)])[1] is None, "a mean is allowed, its gain not told"
    assert "whose predictions of them flatter" in caplog.text


def test_an_older_checkpoint_joins_by_its_config(sweep, tmp_path, caplog):
    old = edited(sweep, tmp_path, lambda recipe: recipe.pop("identity"))
    combined([old, *members_of(sweep)], method="top")
    assert "1 of 4 checkpoints are of an older version" in caplog.text


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Runs on one file whose held-out neurons are marked, split in several ways, and on a copy of it."""
    folder = tmp_path_factory.mktemp("splits")
    base = [*(word for word in TINY if not word.startswith(("data=", "trainer.max_epochs"))), "data=nwb",
            "trainer.max_epochs=1", f"paths.cache={folder}", "data.bin_ms=20"]  # fmt: skip
    write(folder / "a.nwb", random_spikes(), STARTS, heldout=[1, 1, *[0] * 6])
    write(folder / "b.nwb", random_spikes(1), STARTS, heldout=[1, 1, *[0] * 6])
    shutil.copy(folder / "a.nwb", folder / "copy.nwb")
    runs = {"first": [], "seed": ["data.seed=1"], "val_fraction": ["data.val_fraction=0.5"],
            "train_trials": ["data.train_trials=9"], "copy": [f"data.path={folder / 'copy.nwb'}"],
            "recording": [f"data.path={folder / 'b.nwb'}"]}  # fmt: skip
    for name, words in runs.items():
        here(folder / name, base=[*base, f"data.path={folder / 'a.nwb'}", *words])
    return folder


@pytest.mark.parametrize("method", ["mean", "greedy"])
def test_trials_that_trained_a_member_are_not_judged(splits, tmp_path, method):
    def together(*names):
        words = [f"ckpt=[{','.join(str(splits / name) for name in names)}]", f"file={tmp_path / names[1]}.h5"]
        return written(*words, f"ensemble={method}", "evaluate=false", "overwrite=true")

    for names in (("first", "seed"), ("seed", "first"), ("val_fraction", "first")):
        key = names[0] if names[1] == "first" else names[1]
        with pytest.raises(CheckpointError, match=rf"trained on \d+ of the \d+ val trials of .*\(data\.{key} is "):
            together(*names)
    with pytest.raises(CheckpointError, match=r"has other val trials than .*first.*\(data\.val_fraction is 0\.5 and 0"):
        together("first", "val_fraction")
    with pytest.raises(CheckpointError, match=r"do not belong together: the file is .*[ab]\.nwb \(SHA-256 "):
        together("first", "recording")
    together("first", "copy")
    together("first", "train_trials")


# ---- predict.py


def written(*overrides: str) -> Path:
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=[TRUSTED, *overrides])
    return predict(cfg)


def test_what_is_said_and_kept_of_an_ensemble(sweep, tmp_path, capsys):
    path = written(f"ckpt={sweep}", "ensemble=greedy", f"file={tmp_path / 's.h5'}")
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
    assert [member["run"] for member in kept["members"]] == [str(path.parent.parent) for path in members_of(sweep)]
    assert sum(member["weight"] for member in kept["members"]) == pytest.approx(1)
    assert {"seed", "space", "versions"} <= set(kept) | set(kept["halves"]) and path == tmp_path / "s.h5"
    written(f"ckpt={sweep / '0_tiny_gru'}", f"file={tmp_path / 'one.h5'}")
    assert not (tmp_path / "one.h5.json").exists()


@pytest.mark.parametrize("data", ["tiny_traces", "pictures"])
def test_traces_and_images(tmp_path, data, capsys):
    models = {"tiny_traces": ("pca", "mean"), "pictures": ("rln", "mean")}[data]
    base = [word for word in TINY if not word.startswith(("data=", "model", "trusted"))]
    for model in models:
        here(tmp_path / "sweep" / model, base=[*base, TRUSTED, f"data={data}", f"model={model}"])
    (tmp_path / "sweep" / "sweep.csv").touch()
    capsys.readouterr()
    path = written(f"ckpt={tmp_path / 'sweep'}", "ensemble=greedy", f"file={tmp_path / 'p.h5'}")
    said = capsys.readouterr().out
    assert "MSE (lower is better)" in said
    kept = json.loads((tmp_path / "p.h5.json").read_text())[data]["scores"]
    assert kept["ensemble"]["chose"] <= kept["best"]["chose"] <= kept["mean"]["chose"]
    with h5py.File(path) as file:
        assert np.isfinite(file["val/predictions"][()]).all()
    with pytest.raises(ConfigError, match="space=log_rate is for rates of spikes"):
        written(f"ckpt={tmp_path / 'sweep'}", "space=log_rate", f"file={tmp_path / 'q.h5'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ensemble=best"], "ensemble=best: give mean, top, greedy, stack or per_neuron"),
        (["space=log"], "space=log: give rate or log_rate"),
        (["max_members=0"], "max_members=0: give a whole number from 1 on"),
        (["shrinkage=-1"], "shrinkage=-1: give a number from 0 on"),
        (["ensemble_seed=-1"], "ensemble_seed=-1"),
    ],
)
def test_what_cannot_be_is_one_line(sweep, words, message):
    with pytest.raises(ConfigError, match=message):
        written(f"ckpt={sweep}", *words)


def test_where_a_job_stands_in_its_search_is_no_setting_of_a_member(tmp_path):
    for i in range(2):
        (tmp_path / str(i) / "checkpoints").mkdir(parents=True)
        (tmp_path / str(i) / "checkpoints" / "best.ckpt").touch()
        words = ["model=gru", f"model.hidden={i + 4}", f"sweep.trial={i}"]
        (tmp_path / str(i) / "run.json").write_text(json.dumps({"overrides": words}))
    found = _settings([tmp_path / str(i) / "checkpoints" / "best.ckpt" for i in range(2)])
    assert found == {"model.hidden": ["4", "5"]}


@pytest.mark.parametrize("n_parts", [24, 400])
def test_the_standard_error_of_a_gain_is_its_spread(n_parts):
    """Gains of trials drawn again and again: their standard deviation is what each of them says its error is."""
    rng = np.random.default_rng(0)
    halves = Halves.__new__(Halves)
    halves.chooses = np.arange(n_parts) % 2 == 0
    halves._sums = {"weight": np.array([50.0, 0.5 * n_parts])}
    draws = [halves.gain(rng.normal(1, 2, n_parts), rng.normal(1.3, 1, n_parts)) for _ in range(3000)]
    gains, errors = np.array(draws).T
    assert errors.mean() == pytest.approx(gains.std(), rel=0.06)
    assert gains.mean() == pytest.approx(0.3, abs=0.05), "positive where the one is better"
    # the half that chose has no say
    losses, reference = rng.normal(size=(2, n_parts))
    elsewhere = losses + np.where(halves.chooses, 100.0, 0.0)
    assert halves.gain(losses, reference) == halves.gain(elsewhere, reference)


def test_a_gain_over_few_trials_has_no_standard_error():
    halves = Halves.__new__(Halves)
    halves.chooses, halves._sums = np.arange(18) < 9, {"weight": np.ones(2)}
    assert halves.gain(np.zeros(18), np.ones(18)) == (9.0, None)
