"""Averages of several models: their rates, weights and scores, and the temporary files."""

import shutil
import tempfile

import numpy as np
import pytest
import torch
from ensembles import alone, changed, combined, data_of, equal_rates, members_of
from tiny import Tiny

from neuro_lightning.ensemble import combine as combining
from neuro_lightning.ensemble import member_files
from neuro_lightning.ensemble.combine import EnsembleSettings, combine
from neuro_lightning.ensemble.report import METHODS
from neuro_lightning.errors import CheckpointError, ConfigError, DataError
from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.models.inference import predict_split

CHOOSING = [method for method in METHODS if method != "mean"]


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where members' predictions wait; empty after every test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("method", "space"), [("mean", "log_rate"), ("greedy", "rate"), ("per_neuron", "log_rate")])
def test_single_model_keeps_its_rates(ensemble_sweep, method, space):
    one = members_of(ensemble_sweep)[1]
    rates, ensemble = combined([one], method=method, space=space)
    assert ensemble is None and equal_rates(rates, alone(one))


@pytest.mark.parametrize("method", METHODS)
def test_two_copies_of_a_model_give_its_rates(ensemble_sweep, tmp_path, method):
    one = members_of(ensemble_sweep)[1]
    shutil.copy(one, tmp_path / "twin.ckpt")
    rates, ensemble = combined([one, tmp_path / "twin.ckpt"], method=method)
    single = alone(one)
    assert all(np.array_equal(rates[split].astype(np.float32), single[split]) for split in single)
    assert ensemble.scores["ensemble"] == pytest.approx(ensemble.scores["best"], abs=1e-12)


@pytest.mark.parametrize(
    ("method", "space"),
    [("mean", "log_rate"), ("top", "rate"), ("greedy", "log_rate"), ("stack", "rate"), ("per_neuron", "log_rate")],
)
def test_the_order_of_members_does_not_matter(ensemble_sweep, method, space):
    members = members_of(ensemble_sweep)
    one, ensemble = combined(members, method=method, space=space, shrinkage=1.0)
    other, same = combined(members[::-1], method=method, space=space, shrinkage=1.0)
    assert equal_rates(one, other) and ensemble.members == same.members and ensemble.scores == same.scores


def test_mean_of_rates_and_of_log_rates(ensemble_sweep):
    single = [alone(path) for path in members_of(ensemble_sweep)]
    for space, mean in (("rate", np.mean), ("log_rate", lambda x, axis: np.exp(np.log(x).mean(axis)))):
        rates, ensemble = combined(members_of(ensemble_sweep), space=space)
        for split in rates:
            expected = mean(np.array([member[split] for member in single], np.float64), axis=0)
            np.testing.assert_allclose(rates[split], expected, rtol=1e-10)
        assert ensemble.scores["ensemble"] == ensemble.scores["mean"] and (ensemble.weights == 1 / 3).all()


@pytest.mark.parametrize("method", CHOOSING)
def test_weights_and_scores_follow_their_definitions(ensemble_sweep, method):
    """Weights and scores, by their definitions."""
    rates, ensemble = combined(members_of(ensemble_sweep), method=method, shrinkage=0.1)
    single = [alone(path) for path in members_of(ensemble_sweep)]
    assert ensemble.weights.sum(0) == pytest.approx(1)
    for split in rates:
        weighted = sum(w * member[split].astype(float) for w, member in zip(ensemble.weights, single, strict=True))
        np.testing.assert_allclose(rates[split], weighted, rtol=1e-9)
    batch = data_of().dataset("val", evaluate=True)[list(range(11))]
    best = min(range(3), key=lambda i: -ensemble.member_scores[i, 0])
    everyone = {"ensemble": rates["val"], "mean": sum(m["val"].astype(float) for m in single) / 3,
                "best": single[best]["val"]}  # fmt: skip
    for who, values in everyone.items():
        for half, trials in enumerate((ensemble.selecting, ~ensemble.selecting)):
            parts = (torch.from_numpy(values)[trials, :12, 6:], batch["targets"][trials, :12, 6:],
                     batch["mask"][trials, :12, 6:])  # fmt: skip
            assert ensemble.scores[who][half] == pytest.approx(float(bits_per_spike(*parts)), abs=1e-9)
    assert ensemble.gain["best"][0] == pytest.approx(
        ensemble.scores["ensemble"][1] - ensemble.scores["best"][1], abs=1e-12
    )
    assert ensemble.scores["ensemble"][0] > ensemble.scores["best"][0]


@pytest.mark.parametrize("method", METHODS)
def test_members_are_selected_on_validation_trials_when_only_test_is_predicted(ensemble_sweep, method):
    """As in the challenge's file, which holds test images alone."""
    settings = EnsembleSettings(method, shrinkage=0.1)
    rates, ensemble = combine(members_of(ensemble_sweep), data_of(), ["test"], "cpu", settings, trusted=["tiny"])
    whole, same = combined(members_of(ensemble_sweep), method=method, shrinkage=0.1)
    assert list(rates) == ["test"] and np.array_equal(rates["test"], whole["test"]) and ensemble.scores == same.scores


