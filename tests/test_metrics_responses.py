"""Scores of predicted responses against plain restatements, however images are cut into batches and shared out."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.utilities import dim_zero_sum

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional import explainable as ex
from neuro_lightning.metrics.responses import ResponseMetrics

B, R, N = 30, 4, 5


def spec(**changes) -> DataSpec:
    values = {"n_out": N, "image_shape": (1, 4, 4), "mean_rates": (1000.0,) * N, "n_repeats": R, "true_rates": True}
    return DataSpec("data", **({"kind": "images"} | values | changes))


def data(seed: int = 0, offset: float = 1000.0) -> tuple[dict, torch.Tensor]:
    """A split's batch and float32 predictions: a large offset, unobserved entries, unequal numbers of repeats."""
    rng = np.random.default_rng(seed)
    means = offset + rng.gamma(2, 1, (B, N))
    repeats = means[:, None] + rng.normal(size=(B, R, N))
    repeats[5:9, 2:] = np.nan
    repeats[::7, :, 1] = np.nan
    shown = ~np.isnan(repeats).all(1)
    targets = np.nansum(repeats, axis=1) / np.maximum((~np.isnan(repeats)).sum(1), 1)
    batch = {
        "targets": torch.from_numpy(np.where(shown, targets, np.nan)),
        "mask": torch.from_numpy(shown),
        "index": torch.arange(B),
        "repeats": torch.from_numpy(repeats),
        "rates": torch.from_numpy(means),
    }
    return batch, torch.from_numpy(means + rng.normal(size=means.shape)).float()


def cut(batch: dict, predictions: torch.Tensor, rows) -> tuple[dict, dict]:
    return {"rates": predictions[rows]}, {name: values[rows] for name, values in batch.items()}


def score(batch: dict, predictions: torch.Tensor, parts=(slice(None),), **options) -> dict[str, float]:
    metrics = ResponseMetrics(options.pop("spec", spec()), **options)
    for rows in parts:
        metrics.update(*cut(batch, predictions, rows))
    return metrics.compute()


def columns(batch: dict, predictions: torch.Tensor):
    """Observed responses and predictions of each neuron."""
    for n in range(N):
        mask = batch["mask"][:, n].numpy()
        yield batch["targets"][:, n].numpy()[mask], predictions[:, n].double().numpy()[mask]


def test_scores_are_their_definitions():
    batch, predictions = data()
    found, pairs = score(batch, predictions), list(columns(batch, predictions))
    corr = np.array([np.corrcoef(y, p)[0, 1] for y, p in pairs])
    errors = [(y - p) ** 2 for y, p in pairs]
    repeats, p = batch["repeats"], predictions.double()
    ceiling = ex.explainable(repeats)
    each = {"trial": ex.trial_correlation(repeats, p), "feve": ex.feve(repeats, p)}
    chosen = ex.reliable(ceiling.fev)
    assert chosen.any() and not ceiling.fev.isnan().any()
    truth = [np.corrcoef(batch["rates"][:, n], predictions[:, n])[0, 1] for n in range(N)]
    expected = {
        "corr": corr.mean(),
        "rmse": math.sqrt(np.concatenate(errors).mean()),
        "rmse_columns": np.mean([math.sqrt(error.mean()) for error in errors]),
        "trial_corr": float(each["trial"].mean()),
        "feve": float(each["feve"][chosen].mean()),
        "feve_neurons": int(chosen.sum()),
        "oracle_fraction": float(ex.oracle_fraction(each["trial"], ceiling.oracle)),
        "cc_norm": float((torch.from_numpy(corr) / ceiling.cc_max)[chosen].mean()),
        "rates_corr": np.mean(truth),
    }
    assert found == pytest.approx(expected, rel=1e-6)
    assert list(found) == ResponseMetrics(spec()).names == list(expected)


def test_batches_change_nothing():
    batch, predictions = data()
    cuts = [slice(0, 1), slice(1, 17), slice(17, 18), slice(18, B)]
    assert score(batch, predictions, cuts) == pytest.approx(score(batch, predictions), rel=1e-9)


def test_processes_change_nothing(monkeypatch):
    batch, predictions = data()
    shares = [ResponseMetrics(spec()) for _ in range(3)]
    for k, share in enumerate(shares[:2]):  # the third process has no image
        share.update(*cut(batch, predictions, slice(k, None, 2)))
    whole = ResponseMetrics(spec())
    whole.update(*cut(batch, predictions, slice(None)))
    for name, metric in shares[0].metrics.items():
        for state, reduction in metric._reductions.items():
            assert reduction is dim_zero_sum
            setattr(metric, state, sum(getattr(share.metrics[name], state) for share in shares))
    assert shares[0].compute() == pytest.approx(whole.compute(), rel=1e-9)
    for name, values in shares[0].per_neuron().items():
        assert torch.allclose(values, whole.per_neuron()[name], equal_nan=True), name


def test_what_the_mask_hides_never_counts():
    batch, predictions = data()
    expected = score(batch, predictions, n_repeats=0, spec=spec(true_rates=False))
    hidden = ~batch["mask"]
    assert hidden.any()
    for poison in (math.nan, math.inf, 1e30):
        targets, guesses = batch["targets"].clone(), predictions.clone()
        targets[hidden], guesses[hidden] = poison, poison
        found = score({**batch, "targets": targets}, guesses, n_repeats=0, spec=spec(true_rates=False))
        assert found == expected


