"""The metrics against the benchmark's own evaluation, however trials are cut into batches and shared out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nlb_tools import evaluation as nlb
from sklearn.metrics import r2_score
from torchmetrics.utilities import dim_zero_sum

from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import DataError
from neuro_lightning.functional.ridge import decode_folds
from neuro_lightning.metrics.collection import MetricSet, build_metrics
from neuro_lightning.metrics.decoding import VelocityR2

N_IN, N_OUT, T, F = 5, 3, 12, 4
N = N_IN + N_OUT
TRIALS = {"train": 26, "eval": 21}
CONDITIONS = 4


def spec(kind: str = "velocity", **changes) -> DataSpec:
    values = {"n_in": N_IN, "n_out": N_OUT, "n_bins": T, "n_forward": F, "mean_rates": (0.4,) * N,
              "behavior_dim": 5 if kind == "interval" else 2, "behavior_kind": kind, "n_conditions": CONDITIONS,
              "decode_groups": 2 if kind == "velocity" else 1}  # fmt: skip
    return DataSpec("data", bin_ms=5, **(values | changes))


def trials(part: str, kind: str, seed: int = 0) -> tuple[dict, dict]:
    """One split's batch and a model's output for it, with silent neurons, unknown behavior, jitter and zero rates."""
    rng, n = np.random.default_rng(seed + 50 * (part == "eval")), TRIALS[part]
    counts = rng.poisson(0.4, (n, T + F, N)).astype(np.float32)
    counts[..., N_IN + 1] = 0
    rates = rng.gamma(2, 0.2, counts.shape).astype(np.float32)
    rates[rng.random(rates.shape) < 0.03] = 0
    mask = np.ones(counts.shape, bool)
    jitter = np.zeros(n, int)
    condition = rng.integers(-1, CONDITIONS - 1, n)  # the last condition has no trials
    if kind == "interval":
        jitter = rng.integers(0, 4, n)
        for b, start in enumerate(rng.integers(3, 7, n) - jitter):
            mask[b, :start, N_IN:] = False
            mask[b, T - jitter[b] : T, N_IN:] = False
        which = np.arange(n) % 4
        behavior = np.column_stack([which % 2, which // 2, np.zeros(n), rng.random((n, 2)) * 800])
        behavior[[1, 6]] = np.nan
    else:
        behavior = rng.normal(size=(n, T, 2)) + 3 * rates[:, :T, :2]
        behavior[2, 7:], behavior[4] = np.nan, np.nan
    batch = {"targets": np.where(mask, counts, np.nan), "mask": mask, "index": np.arange(n), "condition": condition,
             "jitter": jitter, "behavior": behavior.astype(np.float32), "rates": rates * 0.9 + 0.01}  # fmt: skip
    batch = {name: torch.from_numpy(np.asarray(array)) for name, array in batch.items()}
    if kind == "velocity":
        batch["decode_fold"] = decode_folds(batch["behavior"], groups(n))
    return batch, {"log_rates": torch.from_numpy(rates).log()}


def groups(n: int) -> torch.Tensor:
    first = torch.arange(n) % 3 > 0
    return torch.stack([first, ~first], dim=1)


def true_psth(kind: str) -> torch.Tensor:
    rng = np.random.default_rng(9)
    psth = rng.random((CONDITIONS, T, N))
    if kind == "interval":
        psth[:, :5] = np.nan
    return torch.from_numpy(psth)


def rows(values: dict, index) -> dict:
    return {name: value[index] for name, value in values.items()}


def reference(kind: str, seed: int = 0) -> dict[str, float]:
    """The scores by the field's own tool."""
    (train, train_out), (batch, out) = (trials(part, kind, seed) for part in TRIALS)
    counts = batch["targets"].double().numpy()
    rates, train_rates = (o["log_rates"].exp().double().numpy() for o in (out, train_out))
    scores = {
        "co_bps": nlb.bits_per_spike(rates[:, :T, N_IN:].copy(), counts[:, :T, N_IN:]),
        "fp_bps": nlb.bits_per_spike(rates[:, T:].copy(), counts[:, T:]),
        "psth_r2": nlb.eval_psth(true_psth(kind).numpy(), rates[:, :T],
                                 [np.flatnonzero(batch["condition"] == c) for c in range(CONDITIONS)],
                                 jitter=batch["jitter"].numpy()),
    }  # fmt: skip
    behavior, train_behavior = (b["behavior"].double().numpy() for b in (batch, train))
    if kind == "interval":
        scores["tp_corr"] = nlb.speed_tp_correlation(counts[:, :T, N_IN:], rates[:, :T], behavior)
    else:
        scores["vel_r2"] = nlb.velocity_decoding(
            train_rates[:, :T], train_behavior, groups(len(train_rates)).numpy(),
            rates[:, :T], behavior, groups(len(rates)).numpy(),
        )  # fmt: skip
    return scores


