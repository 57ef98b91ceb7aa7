"""Simulated recordings with known rates, and the twins of the benchmark's files."""

from dataclasses import astuple
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuro_lightning.data.formats.nwb import is_simulated
from neuro_lightning.data.nlb.params import NLB_DATASETS, get_params
from neuro_lightning.data.nlb.reader import load_nlb, load_test_trials
from neuro_lightning.data.nlb.tasks.population import STEP_MS, TICKS_PER_MS, Block, Population
from neuro_lightning.data.nlb.twin import MEAN_RATE_HZ, write_twin
from neuro_lightning.data.synthetic.simulate import Sizes, simulate_chaotic_rnn, simulate_lorenz
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.spike_statistics import spike_statistics

REAL = Path(__file__).parents[1] / "../shared/data/nlb/mc_maze_small/sub-Jenkins_ses-small_desc-test_ecephys.nwb"
SMALL = Sizes(n_train=60, n_val=20, n_test=10, n_conditions=12, n_in=10, n_out=4, n_bins=40, n_forward=5)
FAMILIES = ("mc_maze_small", "mc_rtt", "area2_bump", "dmfc_rsg")


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    return {d: write_twin(d, folder, n_trials=64, n_test_trials=12, n_units=(12, 4)) for d in FAMILIES}


# of mc_maze's public files and of their twins at the same size; what depends on size is that of 100 to 430 trials
BOUNDS = {
    "median_rate_hz": (2.3, 3.6),
    "trial_fano": (1.4, 1.8),
    "mean_correlation": (0.09, 0.14),
    "half_variance": (23, 38),
}
MAZES = {  # the real files: folder, trials, held-in neurons, statistics
    "mc_maze": ("mc_maze_430", 430, 137, (2.45, 1.73, 0.097, 35)),
    "mc_maze_medium": ("mc_maze_medium", 100, 114, (2.94, 1.60, 0.121, 29)),
    "mc_maze_small": ("mc_maze_small", 100, 107, (3.27, 1.45, 0.119, 25)),
}


