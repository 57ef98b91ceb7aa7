import json
import os
import re
import sys

import h5py
import numpy as np
import pytest
import torch

os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling UMAP takes longer than these tests

from neuro_lightning.analysis import latents as report
from neuro_lightning.analysis.embedding import umap_embedding
from neuro_lightning.analysis.latents_file import Latents, read_latents
from neuro_lightning.functional.separability import cluster_agreement, decode_behavior, decode_labels, reduce


def planted(n=40, labels=3, spread=0.3, dimensions=6, seed=0):
    """Points around one center for each label."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(labels), n)
    return 2 * np.eye(dimensions)[label] + spread * rng.normal(size=(n * labels, dimensions)), label


def planes(bins=120, n_latents=8, offset=3.0, seed=0):
    """(3, T, D) latents of planes that share a state but not a mean, and the behavior that follows the state."""
    rng = np.random.default_rng(seed)
    state = np.cumsum(rng.normal(size=(bins, 2)), 0) * 0.3
    values = state @ rng.normal(size=(2, n_latents)) + 0.2 * rng.normal(size=(3, bins, n_latents))
    values += offset * rng.normal(size=(3, 1, n_latents))
    return values, np.tile(state[None, :, :1] + 0.1 * rng.normal(size=(bins, 1)), (3, 1, 1))


def write(path, parts, **attributes):
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset": "tiny", "simulated": True, "bin_ms": 2400, **attributes})
        for split, arrays in parts.items():
            for name, values in arrays.items():
                file[f"{split}/{name}"] = values
    return path


# ---- the maths


@pytest.mark.parametrize("classifier", ["knn", "logistic"])
def test_planted_labels_are_decoded_and_shuffled_ones_are_not(classifier):
    points, labels = planted()
    found = decode_labels(points, labels, classifier=classifier, shuffles=10)
    assert found["accuracy"] > 0.98
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["shuffled"] == pytest.approx(1 / 3, abs=0.08)
    assert (found["n_points"], found["n_folds"]) == (120, 5)
    noise = np.random.default_rng(1).normal(size=points.shape)
    assert decode_labels(noise, labels, classifier=classifier, shuffles=2)["accuracy"] == pytest.approx(1 / 3, abs=0.12)


def test_cross_validation_keeps_neighbours_in_time_together():
    """A slow signal that says nothing of the labels: with random folds its neighbours in time give the label away."""
    rng = np.random.default_rng(0)
    points = np.cumsum(rng.normal(size=(400, 3)), 0)
    labels = np.arange(400) // 20 % 2
    apart = decode_labels(points, labels, np.arange(400) // 20, shuffles=0)["accuracy"]
    mixed = decode_labels(points, labels, shuffles=0)["accuracy"]
    assert mixed > 0.8 and apart < 0.65


def test_labels_that_cannot_be_decoded():
    points, labels = planted(n=1)
    assert np.isnan(decode_labels(points, labels, shuffles=1)["accuracy"])  # no label is left for a second fold
    assert decode_labels(*planted(), np.zeros(120), shuffles=1)["n_folds"] == 1


def test_reduce_fits_components_on_the_first_points_only():
    rng = np.random.default_rng(0)
    for n in (30, 300):  # fewer and more points than features
        train, test = rng.normal(size=(n, 80)) * np.arange(1, 81), rng.normal(size=(7, 80))
        a, b = reduce(train, test)
        assert a.shape == (n, min(50, n - 1)) and b.shape[1] == a.shape[1]
        np.testing.assert_allclose(reduce(train, 9 * test)[0], a)
        scaled = (train - train.mean(0)) / train.std(0)
        variances = np.linalg.svd(scaled)[1][: a.shape[1]] ** 2
        np.testing.assert_allclose((a**2).sum(0), variances)
        np.testing.assert_allclose(reduce(train, train)[1], a)
    assert np.isfinite(reduce(np.ones((5, 2)), np.zeros((1, 2)))[1]).all()


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_clusters_are_the_planted_ones(method):
    found = cluster_agreement(*planted(), method=method)
    assert found["ari"] > 0.99 and found["nmi"] > 0.99 and found["n_clusters"] == 3
    assert abs(found["shuffled_ari"]) < 0.03 < found["nmi"] - found["shuffled_nmi"]
    noise = np.random.default_rng(1).normal(size=(120, 6))
    assert abs(cluster_agreement(noise, planted()[1], method=method)["ari"]) < 0.05


def test_behavior_is_decoded_from_later_time():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(400, 5))
    behavior = np.stack([latents @ np.arange(5) + 0.5 * rng.normal(size=400), rng.normal(size=400), np.ones(400)], 1)
    behavior[50] = np.nan
    found = decode_behavior(latents, behavior, np.arange(400) >= 300)
    assert found["r2"][0] == pytest.approx(1 - 0.25 / 30.25, abs=0.01)  # variances 0 + 1 + 4 + 9 + 16 and 1/4
    assert abs(found["r2"][1]) < 0.1 and np.isnan(found["r2"][2])
    assert abs(found["shifted"][0]) < 0.15
    assert (found["n_train"], found["n_test"]) == (299, 100)
    behavior[:100] += 1000.0  # rows before the test change only what is learnt
    poisoned = np.where(np.arange(400)[:, None] >= 300, behavior, np.nan)
    assert np.isnan(decode_behavior(latents, poisoned, np.arange(400) >= 300)["r2"]).all()


def test_r2_of_behavior_is_about_its_mean_in_the_tested_rows():
    """A behavior that drifts makes a decoder look good that only knows of the drift."""
    rng = np.random.default_rng(0)
    test = np.arange(400) >= 300
    latents = rng.normal(size=(400, 3)) + 5.0 * test[:, None]
    behavior = latents[:, :1] + rng.normal(size=(400, 1))
    design = np.column_stack([latents, np.ones(400)])
    fitted = design @ np.linalg.lstsq(design[~test], behavior[~test], rcond=None)[0]
    left = ((behavior - fitted)[test] ** 2).sum() / ((behavior[test] - behavior[test].mean()) ** 2).sum()
    assert decode_behavior(latents, behavior, test, shifts=0)["r2"][0] == pytest.approx(1 - left, abs=0.05)


def test_supervised_umap_places_unlabelled_points_near_their_label():
    points, labels = planted(n=20)
    test = np.arange(60) % 4 == 0
    options = {"n_neighbors": 12, "n_epochs": 40}
    train, placed = umap_embedding(points[~test], points[test], labels[~test], **options)
    assert train.shape == (45, 2) and placed.shape == (15, 2)
    again, _ = umap_embedding(points[~test], points[test], labels[~test], **options)
    np.testing.assert_array_equal(train, again)
    centers = np.stack([train[labels[~test] == label].mean(0) for label in range(3)])
    nearest = np.linalg.norm(placed[:, None] - centers, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, labels[test])


# ---- files


def test_splits_of_planes_follow_in_time(tmp_path):
    values, behavior = planes()
    parts = {
        "val": {"latents": values[:, 90:], "condition": [4, 5, 6], "behavior": behavior[:, 90:]},
        "train": {"latents": values[:, :90], "condition": [4, 5, 6], "behavior": behavior[:, :90]},
    }
    latents = read_latents(write(tmp_path / "latents.h5", parts))
    np.testing.assert_allclose(latents.values, values)
    assert latents.splits == ("train", "val") and latents.continuous and latents.simulated
    assert not latents.later[:, :90].any() and latents.later[:, 90:].all()
    one = read_latents(tmp_path, ["val"])  # the run's folder
    assert one.values.shape == (3, 30, 8) and one.later[0].tolist() == [False] * 22 + [True] * 8


@pytest.mark.parametrize("stride", [3, 4, 8, 10])
def test_windows_are_joined_to_whole_sequences(tmp_path, stride):
    values, behavior = planes(bins=60)
    starts = np.arange(0, 40 - 8 + 1, stride)
    cuts = [(plane, start) for plane in range(3) for start in starts]
    order = np.random.default_rng(0).permutation(len(cuts))
    train = {
        "latents": np.stack([values[cuts[i][0], cuts[i][1] : cuts[i][1] + 8] for i in order]),
        "behavior": np.stack([behavior[cuts[i][0], cuts[i][1] : cuts[i][1] + 8] for i in order]),
        "condition": np.array([cuts[i][0] for i in order]),
        "row": np.array([cuts[i][1] for i in order]),
    }
    val = {"latents": values[:, 40:], "behavior": behavior[:, 40:], "condition": np.arange(3), "row": np.full(3, 40)}
    latents = read_latents(write(tmp_path / "latents.h5", {"train": train, "val": val}, kind="traces"))
    seen = np.zeros(60, bool)
    for start in starts:
        seen[start : start + 8] = True
    seen[40:] = True
    np.testing.assert_array_equal(latents.values, values[:, seen])
    np.testing.assert_array_equal(latents.behavior, behavior[:, seen])
    assert latents.continuous and (latents.later.sum(1) == 20).all() and latents.condition.tolist() == [0, 1, 2]


def test_splits_of_trials_are_put_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    parts = {
        name: {"latents": rng.normal(size=(n, 6, 2)), "condition": np.arange(n) % 2}
        for name, n in (("train", 8), ("val", 4))
    }
    latents = read_latents(write(tmp_path / "latents.h5", parts))
    assert latents.values.shape == (12, 6, 2) and not latents.continuous
    assert latents.later[:, 0].tolist() == [False] * 8 + [True] * 4
    (points,) = report.as_points(latents).values()  # trials have no view of traces
    by_trial = points.test.reshape(12, 6)
    assert (by_trial == by_trial[:, :1]).all() and by_trial[:, 0].sum() == 3


def trials(n=80, conditions=4, n_bins=6, n_forward=2, seed=0):
    """A split of trials whose latents tell their condition and, in the observed bins, follow the behavior."""
    rng = np.random.default_rng(seed)
    condition = np.arange(n) % conditions
    values = 0.1 * rng.normal(size=(n, n_bins + n_forward, 5)) + 3 * np.eye(5)[condition][:, None]
    behavior = rng.normal(size=(n, n_bins, 1))
    values[:, :n_bins, 4:] = behavior
    return {"latents": values, "condition": condition, "behavior": behavior}


def test_trials_with_forward_bins(tmp_path, capsys):
    """Behavior is known in the observed bins only; conditions are counted, not trials."""
    parts = {"train": trials(), "val": trials(40, seed=1)}
    parts["val"]["condition"][0] = -1
    write(tmp_path / "latents.h5", parts, kind="spikes", bin_ms=5)
    assert report.main([str(tmp_path), "--shuffles", "2", "--no-umap"]) == 0
    assert "train + val: 120 trials x 8 bins x 5 latents, 4 conditions" in " ".join(capsys.readouterr().out.split())
    results = json.loads((tmp_path / "latents.json").read_text())
    assert (results["label"], results["n_labels"], results["shape"]) == ("condition", 4, [120, 8, 5])
    assert results["behavior"]["r2"][0] > 0.99
    assert (results["behavior"]["n_train"], results["behavior"]["n_test"]) == (80 * 6, 40 * 6)
    assert results["bins"]["knn"]["accuracy"] > 0.9 and results["bins"]["knn"]["n_points"] == 119 * 8


def test_trials_that_each_have_their_own_condition_are_no_planes(tmp_path, capsys):
    write(tmp_path / "latents.h5", {"val": trials(4)}, kind="spikes", bin_ms=5)
    latents = read_latents(tmp_path)
    assert not latents.continuous and latents.later[:, 0].tolist() == [False] * 3 + [True]
    assert report.main([str(tmp_path), "--shuffles", "2", "--no-umap"]) == 0
    assert "4 trials x 8 bins x 5 latents, 4 conditions" in " ".join(capsys.readouterr().out.split())


def test_behavior_of_whole_trials():
    """As dmfc_rsg's: one row a trial."""
    part = trials(n_forward=0)
    later = np.repeat(np.arange(80) >= 60, 6).reshape(80, 6)
    behavior = part["latents"].mean(1)[:, :2]
    latents = Latents(part["latents"], part["condition"], behavior, later, ("val",), False, "tiny", 5, True)
    found = report.analyse_behavior(latents, shuffles=2, seed=0)
    assert (found["r2"] > 0.99).all() and (found["n_train"], found["n_test"]) == (60, 20)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, r"predict\.py ckpt=.* output=latents"),
        ({"train": {"rates": np.ones(3)}}, "holds no latents"),
        ({"train": {"latents": np.full((2, 3, 4), np.nan)}}, "finite"),
        (
            {"train": {"latents": np.ones((4, 3, 2))}, "val": {"latents": np.ones((3, 5, 2))}},
            "choose one with --splits",
        ),
    ],
)
def test_unusable_latents_files_are_refused(tmp_path, capsys, parts, message):
    if parts is not None:
        write(tmp_path / "latents.h5", parts)
    assert report.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(message, error)


