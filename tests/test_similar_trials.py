"""Rates mixed with the training trials that are predicted alike: by the definition, and in ``predict.py``."""

import math

import h5py
import numpy as np
import pytest
import torch
from ensembles import alone, data_of, members_of, written
from runs import here
from tiny_traces import TinyTraces

import neuro_lightning as nl
from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.similar_trials import neighbor_weights, number_of_neighbors, rates_of_similar_trials
from neuro_lightning.runs.similar_trials import add_similar_trials, check_similar_trials
from neuro_lightning.submission.plain import observed_targets


def gaussian(n: int, sd: float) -> np.ndarray:
    weights = np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)) / sd) ** 2)
    return weights / weights.sum(1, keepdims=True)


def by_definition(rates, train_rates, counts, bin_ms, same=False):
    """A loop over trials, bins and neurons."""
    n_train, n_bins, n_neurons = counts.shape
    stride = max(1, round(20 / bin_ms))
    cuts = [slice(first, first + stride) for first in range(0, n_bins, stride)]
    smoothing, around = gaussian(n_bins, 40 / bin_ms), gaussian(len(cuts), 100 / (stride * bin_ms))
    smoothed = np.full(counts.shape, np.nan)
    for b in range(n_train):
        for n in range(n_neurons):
            known = ~np.isnan(counts[b, :, n])
            if known.any():
                smoothed[b, :, n] = smoothing[:, known] @ counts[b, known, n] / smoothing[:, known].sum(1)
    root = [np.sqrt(np.stack([each[:, cut].mean(1) for cut in cuts], 1)) for each in (rates, train_rates)]
    result = np.empty(rates.shape)
    for v in range(len(rates)):
        others = np.array([b for b in range(n_train) if not (same and b == v)])
        k = min(len(others), max(2, round(2 * math.sqrt(len(others)))))
        distance = around @ ((root[0][v] - root[1][others]) ** 2).sum(2).T
        for s, cut in enumerate(cuts):
            order = np.argsort(distance[s])[:k]
            near = distance[s][order]
            weight = (1 - (near - near[0]) / (near[-1] - near[0])) ** 2
            for n in range(n_neurons):
                for t in range(n_bins)[cut]:
                    values, mean = smoothed[others[order], t, n], np.nanmean(smoothed[others, t, n])
                    seen = ~np.isnan(values)
                    result[v, t, n] = (weight[seen] @ values[seen] + 2 * mean) / (weight[seen].sum() + 2)
    return result


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("bins", "bin_ms"), [(11, 5), (6, 20), (7, 50)])
def test_rates_of_similar_trials_are_those_of_the_definition(bins, bin_ms, same):
    rng = np.random.default_rng(0)
    train, counts = rng.gamma(1.0, 0.3, (20, bins, 3)), rng.poisson(0.4, (20, bins, 3)).astype(float)
    counts[3:6, :, 1], counts[:2, 2:5, 0] = np.nan, np.nan
    rates = train if same else rng.gamma(1.0, 0.3, (70, bins, 3))  # more than are computed at once
    given = [torch.from_numpy(values) for values in (rates, train, counts)]
    found = rates_of_similar_trials(*given, bin_ms=bin_ms, same=same)
    np.testing.assert_allclose(
        found, by_definition(rates, train, counts, bin_ms, same), rtol=1e-6
    )  # the Gaussians are of single precision


