"""Reading LFADS-style h5 files: the three styles, the real one, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from neuro_lightning.data.lfads_h5.reader import load_lfads_h5
from neuro_lightning.errors import ConfigError, DataError

REAL = Path(__file__).parents[1] / "../shared/data/lorenz/lfads_lorenz.h5"
RNG = np.random.default_rng(0)


def counts(*shape):
    return RNG.poisson(0.5, shape).astype(np.float32)


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def lfads(**changes):
    base = {"train_data": counts(6, 8, 5), "valid_data": counts(4, 8, 5)}
    return {k: v for k, v in (base | changes).items() if v is not None}


@pytest.mark.skipif(not REAL.is_file(), reason="the public LFADS Lorenz file is not at ../shared/data/lorenz")
def test_real_file():
    recording = load_lfads_h5(REAL)
    train, val = recording.splits["train"], recording.splits["val"]
    assert train.heldin.shape == (640, 100, 45) and val.heldout.shape == (160, 100, 15)
    observed = np.concatenate([train.heldin, train.heldout], axis=2)
    # at 10 ms the rates in Hz explain the counts: the slope of counts on rates is one
    slope = (observed * train.rates).sum() / (train.rates.astype(float) ** 2).sum()
    assert abs(slope - 1) < 0.02
    assert recording.psth.shape == (20, 100, 60) and recording.simulated
    assert len({(c, r // 40) for c, r in zip(train.condition, train.row, strict=True)}) == 20
    assert len(set(train.row) | set(val.row)) == 800


def test_held_out_neurons_are_seeded_and_kept(tmp_path):
    arrays = lfads(train_truth=50 + 5 * counts(6, 8, 5), valid_truth=50 + 5 * counts(4, 8, 5))
    path = write(tmp_path / "a.h5", **arrays)
    one, same = (load_lfads_h5(path, heldout_fraction=0.4, seed=3, n_forward=2) for _ in range(2))
    assert one.info == same.info and len(one.info["heldout_units"]) == 2
    assert one.unit_ids[3:].tolist() == one.info["heldout_units"]
    train = one.splits["train"]
    np.testing.assert_array_equal(train.heldout, arrays["train_data"][:, :6, one.unit_ids[3:]])
    np.testing.assert_array_equal(train.heldin_forward, arrays["train_data"][:, 6:, one.unit_ids[:3]])
    np.testing.assert_allclose(train.rates, arrays["train_truth"][:, :, one.unit_ids] / 100)
    assert train.condition is None and one.psth is None
    assert any(load_lfads_h5(path, heldout_fraction=0.4, seed=s).info != one.info for s in range(4, 9))


@pytest.mark.parametrize(
    ("scale", "factor", "unit"),
    [
        (100, None, "Hz"),
        (1, None, "spikes per bin"),
        (50, 50.0, "divided by conversion_factor"),  # LFADS's chaotic RNN: 1 / (max_rate * dt); lfads-torch
        (0.25, 4.0, "times conversion_factor"),  # its integration to bound: max_rate * dt
        (100, 0.3, "Hz"),
    ],
)
def test_the_unit_of_true_rates_follows_from_the_counts(tmp_path, caplog, scale, factor, unit):
    rates = RNG.gamma(2, 0.4, (10, 8, 5))
    arrays = {"train_data": RNG.poisson(rates[:6]), "valid_data": RNG.poisson(rates[6:])}
    arrays |= {"train_truth": rates[:6] * scale, "valid_truth": rates[6:] * scale}
    extra = {} if factor is None else {"conversion_factor": factor}
    recording = load_lfads_h5(write(tmp_path / "a.h5", **arrays, **extra), heldout_fraction=0)
    np.testing.assert_allclose(recording.splits["train"].rates, rates[:6], rtol=1e-6)
    assert recording.info["truth"] == unit and recording.simulated
    expected = {None: "Hz"}.get(factor, "divided by conversion_factor")
    assert (unit in caplog.text) == (unit != expected)  # what is not the rule is said


def test_true_rates_of_an_unknown_unit_are_not_used(tmp_path, caplog):
    arrays = lfads(train_truth=np.full((6, 8, 5), 7.0), valid_truth=np.full((4, 8, 5), 7.0), dt=0.02)
    recording = load_lfads_h5(write(tmp_path / "a.h5", **arrays))
    assert recording.splits["train"].rates is None and recording.psth is None and recording.simulated
    assert "no known unit" in caplog.text and "its bins are 20 ms wide" in caplog.text


def test_other_names_and_kinds_of_numbers(tmp_path, caplog):
    """Boolean counts, extra datasets and attributes, behavior of one part, the names of older NDT files."""
    data = {k: v > 0 for k, v in lfads().items()}
    path = write(tmp_path / "a.h5", **data, note="text", input_data=np.full(3, -1.0), train_behavior=np.ones((6, 8, 2)))
    with h5py.File(path, "a") as file:
        file.create_group("more")
        file.attrs["author"] = "somebody"
    recording = load_lfads_h5(path, heldout_fraction=0)
    np.testing.assert_array_equal(recording.splits["train"].heldin, data["train_data"])
    assert recording.splits["train"].heldin.dtype == np.uint8
    assert recording.splits["train"].behavior is None and recording.behavior_kind == "none"
    assert "behavior of its train part only" in caplog.text
    arrays = {f"{p}_data_held{g}": counts(n, 8, 2) for p, n in (("train", 6), ("eval", 4)) for g in ("in", "out")}
    val = load_lfads_h5(write(tmp_path / "b.h5", **arrays)).splits["val"]
    np.testing.assert_array_equal(val.heldout, arrays["eval_data_heldout"])


def test_lfads_torch_style(tmp_path):
    full = {"train": counts(6, 10, 5), "valid": counts(4, 10, 5)}
    arrays = {f"{s}_recon_data": v for s, v in full.items()} | {
        f"{s}_encod_data": v[:, :8, :3] for s, v in full.items()
    }
    arrays |= {"train_behavior": RNG.normal(size=(6, 8, 2)), "valid_behavior": RNG.normal(size=(4, 8, 2))}
    recording = load_lfads_h5(write(tmp_path / "a.h5", **arrays), bin_ms=5)
    val = recording.splits["val"]
    np.testing.assert_array_equal(val.heldin, full["valid"][:, :8, :3])
    np.testing.assert_array_equal(val.heldout_forward, full["valid"][:, 8:, 3:])
    np.testing.assert_allclose(val.behavior, arrays["valid_behavior"])
    assert recording.info["heldout_units"] == [3, 4] and recording.behavior_kind == "velocity"


@pytest.mark.parametrize("forward", [False, True])
def test_nlb_style(tmp_path, forward):
    arrays = {}
    for prefix, n in (("train", 6), ("eval", 4)):
        for group, units in (("heldin", 3), ("heldout", 2)):
            arrays[f"{prefix}_spikes_{group}"] = counts(n, 8, units)
            if forward:
                arrays[f"{prefix}_spikes_{group}_forward"] = counts(n, 2, units)
    val = load_lfads_h5(write(tmp_path / "a.h5", **arrays), bin_ms=5).splits["val"]
    np.testing.assert_array_equal(val.heldout, arrays["eval_spikes_heldout"])
    assert (val.heldin_forward is not None) == forward
    if forward:
        np.testing.assert_array_equal(val.heldout_forward, arrays["eval_spikes_heldout_forward"])


BAD = np.where(np.arange(240).reshape(6, 8, 5) == 7, np.nan, 0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "It has none of them"),
        (lfads(train_data=counts(6, 8, 5) * 1.1), "holds 1.1, but spike counts are whole numbers"),
        (lfads(train_data=np.full((6, 8, 5), 1e30)), "spike counts lie between 0 and 1000"),
        (lfads(train_data=np.full((6, 8, 5), np.inf)), "train_data holds NaN or infinite values"),
        (lfads(train_behavior=np.ones((6, 8, 2)), valid_behavior=np.ones((4, 8, 3))), "behavior differs between"),
        (lfads(train_behavior=np.ones((6, 7, 2)), valid_behavior=np.ones((4, 7, 2))), "behavior has 7 bins"),
        (lfads(train_behavior=np.full((6, 8, 2), np.inf), valid_behavior=np.ones((4, 8, 2))), "infinite"),
        (lfads(valid_data=None), "It has train_data"),
        (lfads(valid_data=counts(4, 7, 5)), "L = 8 as in train_data"),
        (lfads(valid_data=counts(4, 8)), "trials x bins x neurons"),
        (lfads(train_data=BAD), "train_data holds NaN or infinite values"),
        (lfads(train_data=-counts(6, 8, 5)), "negative"),
        (lfads(train_truth=counts(5, 8, 5), valid_truth=counts(4, 8, 5)), "does not fit"),
        (lfads(train_truth=BAD, valid_truth=counts(4, 8, 5)), "truth holds NaN"),
        (lfads(train_truth=counts(6, 8, 5), valid_truth=counts(4, 8, 5), conversion_factor=0.0), "conversion_factor"),
        (lfads(train_inds=np.arange(5), valid_inds=np.arange(4)), "train inds has the shape .5,."),
        ({f"{s}_{k}_data": counts(4, 8, 5) for s in ("train", "valid") for k in ("encod", "recon")}, "first part"),
        ({f"{s}_spikes_held{g}": counts(4 + len(g), 8, 2) for s in ("train", "eval") for g in ("in", "out")},
         "A = 6 as in train_spikes_heldin"),
        ({f"{s}_spikes_held{g}": counts(4, 8, 2) for s in ("train", "eval") for g in ("in", "out")}
         | {"train_spikes_heldin_forward": counts(4, 2, 2)}, "forward bins in train_spikes_heldin_forward only"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, arrays, message):
    path = write(tmp_path / "bad.h5", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_lfads_h5(path)
    assert str(path) in str(caught.value)


def test_declared_sizes_are_bounded_by_what_is_stored(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["valid_data"] = counts(4, 8, 5)
        file.create_dataset("train_data", (10**6, 10**3, 10**3), "f4", chunks=(1, 10, 10), compression="gzip")
    with pytest.raises(DataError, match=r"a\.h5: train_data declares float32 .* only 0 bytes are stored"):
        load_lfads_h5(path)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        load_lfads_h5(tmp_path / "none.h5")
    path = write(tmp_path / "a.h5", **lfads())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cut short"):
        load_lfads_h5(path)


@pytest.mark.parametrize("kwargs", [{"n_forward": 8}, {"n_forward": -1}, {"heldout_fraction": 1.0}, {"bin_ms": 0}])
def test_impossible_settings_are_refused(tmp_path, kwargs):
    with pytest.raises(ConfigError, match=next(iter(kwargs))):
        load_lfads_h5(write(tmp_path / "a.h5", **lfads()), **kwargs)


# ---- the same trials in both parts


def continuous(n_bins=400, n_neurons=12, rate=0.3):
    return np.random.default_rng(5).poisson(rate, (n_bins, n_neurons)).astype(np.uint8)


def test_training_trials_that_are_validation_trials_are_left_out(tmp_path):
    trials = continuous().reshape(20, 20, 12)
    path = write(tmp_path / "a.h5", train_data=trials[:15], valid_data=np.concatenate([trials[15:], trials[[3, 8]]]))
    recording = load_lfads_h5(path)
    assert recording.splits["train"].row.tolist() == [k for k in range(15) if k not in (3, 8)]
    assert len(recording.splits["val"]) == 7 and recording.info["overlap"] == {"dropped": 2}
    assert "2 of 15 training trials are left out" in recording.info["warnings"][0]
    assert "(2 are the same in every bin)" in recording.info["warnings"][0]


@pytest.mark.parametrize("seed", range(3))
def test_windows_cut_with_an_overlap_share_no_bin(tmp_path, seed):
    """As by lfads-torch's chopping: windows of 20 bins every 15."""
    session, rng = continuous(), np.random.default_rng(seed)
    starts = rng.permutation(np.arange(0, 380, 15))
    windows = np.stack([session[start : start + 20] for start in starts])
    recording = load_lfads_h5(write(tmp_path / "a.h5", train_data=windows[4:], valid_data=windows[:4]))
    expected = [k for k in range(len(starts) - 4) if (np.abs(starts[4 + k] - starts[:4]) >= 20).all()]
    assert recording.splits["train"].row.tolist() == expected