def test_damaged_latents_file_is_one_clear_error(tmp_path, capsys):
    path = write(tmp_path / "latents.h5", {"val": trials()})
    path.write_bytes(path.read_bytes()[:-3000])
    assert report.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert re.search(r"latents\.h5 cannot be read: damaged.* write it again with predict\.py", error)
    assert error.count("\n") == 1


# ---- the command


def test_the_report(tmp_path, capsys):
    values, behavior = planes(n_latents=24)
    parts = {
        "train": {"latents": values[:, :90], "condition": [0, 1, 2], "behavior": behavior[:, :90]},
        "val": {"latents": values[:, 90:], "condition": [0, 1, 2], "behavior": behavior[:, 90:]},
    }
    write(tmp_path / "latents.h5", parts)
    assert report.main([str(tmp_path), "--shuffles", "3", "--no-umap"]) == 0
    printed = capsys.readouterr().out
    assert "Latents of tiny (simulated data), train + val: 3 planes x 120 bins x 24 latents" in printed
    for row in ("plane: kNN", "plane: logistic regression", "plane: k-means, 3 clusters", "behavior 0: ridge"):
        assert row in printed
    results = json.loads((tmp_path / "latents.json").read_text())
    assert results["simulated"] and results["splits"] == ["train", "val"]
    # planes differ by their mean, which every bin tells
    assert results["bins"]["knn"]["accuracy"] > 0.95 and results["bins"]["kmeans"]["ari"] > 0.95
    assert results["bins"]["knn"]["shuffled"] < 0.5 and results["bins"]["knn"]["n_points"] == 360
    assert results["traces"]["knn"]["n_points"] == 72 and "umap" not in results["traces"]
    assert results["behavior"]["r2"][0] > 0.5 > results["behavior"]["shifted"][0]
    assert (results["behavior"]["n_train"], results["behavior"]["n_test"]) == (90, 30)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"latents_time.png", "latents_separability.png"}