def test_constant_neurons_correlate_not_at_all_and_unseen_ones_are_left_out():
    batch, predictions = data()
    each = [np.corrcoef(y, p)[0, 1] for y, p in columns(batch, predictions)]
    predictions[:, 0] = 1001.1
    batch["targets"][:, 1] = 999.9
    batch["mask"][:, 2] = False
    batch["mask"][1:, 3] = False  # a single image has no correlation, but an error
    found = score(batch, predictions, n_repeats=0)
    assert found["corr"] == pytest.approx((0 + 0 + each[4]) / 3, rel=1e-9)
    error = [math.sqrt(((y - p) ** 2).mean()) for n, (y, p) in enumerate(columns(batch, predictions)) if n != 2]
    assert found["rmse_columns"] == pytest.approx(np.mean(error), rel=1e-9)


def test_a_diverged_model_has_no_score():
    batch, predictions = data()
    predictions[3, 2] = math.nan
    found = score(batch, predictions)
    assert all(math.isnan(found[name]) for name in set(found) - {"feve_neurons"})


def test_the_truth_and_the_mean_as_predictions():
    batch, _ = data(offset=2.0)
    plain = spec(mean_rates=())
    truth = score(batch, batch["rates"].float(), spec=plain)
    assert truth["feve"] == pytest.approx(1, abs=0.2) and truth["cc_norm"] == pytest.approx(1, abs=0.2)
    assert truth["rates_corr"] == pytest.approx(1)
    mean = batch["repeats"].nanmean((0, 1)).float().expand(B, N)
    found = score(batch, mean, spec=plain)
    assert abs(found["feve"]) < 0.1 and found["corr"] == found["trial_corr"] == found["cc_norm"] == 0
    assert found["oracle_fraction"] == 0


def test_a_split_without_repeats_has_only_the_plain_scores():
    batch, predictions = data()
    del batch["repeats"]
    found = score(batch, predictions)
    needs_repeats = ("trial_corr", "feve", "feve_neurons", "oracle_fraction", "cc_norm")
    assert all(math.isnan(found[name]) for name in needs_repeats)
    assert math.isfinite(found["corr"]) and math.isfinite(found["rates_corr"])
    assert list(score(batch, predictions, n_repeats=0)) == ["corr", "rmse", "rmse_columns", "rates_corr"]


def test_fewer_repeats_than_announced_are_accepted_and_more_refused():
    batch, predictions = data()
    wide = score(batch, predictions, n_repeats=R + 3)
    assert wide == pytest.approx(score(batch, predictions), rel=1e-9)
    with pytest.raises(ValueError, match="2 repeats, the batch has 4"):
        score(batch, predictions, n_repeats=2)


def test_log_rates_single_neurons_and_reset():
    batch, predictions = data(offset=2.0)
    one = {name: values[..., :1] if values.ndim > 1 else values for name, values in batch.items()}
    metrics = ResponseMetrics(spec(n_out=1, mean_rates=(2.0,)))
    metrics.update({"log_rates": predictions[:, :1].abs().log()}, one)
    assert all(values.shape == (1,) for values in metrics.per_neuron().values())
    y, p = next(columns(batch, predictions.abs()))
    assert metrics.compute()["corr"] == pytest.approx(np.corrcoef(y, p)[0, 1], rel=1e-5)
    metrics.reset()
    assert math.isnan(metrics.compute()["corr"])
    assert metrics.state_dict() == {}


def test_per_neuron_scores_average_to_the_scores():
    batch, predictions = data()
    metrics = ResponseMetrics(spec())
    metrics.update(*cut(batch, predictions, slice(None)))
    each, found = metrics.per_neuron(), metrics.compute()
    assert found["corr"] == pytest.approx(float(each["corr"].mean()))
    assert found["rmse_columns"] == pytest.approx(float(each["rmse"].mean()))
    assert found["feve"] == pytest.approx(float(each["feve"][each["fev"] >= 0.15].mean()))


def test_sums_keep_their_precision_when_a_module_is_cast():
    metrics = ResponseMetrics(spec()).to(torch.bfloat16)
    batch, predictions = data()
    metrics.update(*cut(batch, predictions, slice(None)))
    assert metrics.compute() == score(batch, predictions)


def test_directions_are_decoded_where_stimuli_have_one():
    batch, _ = data(offset=2.0)
    batch["angle"] = torch.linspace(0, math.pi, B + 1)[:-1].double()
    curves = 2 + torch.cos(2 * (batch["angle"][:, None] - torch.arange(N) * math.pi / N))
    batch |= {"targets": curves, "mask": torch.ones(B, N, dtype=torch.bool)}
    options = {"spec": spec(angle_period=180, mean_rates=(), true_rates=False), "n_eval": B, "n_repeats": 0}
    found = score(batch, curves.float(), [slice(0, 11), slice(11, B)], **options)
    assert list(found) == ["corr", "rmse", "rmse_columns", "angle_deg"] and found["angle_deg"] < 1
    shifted = score(batch, curves.roll(5, 0).float(), **options)  # 5 stimuli of 6 degrees each
    assert shifted["angle_deg"] == pytest.approx(30, abs=1)
