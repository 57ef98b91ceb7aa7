"""Damaged files: the same data, other plausible data, or one line that names the file; nothing else."""

import json
from functools import partial

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from brainset_files import parts
from brainset_files import write as write_brainset
from test_cache import assert_same, make_recording

from neuro_lightning.artifacts.metrics_csv import read_metrics
from neuro_lightning.artifacts.records import read_record
from neuro_lightning.artifacts.sweep_jobs import collect
from neuro_lightning.artifacts.tensors import read_tensors
from neuro_lightning.data.antolik.files import load_region, load_repeats
from neuro_lightning.data.cache import cached
from neuro_lightning.data.formats.brainset import open_brainset
from neuro_lightning.data.formats.mat import read_mat
from neuro_lightning.data.lfads_h5.reader import load_lfads_h5
from neuro_lightning.data.spike_trials.trials import load_trials
from neuro_lightning.data.stringer.files import read_spontaneous
from neuro_lightning.data.stringer_stimuli.orientations import load_orientations
from neuro_lightning.data.uwndc19 import reader as uwndc19
from neuro_lightning.errors import CheckpointError, ConfigError, DataError, NeuroError
from neuro_lightning.loggers.metrics_csv import MetricsCSV
from neuro_lightning.submission.kaggle import check_kaggle, write_kaggle
from neuro_lightning.submission.score import score
from neuro_lightning.submission.write import write_submission
from neuro_lightning.sweeps.population_sweeper import State, read_state, write_state
from neuro_lightning.sweeps.results.best import register_experiment_files
from neuro_lightning.sweeps.search.space import read_space

RNG = np.random.default_rng(0)
TRIES = 40


def damaged(content: bytes, seed: int) -> bytes:
    """A file with flipped, overwritten, inserted, removed or missing bytes."""
    rng = np.random.default_rng(seed)
    at, size, kind = int(rng.integers(len(content))), int(rng.integers(1, 17)), seed % 6
    if kind == 0:  # headers are short: half of the flips hit them
        at = int(rng.integers(min(len(content), 512))) if rng.random() < 0.5 else at
        return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + rng.bytes(size) + content[at + size :]
    if kind == 2:
        return content[:at] + bytes(8) + content[at:]
    if kind == 3:
        return content[:at] + content[at + 8 :]
    return content[:at] if kind == 4 else content + rng.bytes(size)


def plausible(values) -> None:
    """Finite numbers of a size that can be."""
    values = np.asarray(values)
    assert np.isfinite(values).all() and (np.abs(values) <= 1e9).all()


def lfads(folder):
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        for name, n in (("train", 6), ("valid", 4)):
            file.create_dataset(f"{name}_data", data=RNG.poisson(0.5, (n, 8, 5)), compression="gzip")
            file[f"{name}_truth"] = np.full((n, 8, 5), 50.0)
            file[f"{name}_behavior"] = RNG.normal(size=(n, 8, 2))

    def read():
        for trials in load_lfads_h5(path).splits.values():
            for values in (trials.heldin, trials.heldout, trials.rates, trials.behavior):
                plausible([] if values is None else values)
            assert not (trials.heldin % 1).any() and (trials.heldin >= 0).all()

    return path, read


def brainset(folder):
    path = write_brainset(folder / "a.h5", parts())
    options = {"trials": None, "window_ms": (0, 400), "behavior": ["wheel.vel", "cursor.pos"], "conditions": ["choice"]}

    def read():
        for trials in load_trials(partial(open_brainset, path), name="a", bin_ms=20, **options).splits.values():
            for values in (trials.heldin, trials.heldout):
                plausible(values)

    return path, read


def antolik(folder):
    raw = RNG.gamma(1, 1, (3, 5, 4))
    np.save(folder / "raw_validation_set.npy", raw)
    np.save(folder / "validation_set.npy", raw.mean(0))

    def read():
        found = load_repeats(folder)
        assert found.shape == (5, 3, 4)
        plausible(found)

    return folder / "raw_validation_set.npy", read


def antolik_images(folder):
    antolik(folder)
    np.save(folder / "training_set.npy", RNG.gamma(1, 1, (6, 4)))
    for part, n in (("training", 6), ("validation", 5)):
        np.save(folder / f"{part}_inputs.npy", RNG.integers(0, 256, (n, 961)) * 1e-6)

    def read():
        region = load_region(folder)
        assert region.train.images.shape == (6, 961) and region.train.repeats.shape == (6, 1, 4)
        assert region.train.images.min() >= 0 and region.train.images.max() <= 256e-6

    return folder / "training_inputs.npy", read


