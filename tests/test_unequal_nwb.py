"""NWB files whose trials are taken whole and whose neurons come and go: what is cut, marked and left out."""

import math

import h5py
import numpy as np
import pytest
import torch
from nwb_trials import apply_split, load_nwb_trials
from runs import command_here
from test_nwb_trials import STARTS, brute_force, random_spikes, write

from neuro_lightning.data.describe import describe
from neuro_lightning.data.formats.nwb import open_nwb
from neuro_lightning.data.identity import identify
from neuro_lightning.data.same_data import find_training_trials
from neuro_lightning.errors import ConfigError, DataError

STOPS = STARTS + np.linspace(0.3, 0.06, len(STARTS)).round(3)
GAP = (STARTS[5], STARTS[8] + 0.02)  # of unit 2
ALWAYS = [[0.0, STARTS[-1] + 0.3]]


def intervals(*, never=None):
    found = [ALWAYS] * 8
    found[2] = [[0.0, GAP[0]], [GAP[1], ALWAYS[0][1]]]
    if never is not None:
        found[never] = [[STARTS[-1] + 0.2, STARTS[-1] + 0.25]]
    return found


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    columns = {"cue": STARTS + 0.013}
    time = np.arange(0, ALWAYS[0][1], 0.001)
    return write(
        tmp_path_factory.mktemp("unequal") / "unequal.nwb", random_spikes(), STARTS, stops=STOPS, columns=columns,
        intervals=intervals(), series=(np.stack([np.sin(9 * time), time], 1), 1000.0),
    )  # fmt: skip


WHOLE = {"window_ms": "trial", "partial_units": True, "bin_ms": 10}


@pytest.mark.parametrize("align", ["start_time", "cue"])
def test_each_trial_is_taken_whole(unequal, align):
    found, nwb = load_nwb_trials(unequal, align=align, behavior="hand_vel", **WHOLE), open_nwb(unequal)
    spikes = dict(zip(nwb.unit_ids.tolist(), nwb.spike_times, strict=True))
    offset = round(1000 * (nwb.trials[align] - STARTS)[0])
    assert sum(len(part) for part in found.splits.values()) == len(STARTS)
    for part in found.splits.values():
        assert part.heldin.shape[1] == found.info["cut"]["window_ms"][1] // 10 == (300 - offset) // 10
        both = np.concatenate([part.heldin, part.heldout], 2)
        for k, row in enumerate(part.row):
            first = -(-round(1000 * STARTS[row] + offset) // 10)
            n_bins = math.floor(round(1000 * STOPS[row], 6) / 10) - first
            for n, unit in enumerate(found.unit_ids.tolist()):
                expected = brute_force(spikes[unit], first * 10, n_bins, 10)
                edges = (first + np.arange(n_bins + 1)) / 100
                seen = np.ones(n_bins, bool)
                if unit == 2:
                    seen = (edges[1:] <= GAP[0] + 1e-9) | (edges[:-1] >= GAP[1] - 1e-9)
                np.testing.assert_array_equal(part.observed[k, :n_bins, n], seen)
                np.testing.assert_array_equal(both[k, :n_bins, n], expected * seen)
                assert not part.observed[k, n_bins:, n].any() and not both[k, n_bins:, n].any()
            assert np.isnan(part.behavior[k, n_bins:]).all() and np.isfinite(part.behavior[k, :n_bins]).all()


def test_without_partial_units_trials_in_a_gap_are_left_out(unequal):
    found = load_nwb_trials(unequal, **{**WHOLE, "partial_units": False})
    rows = np.concatenate([part.row for part in found.splits.values()])
    assert set(range(20)) - set(rows.tolist()) == {5, 6, 7, 8}
    assert "4 of 20 trials are left out" in " ".join(found.info["warnings"])
    fixed = load_nwb_trials(unequal, window_ms=(0, 60), bin_ms=10)
    assert all(part.observed is None for part in fixed.splits.values())
    kept = load_nwb_trials(unequal, window_ms=(0, 60), bin_ms=10, forward_ms=20, partial_units=True)
    assert sum(len(part) for part in kept.splits.values()) == 20 and describe(kept).partial
    forward = np.concatenate([np.concatenate([p.heldin_forward, p.heldout_forward], 2) for p in kept.splits.values()])
    assert np.isnan(forward).sum() == 2 * 3, "the forward bins of unit 2 in trials 5 to 7"


def test_a_unit_that_no_training_trial_has_is_left_out(tmp_path):
    path = write(tmp_path / "never.nwb", random_spikes(), STARTS, stops=STOPS, intervals=intervals(never=4))
    found = load_nwb_trials(path, split="chronological", **WHOLE)
    assert found.unit_ids.tolist() and 4 not in found.unit_ids
    assert "the units 4 were recorded in no training trial" in " ".join(found.info["warnings"])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"forward_ms": 50}, ConfigError, "data.forward_ms=50: data.window_ms=trial ends with the trial"),
        ({"window_ms": "all"}, ConfigError, r"data.window_ms=all: give \[START,STOP\] in ms, or trial"),
        ({"trials": "continuous"}, ConfigError, "data.trials=continuous has none"),
        ({"bin_ms": 1000}, DataError, "no trial has a bin of 1000 ms"),
    ],
)
def test_bad_windows_are_refused_in_one_line(unequal, options, error, said):
    with pytest.raises(error, match=said) as caught:
        load_nwb_trials(unequal, **{**WHOLE, **options})
    assert "\n" not in str(caught.value)