def test_per_neuron_weights_of_held_in_neurons_are_the_stacked_ones(ensemble_sweep):
    stacked = combined(members_of(ensemble_sweep), method="stack", shrinkage=0.1)[1].weights
    own = combined(members_of(ensemble_sweep), method="per_neuron", shrinkage=0.1)[1].weights
    np.testing.assert_allclose(own[:, :6], np.repeat(stacked[:, None], 6, 1), atol=1e-12)
    assert np.abs(own[:, 6:] - stacked[:, None]).max() > 1e-3
    held = combined(members_of(ensemble_sweep), method="per_neuron", shrinkage=float("inf"))
    assert equal_rates(held[0], combined(members_of(ensemble_sweep), method="stack", shrinkage=float("inf"))[0])


@pytest.mark.parametrize("method", ["top", "per_neuron"])
def test_only_the_selecting_half_changes_the_weights(ensemble_sweep, method):
    """Nor do training trials, nor the half that reports."""
    ensemble = combined(members_of(ensemble_sweep), method=method, shrinkage=0.1)[1]
    others = {f"{split}.{name}": 9.0 for split in ("train", "test") for name in ("heldout", "heldout_forward")}
    same = combined(members_of(ensemble_sweep), data_of(**others), method=method, shrinkage=0.1)[1]
    assert np.array_equal(ensemble.weights, same.weights) and ensemble.scores == same.scores
    data = data_of()
    data.recording.splits["val"].heldout[~ensemble.selecting] = 7.0
    shuffled = combined(members_of(ensemble_sweep), data, method=method, shrinkage=0.1)[1]
    assert (
        np.array_equal(ensemble.weights, shuffled.weights)
        and ensemble.scores["ensemble"] != shuffled.scores["ensemble"]
    )


# ---- one pass, on the disk, and no longer


@pytest.mark.parametrize("method", ["mean", "stack"])
def test_every_network_predicts_every_split_once(ensemble_sweep, monkeypatch, method):
    seen = []

    def counted(model, data, split, device):
        seen.append((id(model), split))
        kept.append(model)  # so that no other gets its id
        return predict_split(model, data, split, device)

    kept = []
    monkeypatch.setattr(combining, "predict_split", counted)
    combined(members_of(ensemble_sweep), method=method)
    assert len(seen) == len(set(seen)) == 9


def test_temporary_files_are_deleted_after_a_failure(ensemble_sweep, monkeypatch, scratch):
    def fails(model, data, split, device):
        if split == "test" and any(scratch.rglob("val-*")):
            raise KeyboardInterrupt
        return predict_split(model, data, split, device)

    monkeypatch.setattr(combining, "predict_split", fails)
    with pytest.raises(KeyboardInterrupt):
        combined(members_of(ensemble_sweep), method="greedy")
    assert not list(scratch.iterdir())


def test_full_disk_is_an_error_before_anything_is_predicted(ensemble_sweep, monkeypatch):
    monkeypatch.setattr(member_files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    monkeypatch.setattr(combining, "predict_split", None)
    with pytest.raises(DataError, match=r"predictions need 0\.0 GB of disk .* 0\.0 GB free: set TMPDIR"):
        combined(members_of(ensemble_sweep), method="top")


@pytest.mark.parametrize("method", ["top", "per_neuron"])
def test_block_size_does_not_change_the_rates(ensemble_sweep, monkeypatch, method):
    whole = combined(members_of(ensemble_sweep), method=method)[0]
    monkeypatch.setattr("neuro_lightning.functional.selection.BLOCK", 50)
    monkeypatch.setattr("neuro_lightning.data.blocks.BLOCK", 100)
    for split, rates in combined(members_of(ensemble_sweep), method=method)[0].items():
        np.testing.assert_allclose(rates, whole[split], rtol=1e-6)


def test_one_validation_trial_is_too_few_to_select_members(ensemble_sweep):
    data = Tiny(n_train=37, n_val=1, poison={})
    with pytest.raises(ConfigError, match=r"tiny has 1 validation trials: too few to choose .* give ensemble=mean"):
        combined(members_of(ensemble_sweep), data, method="greedy")
    assert combined(members_of(ensemble_sweep), data)[1] is None, "a mean needs no ensemble"


def test_diverged_member_is_left_out(ensemble_sweep, tmp_path):
    def diverge(content):
        for name, value in content["state_dict"].items():
            if value.is_floating_point() and name.startswith("net."):
                value.fill_(float("nan"))

    members = members_of(ensemble_sweep)
    bad = changed(members[0], tmp_path / "bad.ckpt", diverge)
    for method in ("mean", "greedy"):
        rates, ensemble = combined([bad, *members], method=method)
        assert equal_rates(rates, combined(members, method=method)[0]) and ensemble.members == members
        assert "bad.ckpt is left out: not all of its weights are numbers" in ensemble.left_out[0]

    def diverge_for_held_in_neuron(content):  # co-bps is of the held-out ones
        content["state_dict"]["net.readout.linear.bias"][0] = float("inf")

    part = changed(members[0], tmp_path / "part.ckpt", diverge_for_held_in_neuron)
    assert "part.ckpt is left out" in combined([part, *members], method="stack")[1].left_out[0]
    with pytest.raises(CheckpointError, match=r"bad.ckpt is left out"):
        combined([bad, changed(bad, tmp_path / "worse.ckpt", lambda content: None)], method="top")