def uwndc19_images(folder):
    path = folder / "stim.npy"
    np.save(path, RNG.random((6, 8, 8, 3), np.float32))

    def read():
        with pytest.MonkeyPatch.context() as patch:  # the published file has 46 MB
            patch.setattr(uwndc19, "N_IMAGES", 6)
            patch.setattr(uwndc19, "SIZE", 8)
            images = uwndc19.read_images(path, 4)
        assert images.shape == (6, 3, 4, 4) and images.min() >= 0 and images.max() <= 1

    return path, read


def uwndc19_responses(folder):
    path, ids = folder / "train.csv", range(50, 70)
    rows = [["Id", *(f"n{i}" for i in range(18))], *([i, *RNG.random(18)] for i in ids)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))

    def read():
        columns, values = uwndc19.read_responses(path, ids)
        assert len(columns) == 18 and values.shape == (20, 18)
        plausible(values[np.isfinite(values)])
        assert not np.isinf(values).any()

    return path, read


def kaggle(folder):
    columns = [f"n{i}" for i in range(18)]
    path = write_kaggle(folder / "sub.csv", RNG.random((50, 18)), columns)
    return path, lambda: check_kaggle(path, columns)


def orientations(folder):
    path, n, t = folder / "a.npy", 6, 40
    arrays = {"sresp": RNG.gamma(2, 3, (n, t)), "istim": RNG.uniform(0, 6, t), "mean_spont": np.ones(n)}
    np.save(path, arrays | {"std_spont": np.ones(n)}, allow_pickle=True)

    def read():
        for split in load_orientations(path, size=(4, 4), cycles_per_degree=0.01).splits.values():
            assert np.isfinite(split.responses).all() and np.isfinite(split.images).all()

    return path, read


def spontaneous(folder):
    path = folder / "a.npy"
    arrays = {"sresp": RNG.gamma(2, 3, (6, 40)), "xyz": RNG.uniform(size=(3, 6)), "run": np.ones((40, 1))}
    np.save(path, arrays, allow_pickle=True)

    def read():
        file = read_spontaneous(path)
        plausible(file.activity)
        plausible(file.xyz)

    return path, read


def suite2p(folder):
    np.save(folder / "spks.npy", RNG.gamma(2, 3, (6, 40)).astype(np.float32))
    stat = np.array([{"med": [1.0, 2.0]} for _ in range(6)], object)
    np.save(folder / "stat.npy", stat, allow_pickle=True)
    return folder / "stat.npy", lambda: plausible(read_spontaneous(folder / "spks.npy", bin_ms=33).xyz)


def targets(folder):
    path, rates = folder / "targets.h5", {}
    with h5py.File(path, "w") as file:
        group = file.create_group("mc_rtt")
        group["eval_spikes_heldout"] = RNG.poisson(0.5, (6, 10, 2)).astype(float)
        for part in ("train", "eval"):
            group[f"{part}_behavior"] = RNG.normal(size=(6, 10, 2))
        group["psth"] = RNG.random((2, 10, 5))
        index = np.empty(2, object)
        index[:] = [np.arange(3), np.arange(3, 5)]
        group.create_dataset("eval_cond_idx", data=index, dtype=h5py.vlen_dtype(np.int64))
    for name, n in (("heldin", 3), ("heldout", 2)):
        rates |= {f"{part}_rates_{name}": np.full((6, 10, n), 0.5, np.float32) for part in ("train", "eval")}
    write_submission(folder / "sub.h5", "mc_rtt", 5, rates)

    def read():
        (scores,) = score(path, folder / "sub.h5")
        assert set(scores["mc_rtt_split"]) <= {"co-bps", "vel R2", "psth R2"}

    return path, read


def submission(folder):
    _, read = targets(folder)
    return folder / "sub.h5", read


def record(folder):
    path = folder / "0_a" / "run.json"
    path.parent.mkdir()
    values = {"status": "finished", "objective": {"name": "val/co_bps", "value": 0.5, "mode": "max"}}
    path.write_text(json.dumps(values | {"overrides": ["seed=1"], "data": {"name": "a"}, "metrics": {}, "wall_s": 2.5}))

    def read():
        (job,) = collect(folder)  # a damaged record is a failed job, and no more
        assert isinstance(job["overrides"], dict)
        read_record(path)

    return path, read


def metrics(folder):
    log = MetricsCSV(folder)
    for step in range(5):
        log.log_metrics({"val/loss": 1.5 / (step + 1)}, step)

    def read():
        assert all(values.dtype == float for values in read_metrics(log.path).values())
        MetricsCSV(folder, resumed_step=3)

    return log.path, read


