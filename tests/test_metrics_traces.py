"""Scores of real-valued traces equal scikit-learn's, whatever the batches, and keep the planes' neurons apart."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from neuro_lightning.contracts import DataSpec
from neuro_lightning.functional.reconstruction import error_sums, mean_r2, mean_squared_error, variance_explained
from neuro_lightning.metrics.traces import TraceMetrics

PLANES, WINDOWS, BINS, N_IN, N_OUT = 3, 4, 15, 5, 2
N = N_IN + N_OUT


def recording(seed: int = 0) -> dict[str, torch.Tensor]:
    """Planes of different neurons: means and depths differ between planes, not only between columns."""
    rng = np.random.default_rng(seed)
    size = (PLANES, WINDOWS, BINS, N)
    scale, mean = rng.uniform(0.5, 4, (2, PLANES, 1, 1, N)) * [[[[[1]]]], [[[[10]]]]]
    targets = mean + scale * rng.standard_normal(size)
    true = targets + 0.3 * rng.standard_normal(size)
    condition = np.repeat(np.arange(PLANES), WINDOWS)
    flat = {name: torch.tensor(v.reshape(-1, BINS, N), dtype=torch.float32) for name, v in
            (("targets", targets), ("rates", true))}  # fmt: skip
    batch = {
        **flat,
        "mask": torch.ones(len(condition), BINS, N, dtype=torch.bool),
        "condition": torch.tensor(condition),
    }
    noise = torch.tensor(rng.standard_normal(flat["targets"].shape), dtype=torch.float32)
    return {**batch, "prediction": flat["targets"] + 0.5 * noise}


def spec(**changes) -> DataSpec:
    values = {"dataset": "x", "kind": "traces", "n_in": N_IN, "n_out": N_OUT, "n_bins": BINS, "decode_groups": PLANES,
              "mean_rates": (5.0,) * N, "true_rates": True}  # fmt: skip
    return DataSpec(**{**values, **changes})


def scores(data: dict, batches: list, of: DataSpec | None = None, key: str = "rates") -> dict[str, float]:
    metrics = TraceMetrics(of or spec())
    for rows in batches:
        prediction = data["prediction"][rows]
        output = {"rates": prediction} if key == "rates" else {"log_rates": prediction.log()}
        metrics.update(output, {k: v[rows] for k, v in data.items() if k != "prediction"})
    return metrics.compute()


def by_neuron(data: dict, name: str) -> np.ndarray:
    """(bins, planes * neurons): every plane's neurons side by side."""
    values = data[name].double().numpy().reshape(PLANES, WINDOWS * BINS, N)
    return values.transpose(1, 0, 2).reshape(WINDOWS * BINS, PLANES * N)


def test_equals_scikit_learn():
    data = recording()
    found = scores(data, [list(range(PLANES * WINDOWS))])
    true, guess = by_neuron(data, "targets"), by_neuron(data, "prediction")
    assert found["mse"] == pytest.approx(((true - guess) ** 2).mean(), rel=1e-12)
    assert found["r2"] == pytest.approx(r2_score(true, guess), rel=1e-10)
    assert found["variance"] == pytest.approx(r2_score(true, guess, multioutput="variance_weighted"), rel=1e-10)
    assert found["rates_r2"] == pytest.approx(r2_score(by_neuron(data, "rates"), guess), rel=1e-10)
    out = np.tile(np.arange(N) >= N_IN, PLANES)
    assert found["co_r2"] == pytest.approx(r2_score(true[:, out], guess[:, out]), rel=1e-10)
    assert list(found) == TraceMetrics(spec()).names == ["mse", "r2", "variance", "co_r2", "rates_r2"]


def test_planes_hold_other_neurons():
    """About one mean over planes the variance would look larger, and so the score better."""
    data = recording()
    apart, mixed = scores(data, [list(range(12))]), scores(data, [list(range(12))], spec(decode_groups=1))
    assert mixed["r2"] > apart["r2"] + 0.05 and mixed["mse"] == pytest.approx(apart["mse"], rel=1e-12)
    plane = [r for r in range(12) if data["condition"][r] == 2]  # one plane alone keeps its own label
    alone = scores(data, [plane], spec(decode_groups=1))
    columns = slice(2 * N, 3 * N)
    assert alone["r2"] == pytest.approx(
        r2_score(by_neuron(data, "targets")[:, columns], by_neuron(data, "prediction")[:, columns]), rel=1e-10
    )