def arrays_of(path):
    """Every number and text in a file that is not an identifier or a reference."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("specifications") and item.dtype.kind != "O":
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
        found["split"] = file["intervals/trials/split"].asstr()[:]
    return found


@pytest.mark.parametrize("simulate", [simulate_lorenz, simulate_chaotic_rnn])
def test_known_rates(simulate):
    recording, again, other = simulate(SMALL), simulate(SMALL), simulate(SMALL, seed=1)
    train = recording.splits["train"]
    assert train.rates.shape == (60, 45, 14) and train.rates.dtype == np.float32 and recording.simulated
    spikes = np.concatenate([train.heldin, train.heldout], axis=2)
    np.testing.assert_array_equal(spikes[:, :, :10], again.splits["train"].heldin)
    assert (spikes[:, :, :10] != other.splits["train"].heldin).any()
    np.testing.assert_array_equal(train.rates[:, :40], recording.psth[train.condition].astype(np.float32))
    expected = train.rates[:, :40].sum()
    assert abs(spikes.sum() - expected) < 5 * np.sqrt(expected)  # Poisson
    assert abs(np.mean(recording.psth) * 100 / SMALL.mean_rate_hz - 1) < 0.5


@pytest.mark.parametrize("dataset", FAMILIES)
def test_twin_tells_that_it_is_simulated_and_is_complete(twins, dataset):
    params, (train, test) = get_params(dataset), twins[dataset]
    assert is_simulated(train) and is_simulated(test)
    assert str(train).endswith(f"{params.dandiset}/{params.train.path}")
    recording = load_nlb(dataset, train, test, phase="test")
    assert recording.simulated and len(recording.splits["train"]) + len(recording.splits["val"]) == 64
    assert recording.info["window"] == {"start_ms": params.window[0], "align": params.align}
    assert len(recording.splits["test"]) == 12 and recording.splits["test"].heldout is None
    if params.conditions:
        repeats = np.bincount(np.concatenate([s.condition for k, s in recording.splits.items() if k != "test"]) + 1)
        assert repeats[1:].min() >= 3


@pytest.mark.parametrize("dataset", FAMILIES)
def test_layout_of_a_twin(twins, dataset):
    with h5py.File(twins[dataset][0]) as file:
        assert list(file["units"].attrs["colnames"][:3]) == ["heldout", "spike_times", "obs_intervals"]
        assert ("electrodes" in file["units"]) == (dataset != "dmfc_rsg")
        intervals = file["units/obs_intervals"].shape[0] // len(file["units/id"])
        assert intervals == {"mc_maze_small": 64, "mc_rtt": 4, "area2_bump": 4, "dmfc_rsg": 6}[dataset]
        series = dict(file["processing/behavior"]) if "processing/behavior" in file else {}
        assert ("timestamps" in series["hand_vel"]) == (dataset == "mc_maze_small") if "hand_vel" in series else True
        splits = set(file["intervals/trials/split"].asstr()[:])
        assert splits == {"train", "val"} | ({"none"} if dataset == "area2_bump" else set())
        if dataset == "mc_maze_small":
            assert (np.diff(file["processing/behavior/hand_vel/timestamps"][:]) > 0.0015).sum() > 30
        if dataset == "area2_bump":
            assert np.isnan(file["intervals/trials/move_onset_time"][:]).sum() == 32
        if dataset == "dmfc_rsg":
            half_ms = file["intervals/trials/go_time"][:] * 2000
            assert np.abs(half_ms - half_ms.round()).max() < 1e-6 and file["units/id"].dtype == np.int32
            assert (half_ms.round() % 2 == 1).any() and file["intervals/trials/is_outlier"][:].sum() == 3
        ticks = file["units/spike_times"][:] * 30000
        assert np.abs(ticks - ticks.round()).max() < 0.02


@pytest.mark.skipif(not REAL.is_file(), reason="the real mc_maze_small test file is not at ../shared/data/nlb")
def test_test_file_equals_the_real_one_in_layout(twins):
    real, twin = arrays_of(REAL), arrays_of(twins["mc_maze_small"][1])
    assert set(real) == set(twin)
    for name, values in real.items():
        assert (values.ndim, values.shape[1:]) == (twin[name].ndim, twin[name].shape[1:]), name
        if not name.endswith("_index"):
            assert values.dtype.kind == twin[name].dtype.kind and values.dtype.itemsize == twin[name].dtype.itemsize, (
                name
            )
    for column in ("start_time", "stop_time", "move_onset_time"):
        name = f"intervals/trials/{column}"
        np.testing.assert_allclose(real[name][:12], twin[name], rtol=0, atol=1e-12)
    with h5py.File(REAL) as a, h5py.File(twins["mc_maze_small"][1]) as b:
        for group in ("units", "intervals/trials", "general/extracellular_ephys/electrodes"):
            assert list(a[group].attrs["colnames"]) == list(b[group].attrs["colnames"])


def test_twin_is_deterministic_and_written_once(twins, tmp_path):
    kwargs = {"n_trials": 64, "n_test_trials": 12, "n_units": (12, 4)}
    for old, new in zip(twins["mc_rtt"], write_twin("mc_rtt", tmp_path, **kwargs), strict=True):
        one, two = arrays_of(old), arrays_of(new)
        assert all(np.array_equal(one[k], two[k], equal_nan=one[k].dtype.kind == "f") for k in one)
    before = [p.stat().st_mtime_ns for p in write_twin("mc_rtt", tmp_path, **kwargs)]
    assert before == [p.stat().st_mtime_ns for p in write_twin("mc_rtt", tmp_path, **kwargs)]
    other = write_twin("mc_rtt", tmp_path, **kwargs, seed=1)
    assert not np.array_equal(arrays_of(other[0])["units/spike_times"], one["units/spike_times"])
    assert sorted(p.name for p in other[0].parent.iterdir()) == sorted(p.name for p in other)


def test_a_damaged_twin_is_written_anew(tmp_path):
    train, test = write_twin("mc_rtt", tmp_path, n_trials=8, n_units=(3, 2))
    whole = train.stat().st_size
    train.write_bytes(train.read_bytes()[:1000])
    assert not is_simulated(train)
    assert write_twin("mc_rtt", tmp_path, n_trials=8, n_units=(3, 2))[0].stat().st_size == whole
    assert not is_simulated(tmp_path / "nothing.nwb") and is_simulated(test)


@pytest.mark.parametrize("dataset", NLB_DATASETS)
def test_smallest_twin(dataset, tmp_path):
    train, test = write_twin(dataset, tmp_path, n_trials=8, n_test_trials=1, n_units=(1, 1))
    assert len(load_nlb(dataset, train, test, phase="test").splits["test"]) == 1


def test_impossible_sizes_are_refused(tmp_path):
    for kwargs in ({"n_trials": 3}, {"n_units": (0, 3)}, {"n_units": (900, 300)}, {"mean_rate_hz": 0.0}):
        with pytest.raises(ConfigError):
            write_twin("mc_maze", tmp_path, **kwargs)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_twin("mc_rtt", tmp_path / "file", n_trials=8)


# ---- statistics


def check_bounds(statistics):
    for name, (low, high) in BOUNDS.items():
        assert low <= getattr(statistics, name) <= high, f"{name}: {getattr(statistics, name)}"


@pytest.mark.parametrize("dataset", MAZES)
def test_the_real_files_are_within_the_bounds_of_twins(shared_data, dataset):
    folder, n_trials, n_units, expected = MAZES[dataset]
    paths = sorted((shared_data / "nlb" / folder).glob("*.nwb"))
    if not paths:
        pytest.skip(f"the real recording {folder} is not in {shared_data}")
    counts = load_test_trials(dataset, paths[0], bin_ms=20).heldin
    assert counts.shape == (n_trials, 35, n_units)
    statistics = spike_statistics(counts, 20)
    check_bounds(statistics)
    assert np.all(np.abs(np.subtract(astuple(statistics), expected)) <= (0.005, 0.005, 0.0006, 0)), statistics
    rate = counts.mean() * 50
    assert rate == pytest.approx(MEAN_RATE_HZ[dataset], abs=0.06)


# the other two write larger files
@pytest.mark.parametrize(
    ("dataset", "seed"),
    [("mc_maze_small", 0), *(pytest.param(d, s, marks=pytest.mark.rare) for d in list(MAZES)[:2] for s in (0, 1))],
)
def test_a_twin_of_the_true_size_has_the_statistics_of_the_recording(tmp_path, dataset, seed):
    _, n_trials, n_units, _ = MAZES[dataset]
    _, test = write_twin(dataset, tmp_path, seed=seed, n_trials=100, n_test_trials=n_trials)
    counts = load_test_trials(dataset, test, bin_ms=20).heldin
    assert counts.shape == (n_trials, 35, n_units)
    check_bounds(spike_statistics(counts, 20))


def test_statistics_of_counts_that_are_known():
    rng = np.random.default_rng(0)
    gain = rng.gamma(4.0, 0.25, (4000, 1, 1))  # mean 1, variance 1/4
    rates = np.array([0.0, 0.001, 0.02, 0.02, 0.04])  # a bin of 10 ms; two neurons are too slow to be asked
    found = spike_statistics(rng.poisson(gain * rates, (4000, 100, 5)), 10)
    assert found.median_rate_hz == pytest.approx(2, rel=0.05)
    assert found.trial_fano == pytest.approx(1 + 2 / 4, rel=0.05)  # 1 + mean x variance of the gain
    pairs = [a * b / 4 / np.sqrt((a + a * a / 4) * (b + b * b / 4)) for a, b in ((2, 2), (2, 4), (2, 4))]
    assert found.mean_correlation == pytest.approx(np.mean(pairs), abs=0.03)
    assert found.half_variance == 2
    with pytest.raises(ValueError, match="1 neurons above"):
        spike_statistics(np.ones((3, 4, 1)), 10)


def test_neurons_are_not_log_linear_in_the_latents_and_pause_after_a_spike():
    rng = np.random.default_rng(1)
    steps = rng.standard_normal((500, 3))
    block = Block(0, np.repeat(steps, 60, axis=0))  # each state for longer than any lag
    population = Population(rng, [block], 20, 20.0)
    rates = population.rates_hz(block.latents)[30::60]
    assert rates.mean() == pytest.approx(20, rel=0.1)
    design = np.column_stack([np.ones(len(steps)), steps])
    log_rates = np.log(rates)
    residual = log_rates - design @ np.linalg.lstsq(design, log_rates, rcond=None)[0]
    assert np.median(residual.var(0) / log_rates.var(0)) > 0.1
    fast = max(population.spike_ticks(rng, [block]), key=len)
    gaps = np.diff(fast) / TICKS_PER_MS
    assert len(fast) > 4000 and (gaps < 1).mean() < 0.3 * (gaps < STEP_MS).mean() / STEP_MS