def population(folder):
    path, space, identity = folder / "population.json", read_space({}, ["lr=interval(0.0,1.0)"]), {"rules": "a"}
    write_state(path, identity, State([{"lr": 0.25}, {"lr": 0.5}], [1, None], [0.5]))
    return path, lambda: read_state(path, identity, space, 2)


def checkpoint(folder):
    path, weights = folder / "a.ckpt", torch.arange(64.0)
    torch.save({"state_dict": {"net.w": weights}, "epoch": 3}, path)

    def read():
        content = read_tensors(path)
        assert torch.equal(content["state_dict"]["net.w"], weights), "a checksum tells of every flipped bit"

    return path, read


def experiment(folder):
    path = folder / "a.yaml"
    path.write_text("# @package _global_\ndefaults:\n  - override /model: gru\nmodel: {hidden: 8}\nseed: 1\n")
    return path, lambda: register_experiment_files([f"experiment={path}"])


READERS = [
    lfads, brainset, antolik, antolik_images, uwndc19_images, uwndc19_responses, kaggle, orientations, spontaneous,
    suite2p, targets, submission, record, metrics, population, checkpoint, experiment,
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_one_line_or_plausible(tmp_path, reader):
    path, read = reader(tmp_path)
    whole = path.read_bytes()
    read()
    refused = 0
    for seed in range(10 if reader is targets else TRIES):  # which reads lists in a process of its own
        path.write_bytes(damaged(whole, seed))
        try:
            read()
        except NeuroError as error:  # anything else fails the test
            refused += 1
            text = str(error)
            assert "\n" not in text and (path.name in text or str(tmp_path) in text), (seed, text)
    assert refused or reader in (metrics, population)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_cache_is_built_anew(tmp_path):
    source, built = tmp_path / "a.nwb", []
    source.write_bytes(b"recorded")

    def read():
        return cached(tmp_path / "cache", {}, [source], lambda: built.append(1) or make_recording())

    whole = read()
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    for seed in range(20):
        path.write_bytes(damaged(content, seed))
        assert_same(whole, read())
    assert len(built) > 5


def test_damaged_matlab_files_do_not_crash_the_process(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": RNG.normal(size=(3, 4)), "s": {"a": np.ones(3), "b": "text"}})
    whole = path.read_bytes()
    for seed in range(5):
        path.write_bytes(damaged(whole, seed))
        try:
            read_mat(path, ["x", "s"])
        except DataError as error:
            assert path.name in str(error) and "\n" not in str(error)


def test_a_sparse_matrix_with_indices_out_of_range_is_refused(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": scipy.sparse.csc_array(([1.0], ([2], [1])), shape=(3, 2))}, do_compression=False)
    content = path.read_bytes()
    row = content.index(np.int32([5, 4, 2]).tobytes()) if np.int32([5, 4, 2]).tobytes() in content else -1
    row = content.rindex(np.int32(2).tobytes(), 0, len(content) - 24) if row < 0 else row + 8
    np.testing.assert_array_equal(read_mat(path, ["x"])["x"], [[0, 0], [0, 0], [0, 1]])
    path.write_bytes(content[:row] + np.int32(10**8).tobytes() + content[row + 4 :])
    with pytest.raises(DataError, match=r"a\.mat cannot be read"):
        read_mat(path, ["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: gru\n", r"a\.yaml: model must map keys to values, but is 'gru'.*override /model: gru"),
        ("seed: 1\nseed: 2\n", r"a\.yaml cannot be read as a config: .*duplicate key seed"),
    ],
)
def test_experiments_that_cannot_be(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        register_experiment_files([f"experiment={tmp_path / 'a.yaml'}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[], {"objective": 3}, {"objective": {"value": "x"}}, {"overrides": [1]}])
def test_records_of_the_wrong_kind_are_failed_jobs(tmp_path, values):
    (tmp_path / "0_a").mkdir()
    (tmp_path / "0_a" / "run.json").write_text(json.dumps(values))
    assert [job["status"] for job in collect(tmp_path)] == ["failed"]


def test_a_byte_that_is_not_utf8_loses_one_row(tmp_path):
    path, read = metrics(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.75", b"\xff.75"))
    values = read_metrics(path)["val/loss"]
    assert np.isnan(values[1]) and values[0] == 1.5
    read()


def test_a_flipped_weight_is_refused(tmp_path):
    path, _ = checkpoint(tmp_path)
    content = path.read_bytes()
    at = content.index(torch.arange(64.0).numpy().tobytes()) + 22
    path.write_bytes(content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :])
    with pytest.raises(CheckpointError, match=r"a\.ckpt .*checksum of .* differs"):
        read_tensors(path)