def test_the_report_with_umap(tmp_path, capsys, monkeypatch):
    """The pictures and their scores, with a projection in place of UMAP, which has a test of its own."""
    seen = []

    def project(train, test, labels, **options):
        seen.append((None if labels is None else len(labels), options["n_neighbors"]))
        return train[:, :2], test[:, :2]

    monkeypatch.setattr("neuro_lightning.analysis.latents.umap_embedding", project)
    values, _ = planes(bins=80, offset=20.0)
    write(tmp_path / "latents.h5", {"val": {"latents": values, "condition": [0, 1, 2]}}, simulated=False)
    assert report.main([str(tmp_path / "latents.h5"), "--shuffles", "2", "--out", str(tmp_path / "out")]) == 0
    assert seen == [(18, 60), (None, 60), (180, 45), (None, 45)]  # three quarters of 3 x 8 traces and of 3 x 80 bins
    results = json.loads((tmp_path / "out" / "latents.json").read_text())
    assert results["bins"]["umap"]["supervised"]["n_points"] == 60
    assert results["bins"]["kmeans_umap"]["n_points"] == 240
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"latents_umap_traces.png", "latents_umap_bins.png"} <= names
    assert "recorded data" in " ".join(capsys.readouterr().out.split())


def test_error_without_umap_learn_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    write(tmp_path / "latents.h5", {"val": {"latents": planes(bins=40)[0], "condition": [0, 1, 2]}})
    assert report.main([str(tmp_path), "--shuffles", "1"]) == 1
    assert "neuro_lightning[analysis]" in capsys.readouterr().err
    assert not (tmp_path / "latents.json").exists()


def test_umap_does_not_change_the_number_of_torch_threads():
    """They decide the last bit of a network's sums: a run after a picture must equal one before it."""
    before = torch.get_num_threads()
    umap_embedding(np.random.default_rng(0).normal(size=(30, 4)), np.zeros((0, 4)), n_neighbors=5, n_epochs=2)
    assert torch.get_num_threads() == before
