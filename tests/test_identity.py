"""Which data a model was trained on: what differs is found by name, and trials that trained are known again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import Tiny

from neuro_lightning.data.identity import differences, identify, trained_among, trial_keys
from neuro_lightning.data.recording import Recording, Trials

CONFIG = {"path": "a.nwb", "align": "go", "batch_size": 3, "seed": 0}


def recording(seed: int = 0, rows=(range(8), range(8, 12)), **values) -> Recording:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0, (12, 10, 5)).astype(np.uint8)
    splits = {
        name: Trials(counts[list(part)], row=np.array(part)) for name, part in zip(("train", "val"), rows, strict=True)
    }
    return Recording("tiny", 5, splits, np.arange(5), **values)


def of_file(path, content: bytes = b"spikes", **values) -> Recording:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return recording(sources=[{"path": str(path), "size": len(content)}], **values)


def keys(one, other, **options) -> list[str]:
    return [found.key for found in differences(one, other, **options)]


def test_the_same_data_wherever_they_lie(tmp_path):
    one = identify(of_file(tmp_path / "a" / "x.nwb"), CONFIG)
    assert one["places"]["path"].startswith("/") and one["sources"][0]["sha256"]
    for path in (tmp_path / "b" / "x.nwb", tmp_path / "a" / "renamed.nwb"):
        other = identify(of_file(path), {**CONFIG, "path": str(path), "batch_size": 9, "new_key": 1})
        assert keys(one, other) == []


def test_what_differs_is_named(tmp_path):
    one = identify(of_file(tmp_path / "x.nwb"), CONFIG)
    assert keys(one, identify(of_file(tmp_path / "x.nwb", b"others"), CONFIG)) == ["the file"]
    assert keys(one, identify(of_file(tmp_path / "y.nwb", b"others"), CONFIG)) == ["the file"]
    same = of_file(tmp_path / "x.nwb")
    assert keys(one, identify(same, {**CONFIG, "align": "cue"})) == ["data.align"]
    assert keys(one, identify(replace(same, name="other"), CONFIG)) == ["name"]
    assert keys(one, identify(replace(same, simulated=True), CONFIG)) == ["simulated"]
    moved = of_file(tmp_path / "x.nwb", rows=(range(4, 12), range(4)))
    assert set(keys(one, identify(moved, CONFIG))) == {"the train split", "the val split"}
    assert keys(one, identify(moved, CONFIG), splits=False) == []


def test_a_split_key_counts_by_what_it_does(tmp_path):
    """Of one file the trials are compared; without a file another seed is another recording."""
    other_seed = {**CONFIG, "seed": 1}
    of_one_file = [identify(of_file(tmp_path / "x.nwb"), config) for config in (CONFIG, other_seed)]
    assert keys(*of_one_file, splits=False) == [] and keys(*of_one_file) == ["data.seed"]
    drawn = [identify(recording(seed), {**CONFIG, "seed": seed}) for seed in (0, 1)]
    assert keys(*drawn, splits=False) == ["data.seed"]
    assert keys(identify(recording(0), CONFIG), identify(recording(1), CONFIG)) == ["the train split", "the val split"]


def test_a_simulated_file_that_is_written_anew_is_the_same(tmp_path):
    one = identify(of_file(tmp_path / "x.nwb", simulated=True), CONFIG)
    assert keys(one, identify(of_file(tmp_path / "x.nwb", b"other bytes", simulated=True), CONFIG)) == []
    other = identify(of_file(tmp_path / "x.nwb", b"other bytes", seed=1, simulated=True), CONFIG)
    assert keys(one, other) == ["the file"]


def test_a_reader_that_counts_otherwise_leaves_the_trials_of_a_file_what_they_are(tmp_path):
    one, changed = of_file(tmp_path / "x.nwb"), of_file(tmp_path / "x.nwb")
    changed.splits["val"].heldin[0] += 1
    assert keys(identify(one, CONFIG), identify(changed, CONFIG)) == []


@pytest.mark.parametrize("file", [True, False])
def test_trials_that_trained_are_known_again(tmp_path, file):
    first = of_file(tmp_path / "x.nwb") if file else recording()
    other = replace(first, splits={"train": first.splits["train"], "val": first.splits["train"].take(np.arange(2, 5))})
    whole = {name: identify(each, CONFIG) for name, each in (("first", first), ("other", other))}
    assert trained_among(whole["first"], ["train"], whole["other"], "val").all()
    assert not trained_among(whole["first"], ["train"], whole["first"], "val").any()
    assert trained_among(whole["first"], ["train", "val"], whole["first"], "val").all(), "after a refit"


def test_rows_that_count_anew_in_each_split_say_nothing():
    data = Tiny(n_train=37, n_val=11, poison={})
    identity = identify(data.recording, {})
    assert not trained_among(identity, ["train"], identity, "val").any()


def test_silent_trials_are_not_taken_for_the_same():
    counts = np.zeros((3, 10, 5), np.uint8)
    counts[2] = 1
    found = trial_keys(Trials(counts))
    assert found[:2].tolist() == [0, 0] and found[2] != 0


def test_an_identity_is_kept_as_tensors_and_plain_values(tmp_path):
    identity = identify(of_file(tmp_path / "x.nwb"), CONFIG)
    torch.save(identity, tmp_path / "x.pt")
    again = torch.load(tmp_path / "x.pt", weights_only=True)
    assert keys(identity, again) == [] and again["config"] == CONFIG
