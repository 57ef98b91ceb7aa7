"""IBL BrainWideBench with a history before each window: what a model sees of it, what is scored, shared passes."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT

from neuro_lightning.contracts import call_network, evaluation_mode
from neuro_lightning.data.bwb.reader import load_session, open_session
from neuro_lightning.data.bwb.twin import write_twin
from neuro_lightning.data.bwb.windows import bin_spikes, window_starts
from neuro_lightning.data.describe import describe, make_dataset
from neuro_lightning.data.identity import identify
from neuro_lightning.data.same_data import find_training_trials
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.config import instantiate
from neuro_lightning.submission import bwb as submission

td = pytest.importorskip("temporaldata")
HISTORY_MS, HISTORY = 4000, 200  # longer than the 2 s between the chunks of a twin


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    sizes = {"n_units": 20, "chunk_s": 14.0, "n_chunks": 5, "mean_rate_hz": 12.0}
    return write_twin(tmp_path_factory.mktemp("bwb"), seed=3, **sizes)[0]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_history_is_what_temporaldata_reads_before_the_window_and_shows_no_other_split(file, split):
    with h5py.File(file) as opened:
        data = td.Data.from_hdf5(opened, lazy=False)
    recording = load_session(file, history_ms=HISTORY_MS)
    trials = recording.splits[split]
    times = dict(zip(*recording.info["times"], strict=True))
    closed = np.concatenate(
        [
            np.stack([domain.start, domain.end], 1)
            for domain in (getattr(data, f"ts2_{other}_domain") for other in ("train", "val", "test") if other != split)
        ]
    )
    n_hidden = 0
    for k in range(len(trials)):
        start = times[int(trials.row[k])] - data.absolute_start
        first = start - HISTORY_MS / 1000
        expected = np.zeros((HISTORY + 50, 20), int)
        inside = (data.spikes.timestamps >= first - 1e-7) & (data.spikes.timestamps < start + 1.0 - 1e-7)
        bins = np.floor(np.round((data.spikes.timestamps[inside] - first) / 0.02, 6)).astype(int)
        np.add.at(expected, (bins, data.spikes.unit_index[inside]), 1)
        low = first + np.arange(HISTORY + 50) * 0.02
        seen = (low > -1e-6) & ~(
            (low[:, None] + 0.02 > closed[:, 0] + 1e-6) & (low[:, None] < closed[:, 1] - 1e-6)
        ).any(1)
        known = np.ones(HISTORY + 50, bool) if trials.observed is None else trials.observed[k].all(1)
        assert np.array_equal(known, seen) and known[HISTORY:].all()
        assert np.array_equal(trials.heldin[k][known], expected[known])
        n_hidden += int((~known).sum())
    assert n_hidden > 0, "the history of some windows reaches into another split"


def test_the_history_of_withheld_units_is_hidden_and_only_the_window_is_scored(file):
    recording = load_session(file, history_ms=HISTORY_MS)
    spec = describe(recording)
    assert (spec.n_bins, spec.n_forward) == (HISTORY + 50, 0)
    hidden = open_session(file).withheld["val"]
    batch = make_dataset(recording.splits["val"], spec, evaluate=True)[[0, 3]]
    assert (batch["inputs"][..., hidden] == 0).all() and not batch["observed"][..., hidden].any()
    assert batch["mask"][:, HISTORY:, hidden].all() and int(batch["mask"].sum()) == 2 * 50 * hidden.sum()
    train = make_dataset(recording.splits["train"], spec, evaluate=False)[[0, 3]]
    assert torch.equal(train["mask"], train["observed"]), "training predicts the history, too"
    ahead = load_session(file, task="forecasting", history_ms=HISTORY_MS)
    spec = describe(ahead)
    assert (spec.n_bins, spec.n_forward) == (HISTORY + 45, 5)
    batch = make_dataset(ahead.splits["val"], spec, evaluate=True)[[0]]
    assert batch["mask"][:, -5:].all() and not batch["mask"][:, :-5].any()


@pytest.mark.parametrize("task", ["co_smoothing", "forecasting"])
def test_spikes_of_other_splits_reach_no_input_through_the_history(file, tmp_path, task):
    bench = open_session(file)
    plain = load_session(file, task=task, history_ms=HISTORY_MS)
    spec = describe(plain)
    for split in ("train", "val", "test"):
        copy = Path(shutil.copy(file, tmp_path / file.name))
        with h5py.File(copy, "r+") as opened:
            times, index = opened["spikes/timestamps"][:], opened["spikes/unit_index"][:]
            outside = np.zeros(len(times), bool)
            for other in {"train", "val", "test"} - {split}:
                for start, end in bench.domains[other]:
                    outside |= (times >= start) & (times < end)
            extra = np.flatnonzero(outside).repeat(2)
            order = np.argsort(np.concatenate([times, times[extra]]), kind="stable")
            for name, values in (("timestamps", times), ("unit_index", index)):
                del opened[f"spikes/{name}"]
                opened[f"spikes/{name}"] = np.concatenate([values, values[extra]])[order]
        other = load_session(copy, task=task, history_ms=HISTORY_MS)
        rows = list(range(len(plain.splits[split])))
        one, two = (make_dataset(r.splits[split], spec, evaluate=split != "train")[rows] for r in (plain, other))
        for name in ("inputs", "mask", "observed"):
            assert torch.equal(one[name], two[name]), name
        assert torch.equal(one["targets"][one["mask"]], two["targets"][two["mask"]])


def network(spec, *words):
    """A network of these data with random weights, in evaluation mode."""
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", ["data=bwb", *words])
    torch.manual_seed(0)
    return instantiate(cfg.model, trusted=(), spec=spec).net.eval()


CAUSAL = ("model=gru", "model.bidirectional=false", "model.hidden=8")


@pytest.mark.parametrize(
    ("words", "task", "shared"),
    [
        (CAUSAL, "co_smoothing", 101),
        (("model=ndt", "model.width=8", "model.layers=1", "model.attention.context_forward_ms=0"), "co_smoothing", 101),
        (("model=gru", "model.hidden=8"), "co_smoothing", 1),
        ((*CAUSAL, "model.fixed_lag_ms=40"), "co_smoothing", 1),
        (CAUSAL, "forecasting", 1),
    ],
)
def test_windows_in_one_pass_are_what_the_network_says_of_each_with_its_history(file, tmp_path, words, task, shared):
    pytest.importorskip("ibl_bwb_eval")
    from safetensors.torch import load_file

    bench = open_session(file)
    spec = describe(load_session(file, task=task, history_ms=HISTORY_MS))
    net = network(spec, *words)
    assert submission.windows_of_a_pass([net], task, spec) == shared
    lengths = []
    net.register_forward_hook(lambda module, args, output: lengths.append(len(args[0])))
    written = submission.write_session([net], bench, task, spec, tmp_path, label="x", seed=43, batch_size=300)
    n_passes, lengths[:] = sum(lengths), []
    stored = load_file(str(written.path))
    starts = [window_starts(a, b, 0.02, 1.0) for a, b in bench.intervals["test"]]
    assert stored["window_timestamps"].tolist() == pytest.approx(np.concatenate(starts).tolist(), abs=1e-9)
    runs = sum(-(-len(found) // shared) for found in starts)
    assert runs <= n_passes <= runs + len(starts), "a last window off the grid of bins has a pass of its own"
    hidden = torch.from_numpy(bench.withheld["test"])
    seen = []
    for some in submission.test_batches(bench, task, spec, 300, shared):
        for k in range(0, len(some.starts), 29):
            row, first = int(some.passes[k]), int(some.first[k])
            counts = torch.from_numpy(bin_spikes(bench.source.spike_times, some.starts[k], 50))
            held_in = 45 if task == "forecasting" else 50
            assert torch.equal(some.batch["targets"][row, first : first + 50], counts), "the window of that time"
            seen_counts = counts.masked_fill(hidden, 0) if task == "co_smoothing" else counts
            assert torch.equal(some.batch["inputs"][row, first : first + held_in], seen_counts[:held_in])
            batch = {name: values[[row]] for name, values in some.batch.items()}
            end = first + (45 if task == "forecasting" else 50)  # a network of this window alone, and of its history
            for name in ("inputs", "observed"):
                batch[name] = batch[name][:, :end]
            with evaluation_mode(net), torch.no_grad():
                alone = call_network(net, batch, batch["inputs"].float())["log_rates"][0]
            alone = alone[-5:] if task == "forecasting" else alone[-50:][:, hidden]
            place = np.abs(stored["window_timestamps"].numpy() - bench.source.absolute_start - some.starts[k]).argmin()
            torch.testing.assert_close(stored["predictions"][place].float(), alone, atol=2e-3, rtol=2e-3)
            seen.append(first)
    assert min(seen) >= HISTORY // 2 and max(seen) <= HISTORY and (len(set(seen)) > 1) == (shared > 1)


@pytest.mark.parametrize("history_ms", [0, HISTORY_MS])
def test_windows_whose_histories_share_time_are_no_training_windows(file, history_ms):
    """Only the windows themselves are what was trained on or is scored; theirs overlap in training alone."""
    identity = identify(load_session(file, history_ms=history_ms, train_stride_ms=100), {})
    for split in ("val", "test"):
        assert not find_training_trials(identity, ["train"], identity, split).any()
    moved = {**identity["trials"]["train"], "times": identity["trials"]["train"]["times"] + 0.9}
    again = {**identity, "trials": {"test": {**moved, "keys": moved["keys"] + 1, "rows": moved["rows"] + 10_000}}}
    assert find_training_trials(identity, ["train"], again, "test").all()


def test_a_history_that_the_benchmark_does_not_allow_is_one_line(file):
    for wrong in (30, 20_020):
        with pytest.raises(ConfigError, match=rf"data.history_ms={wrong}: give a multiple of 20 ms, 20000 at most"):
            load_session(file, history_ms=wrong)
    with pytest.raises(ConfigError, match=r"history_ms"):
        load_session(file, history_ms=-20)