def test_a_training_trial_says_nothing_about_itself():
    rng = np.random.default_rng(1)
    rates = torch.from_numpy(rng.gamma(1.0, 0.3, (9, 8, 3)))
    counts = torch.from_numpy(rng.poisson(0.4, (9, 8, 3)).astype(float))
    changed = counts.clone()
    changed[4] = 1e6
    one, other = (rates_of_similar_trials(rates, rates, each, bin_ms=20, same=True) for each in (counts, changed))
    torch.testing.assert_close(one[4], other[4], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(one[3], other[3])


def test_equally_far_neighbors_weigh_the_same_and_there_are_never_too_many():
    assert neighbor_weights(torch.zeros(1, 5), 3).sum() == 3
    assert [number_of_neighbors(n) for n in (3, 4, 25, 322)] == [3, 4, 10, 36]
    with pytest.raises(ValueError, match="2 training trials"):
        rates_of_similar_trials(*torch.ones(3, 2, 4, 1), bin_ms=20)


def test_counts_of_evaluated_trials_do_not_enter():
    rates = alone_rates()
    plain, poisoned = (
        add_similar_trials(rates, data_of(**poison).recording, 0.5) for poison in ({}, {"val": 200, "test": 200})
    )
    for split in rates:
        np.testing.assert_array_equal(plain[split], poisoned[split])
    assert not np.array_equal(plain["val"], add_similar_trials(rates, data_of(train=7).recording, 0.5)["val"])


def alone_rates() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {split: rng.gamma(1.0, 0.3, (n, 15, 10)) for split, n in (("train", 37), ("val", 11), ("test", 11))}


def test_predict_mixes_and_says_so(ensemble_sweep, tmp_path, capsys):
    member, path = members_of(ensemble_sweep)[0], tmp_path / "mixed.h5"
    written(f"ckpt={member}", f"file={path}", "similar_trials=0.25", "output=predictions")
    said = " ".join(capsys.readouterr().out.split())
    assert "causal" not in said, "this network looks ahead"
    rates, recording = alone(member), data_of().recording
    counts = torch.from_numpy(observed_targets(recording, "train", rates["train"].shape))
    assert counts.isnan().any(), "a part was not observed"
    with h5py.File(path) as file:
        for split in rates:
            given = torch.from_numpy(rates[split]), torch.from_numpy(rates["train"]), counts
            similar = rates_of_similar_trials(*given, bin_ms=10, same=split == "train").numpy()
            np.testing.assert_allclose(file[split]["predictions"], 0.75 * rates[split] + 0.25 * similar, rtol=1e-5)
    mixed = nl.load(member.parent.parent, trusted=["tiny"]).rates("val", similar_trials=0.25)
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["val"]["predictions"], mixed, rtol=1e-5)
    assert "25% of each rate is the mean of 12 of 37 training trials" in said
    assert "Without similar trials, test: co-bps" in said


def test_rates_of_a_causal_model_are_causal_no_longer_and_this_is_said(tmp_path, capsys):
    here(tmp_path, "model.bidirectional=false", "trainer.max_epochs=1")
    words = [f"ckpt={tmp_path}", "output=predictions", "evaluate=false"]
    for mixed in (True, False):
        capsys.readouterr()
        written(*words, *["similar_trials=0.25"] * mixed)
        assert ("These rates are not causal" in capsys.readouterr().out) == mixed
    with pytest.warns(UserWarning, match="These rates are not causal"):
        nl.load(tmp_path, trusted=["tiny"]).rates("val", similar_trials=0.25)


def test_predict_mixes_an_ensemble_and_names_its_file(ensemble_sweep):
    path = written(f"ckpt={ensemble_sweep}", "similar_trials=0.1", "output=predictions", "evaluate=false")
    assert path.name == "predictions_tiny_mean_of_3_similar_trials.h5"
    path.unlink(), path.with_name(path.name + ".json").unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["similar_trials=1"], "similar_trials=1: give a share"),
        (["similar_trials=-0.1"], "similar_trials=-0.1: give a share"),
        (["similar_trials=0.2", "output=latents"], "leave it out of output=latents"),
    ],
)
def test_wrong_requests_are_refused(ensemble_sweep, words, said):
    with pytest.raises(ConfigError, match=said):
        written(f"ckpt={members_of(ensemble_sweep)[0]}", *words)


def test_data_without_comparable_trials_are_refused():
    check_similar_trials(None, data_of())
    traces = TinyTraces(n_in=3, n_out=0, n_train=5, n_bins=40, noise=0.1)
    with pytest.raises(ConfigError, match="for trials of spikes, not for traces"):
        check_similar_trials(None, traces)
    unequal = data_of()
    trials = unequal.recording.splits["val"]
    trials.observed = np.ones((*trials.heldin.shape[:2], 10), bool)
    check_similar_trials(None, unequal)
    trials.observed[0, -2:] = False
    with pytest.raises(ConfigError, match="trials of one length, and these are unequal"):
        check_similar_trials(None, unequal)
    other = data_of()
    other.serves_other_file = True
    with pytest.raises(ConfigError, match=r"the trials that trained the model, and data\.path names another file"):
        check_similar_trials(None, other)
    few = data_of()
    few.recording.splits["train"].heldin = few.recording.splits["train"].heldin[:2]
    with pytest.raises(ConfigError, match="needs 3 training trials; there are 2"):
        check_similar_trials(None, few)