def test_silent_trials_and_a_few_equal_bins_are_chance(tmp_path):
    trials = continuous(rate=0.02).reshape(20, 20, 12)
    trials[::3] = 0
    trials[1:, 0] = trials[0, 0]
    recording = load_lfads_h5(write(tmp_path / "a.h5", train_data=trials[:15], valid_data=trials[15:]))
    assert len(recording.splits["train"]) == 15 and "warnings" not in recording.info


def test_too_few_trials_apart_are_refused(tmp_path):
    trials = continuous().reshape(20, 20, 12)
    with pytest.raises(DataError, match=r"20 of 20 training trials share bins with validation trials \(20 are equal"):
        load_lfads_h5(write(tmp_path / "a.h5", train_data=trials, valid_data=trials))


def test_overlap_of_forward_bins_in_nlb_files_is_accepted(tmp_path):
    """Its windows of mc_rtt follow each other, so that forward bins are the next trial's begin."""
    session = continuous()
    seen = np.stack([session[k : k + 20] for k in range(0, 380, 20)])
    ahead = np.stack([session[k + 20 : k + 25] for k in range(0, 380, 20)])
    parts = {"train": slice(0, None, 2), "eval": slice(1, None, 2)}
    arrays = {}
    for part, rows in parts.items():
        arrays |= {f"{part}_spikes_heldin": seen[rows, :, :9], f"{part}_spikes_heldout": seen[rows, :, 9:]}
        arrays |= {f"{part}_spikes_heldin_forward": ahead[rows, :, :9]}
        arrays |= {f"{part}_spikes_heldout_forward": ahead[rows, :, 9:]}
    assert len(load_lfads_h5(write(tmp_path / "a.h5", **arrays)).splits["train"]) == 10
    arrays["eval_spikes_heldin"][0], arrays["eval_spikes_heldout"][0] = seen[2, :, :9], seen[2, :, 9:]
    recording = load_lfads_h5(write(tmp_path / "b.h5", **arrays))
    assert recording.splits["train"].row.tolist() == [k for k in range(10) if k != 1]