def test_two_planes_are_kept_apart_as_three_are():
    data = recording()
    two = [r for r in range(12) if data["condition"][r] < 2]
    assert scores(data, [two], spec(decode_groups=2))["r2"] == pytest.approx(scores(data, [two])["r2"], rel=1e-12)


def test_any_batches_give_the_same():
    data, order = recording(), np.random.default_rng(1).permutation(12).tolist()
    whole = scores(data, [list(range(12))])
    for batches in ([[r] for r in order], [order[:5], order[5:6], order[6:]]):
        assert scores(data, batches) == pytest.approx(whole, rel=1e-12)


def test_processes_add_up():
    """Under DDP torchmetrics sums the states: two halves' sums are the whole's."""
    data, metrics = recording(), [TraceMetrics(spec()) for _ in range(3)]
    for metric, rows in zip(metrics, (range(7), range(7, 12), range(12)), strict=True):
        batch = {k: v[list(rows)] for k, v in data.items()}
        metric.update({"rates": batch["prediction"]}, batch)
    for name, whole in metrics[2].metrics.items():
        for state in ("count", "total", "squares", "residual"):
            assert whole._reductions[state] is torch.sum or whole._reductions[state].__name__ == "dim_zero_sum"
            total = sum(getattr(metric.metrics[name], state) for metric in metrics[:2])
            torch.testing.assert_close(total, getattr(whole, state), rtol=1e-12, atol=1e-9)
    metrics[2].reset()
    assert float(metrics[2].metrics["all"].count.sum()) == 0


def test_unobserved_and_constant_neurons():
    data = recording()
    rows = list(range(12))
    without = {k: v[..., 1:] if v.ndim == 3 else v for k, v in data.items()}
    small = spec(n_in=N_IN - 1, mean_rates=(5.0,) * (N - 1))
    expected = scores(without, [rows], small)
    hidden = {k: v.clone() for k, v in data.items()}
    hidden["targets"][..., 0], hidden["mask"][..., 0] = math.nan, False
    found = scores(hidden, [rows])
    for name in ("mse", "r2", "variance", "co_r2"):  # NaN outside the mask never counts
        assert found[name] == pytest.approx(expected[name], rel=1e-12)
    constant = {k: v.clone() for k, v in data.items()}
    constant["targets"][..., 0] = 0.1  # not exact in binary: sums of it have rounding errors
    found = scores(constant, [rows])
    for name in ("r2", "variance"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12)
    assert found["mse"] > 2 * expected["mse"]  # a wrong prediction of a silent neuron is an error all the same


def test_not_finite():
    data = recording()
    data["prediction"][3, 2, 1] = math.inf
    found = scores(data, [list(range(12))])
    assert all(math.isnan(found[name]) for name in ("mse", "r2", "variance", "rates_r2"))
    assert math.isfinite(found["co_r2"])  # a held-in neuron's prediction has no part in it
    flat = {**recording(), "targets": torch.full((12, BINS, N), 2.0)}
    found = scores(flat, [list(range(12))])
    assert math.isnan(found["r2"]) and math.isnan(found["variance"]) and found["mse"] > 0


def test_names_follow_the_data_and_the_link():
    data = {k: v.abs() + 0.1 if k == "prediction" else v for k, v in recording().items()}
    plain = spec(n_in=N, n_out=0, true_rates=False)
    assert TraceMetrics(plain).names == ["mse", "r2", "variance"]
    assert scores(data, [[0, 5]], plain, "log_rates") == pytest.approx(scores(data, [[0, 5]], plain), rel=1e-5)


def test_trivial_predictors_have_their_closed_forms():
    data = recording()
    targets = data["targets"][:WINDOWS]
    mean = targets.flatten(0, 1).mean(0).expand_as(targets)
    at_mean = error_sums(mean, targets)
    assert float(variance_explained(at_mean)) == pytest.approx(0, abs=1e-6)
    assert float(mean_r2(at_mean)) == pytest.approx(0, abs=1e-6)
    at_zero = error_sums(torch.zeros_like(targets), targets)
    assert float(mean_squared_error(at_zero)) == pytest.approx(float(targets.double().square().mean()), rel=1e-12)
    assert float(mean_r2(error_sums(targets, targets))) == 1
    # a large offset costs no precision when it is shifted away
    offset = targets.double() + 1e6
    guess = offset + 0.5
    shifted = error_sums(guess, offset, shift=torch.full((N,), 1e6, dtype=torch.float64))
    assert float(mean_r2(shifted)) == pytest.approx(
        r2_score(offset.flatten(0, 1).numpy(), guess.flatten(0, 1).numpy()), rel=1e-9
    )