def test_a_trial_that_is_far_longer_is_named(tmp_path):
    starts, stops = np.append(STARTS[:10], 5.0), np.append(STARTS[:10] + 0.1, 7.0)
    path = write(tmp_path / "long.nwb", random_spikes(end=7.0), starts, stops=stops)
    (line,) = load_nwb_trials(path, window_ms="trial", bin_ms=10).info["warnings"]
    assert "trial 10 lasts 2000 ms, 20 times the median" in line


def test_another_file_is_cut_the_same_way(tmp_path, unequal):
    """A trial that is longer than the longest in training ends with that one's length."""
    info = load_nwb_trials(unequal, **WHOLE).info
    stops = STOPS + np.where(np.arange(20) == 3, 0.09, 0)
    path = write(tmp_path / "unequal.nwb", random_spikes(), STARTS, stops=stops, intervals=intervals())
    found = apply_split(path, info)
    assert found.splits["test"].heldin.shape[1] == 30 and found.splits["test"].observed[3, :, 0].all()
    assert "1 of 20 trials are longer" in " ".join(found.info["warnings"])


def test_trials_side_by_side_do_not_overlap(tmp_path):
    """Each trial begins where the one before it ends; the next one is no training trial because others are longer."""
    starts = np.array([0.0, 0.1, 0.5, 0.6, 0.7, 1.1, 1.2, 1.6, 1.7, 1.8])
    path = write(tmp_path / "side.nwb", random_spikes(), starts, stops=np.append(starts[1:], 1.9))
    found = load_nwb_trials(path, window_ms="trial", bin_ms=10)
    assert found.info["overlap"] == {"duplicates": 0, "overlapping": 0, "dropped": 0}
    identity = identify(found, {})
    assert not find_training_trials(identity, ["train"], identity, "val").any()
    assert find_training_trials(identity, ["train"], identity, "train").all()
    shorter = identify(load_nwb_trials(path, window_ms="trial", bin_ms=10, val_fraction=0.5), {})
    every = [torch.cat([p["keys"] for p in one["trials"].values()]).sort().values for one in (identity, shorter)]
    assert torch.equal(*every) and (every[0] != 0).any()


def test_train_and_predict(unequal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = command_here(
        tmp_path, "model=gru", "data=nwb", f"data.path={unequal}", "data.window_ms=trial", "data.partial_units=true",
        "data.behavior=hand_vel", "trainer.max_epochs=2", "hydra.run.dir=run", "paths.cache=cache", "data.bin_ms=10",
    )  # fmt: skip
    assert said.returncode == 0, said
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} >= {"rates", "neurons", "latents"}, said
    said = command_here(tmp_path, "ckpt=run", "file=rates.h5", program="predict")
    assert said.returncode == 0, said
    recording = load_nwb_trials(unequal, behavior="hand_vel", **WHOLE)
    with h5py.File(tmp_path / "rates.h5") as file:
        for split, part in recording.splits.items():
            ended = ~np.logical_or.accumulate(part.observed.any(2)[:, ::-1], axis=1)[:, ::-1]
            np.testing.assert_array_equal(np.isnan(file[split]["predictions"][:]).any(2), ended)