def test_neurons_sorted_twice_are_warned_of_and_dropped(tmp_path):
    """A copy of a held-in neuron, with a few spikes less, among the held-out ones."""
    arrays = {"train_data": counts(20, 30, 8), "valid_data": counts(6, 30, 8)}
    for values in arrays.values():
        values[:, :, 6] = values[:, :, 1]
        values[:, 3, 6] = 0
    path = write(tmp_path / "a.h5", **arrays)
    told = load_lfads_h5(path)
    assert len(told.unit_ids) == 8
    assert len(told.info["warnings"]) == 1 and "1 pairs of units" in told.info["warnings"][0]
    assert "(1 and 6: " in told.info["warnings"][0] and "data.drop_duplicates=true" in told.info["warnings"][0]
    dropped = load_lfads_h5(path, drop_duplicates=True)
    assert sorted(dropped.unit_ids.tolist()) == [0, 1, 2, 3, 4, 5, 7] and len(dropped.info["heldout_units"]) == 2
    assert dropped.unit_ids[5:].tolist() == dropped.info["heldout_units"]
    assert "1 units are left out (6)" in dropped.info["warnings"][0]
    for split, name in (("train", "train_data"), ("val", "valid_data")):
        both = np.concatenate([dropped.splits[split].heldin, dropped.splits[split].heldout], axis=2)
        np.testing.assert_array_equal(both, arrays[name][:, :, dropped.unit_ids])
    # where the file says who is held out, these stay, whoever has more spikes
    groups = {"heldin": slice(0, 5), "heldout": slice(5, 8)}
    parts = [(p, n, g) for p, n in zip(("train", "eval"), arrays, strict=True) for g in groups]
    fixed = {f"{p}_spikes_{g}": arrays[n][:, :, groups[g]] for p, n, g in parts}
    fixed = load_lfads_h5(write(tmp_path / "b.h5", **fixed), drop_duplicates=True)
    assert fixed.unit_ids.tolist() == [0, 2, 3, 4, 5, 6, 7] and fixed.info["heldout_units"] == [5, 6, 7]
    assert fixed.splits["val"].heldin.shape[2] == 4 and fixed.splits["val"].heldout.shape[2] == 3
    assert "warnings" not in load_lfads_h5(write(tmp_path / "c.h5", **lfads())).info