def run(metrics: MetricSet, kind: str, seed: int = 0, sizes: tuple[int, ...] = (100,)) -> MetricSet:
    """Feeds both splits in batches of the given sizes, again and again."""
    for part, update in (("train", metrics.update_train), ("eval", metrics.update)):
        batch, out = trials(part, kind, seed)
        start = k = 0
        while start < TRIALS[part]:
            stop = start + sizes[k % len(sizes)]
            update(rows(out, slice(start, stop)), rows(batch, slice(start, stop)))
            start, k = stop, k + 1
    return metrics


def build(kind: str = "velocity", **changes) -> MetricSet:
    return build_metrics(spec(kind, **changes), n_eval=TRIALS["eval"], psth=true_psth(kind))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["velocity", "interval"])
def test_every_metric_equals_the_reference(kind, seed):
    expected = reference(kind, seed)
    scores = run(build(kind), kind, seed).compute()
    assert set(scores) == set(expected)
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from(["velocity", "interval"]))
def test_no_cut_into_batches_changes_a_score(sizes, kind):
    whole, cut = (run(build(kind, true_rates=True), kind, sizes=s).compute() for s in ((100,), tuple(sizes)))
    assert whole == pytest.approx(cut, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("kind", ["velocity", "interval"])
@pytest.mark.parametrize("processes", [2, 5])
def test_merged_states_of_processes_are_those_of_one(kind, processes):
    """Shards of unequal size, trials interleaved, one process without a single evaluation trial."""
    parts = [build(kind, true_rates=True) for _ in range(processes)]
    for part in TRIALS:
        batch, out = trials(part, kind)
        n = processes if part == "train" else processes - 1
        for rank in range(n):
            index = torch.arange(rank, TRIALS[part], n)
            update = parts[rank].update_train if part == "train" else parts[rank].update
            update(rows(out, index), rows(batch, index))
    for other in parts[1:]:
        for name, metric in parts[0].metrics.items():
            metric.merge_state(other.metrics[name])
    alone = run(build(kind, true_rates=True), kind)
    assert parts[0].compute() == pytest.approx(alone.compute(), rel=1e-10, abs=1e-10)


def test_every_state_is_a_float64_sum_and_stays_one():
    metrics = build(true_rates=True).to(torch.bfloat16).half().float()
    for metric in metrics.metrics.values():
        for name, value in metric.metric_state.items():
            assert value.dtype == torch.float64 and metric._reductions[name] is dim_zero_sum, name
    assert metrics.metrics["psth_r2"].psth.dtype == torch.float64
    assert run(metrics, "velocity").compute() == run(build(true_rates=True), "velocity").compute()


def test_a_checkpoint_holds_nothing_of_the_metrics():
    assert not run(build(true_rates=True), "velocity").state_dict()


def test_scores_are_not_means_over_batches():
    """The trap of logging: a mean of batches' scores is another number."""
    batch, out = trials("eval", "velocity")
    whole, parts = build(), []
    whole.update(out, batch)
    for k in range(0, TRIALS["eval"], 5):
        part = build()
        part.update(rows(out, slice(k, k + 5)), rows(batch, slice(k, k + 5)))
        parts.append(part.compute())
    for name in ("co_bps", "fp_bps"):
        assert abs(np.mean([p[name] for p in parts]) - whole.compute()[name]) > 1e-4


def test_a_shift_by_one_bin_changes_every_score():
    batch, out = trials("eval", "velocity")
    metrics = run(build(true_rates=True), "velocity")
    before = metrics.compute()
    metrics.reset()
    metrics.update_train(*reversed(trials("train", "velocity")))
    metrics.update({"log_rates": out["log_rates"].roll(1, dims=1)}, batch)
    after = metrics.compute()
    assert {name for name in before if before[name] != after[name]} == set(before) - {"oracle_co_bps"}


def test_what_is_masked_never_matters():
    batch, out = trials("eval", "velocity")
    batch["mask"] = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(0)) < 0.8
    clean, poisoned = build(n_conditions=0), build(n_conditions=0)
    clean.update(out, batch)
    poisoned.update(out, batch | {"targets": batch["targets"].masked_fill(~batch["mask"], torch.nan)})
    assert clean.compute()["co_bps"] == poisoned.compute()["co_bps"]
    assert clean.compute()["fp_bps"] == poisoned.compute()["fp_bps"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", ["velocity", "interval"])
def test_a_diverged_model_scores_nan_and_recovers(kind, value):
    metrics = build(kind, true_rates=True)
    for part, update in (("train", metrics.update_train), ("eval", metrics.update)):
        batch, out = trials(part, kind)
        update({"log_rates": torch.full_like(out["log_rates"], value)}, batch)
    scores = metrics.compute()
    assert all(math.isnan(scores[name]) for name in metrics.names if not name.startswith("oracle_co"))
    metrics.reset()
    assert run(metrics, kind).compute() == run(build(kind, true_rates=True), kind).compute()


def test_training_trials_alone_or_none_give_no_decoding_score():
    metrics = build()
    batch, out = trials("train", "velocity")
    metrics.update_train(out, batch)
    assert math.isnan(metrics.compute()["vel_r2"])
    metrics = build()
    metrics.update(*reversed(trials("eval", "velocity")))
    assert math.isnan(metrics.compute()["vel_r2"])
    metrics.update_train(out, batch)  # a value computed before is not kept
    assert metrics.compute()["vel_r2"] == pytest.approx(reference("velocity")["vel_r2"], abs=1e-9)


def test_a_trial_seen_twice_does_not_disturb_the_interval_score():
    metrics = run(build("interval"), "interval")
    batch, out = trials("eval", "interval")
    metrics.update(rows(out, slice(3, 8)), rows(batch, slice(3, 8)))
    assert metrics.compute()["tp_corr"] == pytest.approx(reference("interval")["tp_corr"], abs=1e-9)


def test_known_rates_bound_the_model():
    true = torch.rand(40, T, N, generator=torch.Generator().manual_seed(0)) + 0.05
    counts = torch.poisson(true, generator=torch.Generator().manual_seed(1))
    batch = {"targets": counts, "mask": torch.ones(counts.shape, dtype=torch.bool), "rates": true}
    model = 0.5 * (true + true.mean((0, 1)))
    plain = spec("none", n_forward=0, n_conditions=0, true_rates=True)
    metrics = build_metrics(plain, n_eval=40)
    assert metrics.names == ["co_bps", "rates_r2", "oracle_co_bps", "oracle_share"] and not metrics.needs_train
    metrics.update({"log_rates": model.log()}, batch)
    scores = metrics.compute()
    expected = nlb.bits_per_spike(true[..., N_IN:].double().numpy(), counts[..., N_IN:].double().numpy())
    assert scores["oracle_co_bps"] == pytest.approx(expected, abs=1e-9)
    assert scores["oracle_share"] == pytest.approx(scores["co_bps"] / expected) and 0 < scores["oracle_share"] < 1
    flat = [r.double().flatten(0, 1).numpy() for r in (true, model.log().exp())]
    assert scores["rates_r2"] == pytest.approx(r2_score(*flat), abs=1e-9)
    metrics.reset()
    metrics.update({"log_rates": true.log()}, batch)
    assert metrics.compute()["oracle_share"] == pytest.approx(1, abs=1e-6)


def test_which_metrics_there_are_follows_from_the_data():
    assert build().names == ["co_bps", "fp_bps", "vel_r2", "psth_r2"] and build().needs_train
    assert build("interval").names == ["co_bps", "fp_bps", "psth_r2", "tp_corr"] and not build("interval").needs_train
    assert build_metrics(spec("none"), n_eval=3).names == ["co_bps", "fp_bps"]
    alone = build_metrics(spec("none", n_out=0, n_forward=0, true_rates=True, mean_rates=()), n_eval=3)
    assert alone.names == ["bps", "rates_r2", "oracle_bps", "oracle_share"]
    assert set(alone.compute()) == set(alone.names)
    with pytest.raises(DataError, match=r"the PSTHs have the shape \(4, 12, 8\)"):
        build(n_bins=T + 1)


def test_without_held_out_neurons_the_held_in_ones_are_scored():
    rates = torch.rand(6, T, N_IN) + 0.1
    counts = torch.poisson(rates)
    metrics = build_metrics(spec("none", n_out=0, n_forward=0, n_conditions=0, mean_rates=()), n_eval=6)
    metrics.update({"log_rates": rates.log()}, {"targets": counts, "mask": torch.ones(counts.shape, dtype=torch.bool)})
    expected = nlb.bits_per_spike(rates.log().exp().double().numpy(), counts.double().numpy())
    assert metrics.compute()["bps"] == pytest.approx(expected, abs=1e-9)


def test_decoding_keeps_its_digits_where_rates_hardly_vary():
    rng = np.random.default_rng(0)
    rates = {part: 1000 + rng.normal(size=(n, T, N)) * 1e-3 for part, n in TRIALS.items()}
    behavior = {part: r[..., :2] * 1e4 - 1e7 + rng.normal(size=(len(r), T, 2)) for part, r in rates.items()}
    metric = VelocityR2(N, 2, mean_rates=(1000.0,) * N)
    for part, update in (("train", metric.update_train), ("eval", metric.update)):
        moves = torch.from_numpy(behavior[part])
        update(torch.from_numpy(rates[part]), moves, decode_folds(moves))
    everyone = [np.ones((n, 1), bool) for n in TRIALS.values()]
    expected = nlb.velocity_decoding(
        rates["train"], behavior["train"], everyone[0], rates["eval"], behavior["eval"], everyone[1]
    )
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-9)
