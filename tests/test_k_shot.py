"""Few-shot co-smoothing: held-out neurons regressed from frozen latents with few trials."""

import numpy as np
import pytest
import torch
from runs import checkpoint, here, record, same
from sklearn.linear_model import PoissonRegressor

from neuro_lightning.errors import ConfigError
from neuro_lightning.functional.k_shot import k_shot_bits
from neuro_lightning.functional.likelihood import bits_per_spike
from neuro_lightning.metrics.catalog import axis_label, label, shown_metrics


def latents_and_counts(n, seed, extra=0):
    """Two latents that drive four neurons, beside ``extra`` latents that drive none, and a mask with holes."""
    rng = np.random.default_rng(seed)
    needed = rng.normal(size=(n, 25, 2))
    rates = np.exp(needed @ np.array([[0.8, -0.5, 0.3, 0.0], [0.2, 0.6, -0.7, 0.5]]) - 0.5)
    latents = np.concatenate([needed, rng.normal(size=(n, 25, extra))], axis=2).astype(np.float32)
    mask = rng.random(rates.shape) < 0.9
    return torch.from_numpy(latents), torch.from_numpy(rng.poisson(rates).astype(np.float32)), torch.from_numpy(mask)


def test_all_trials_are_the_poisson_regression_of_scikit_learn():
    train_part, evaluated = latents_and_counts(30, 0), latents_and_counts(20, 1)
    found = k_shot_bits(train_part, evaluated, 30, penalty=3.0)
    assert found.shape == (1,)
    x = train_part[0].flatten(0, 1).double().numpy()
    center, scale = x.mean(0), x.std(0, ddof=1)
    rates = np.empty(evaluated[1].shape)
    for n in range(4):
        rows = train_part[2][..., n].flatten().numpy()
        # the objective there is a mean over the rows that were observed, here over all
        fitted = PoissonRegressor(alpha=3.0 / 30 * len(rows) / rows.sum(), tol=1e-9, max_iter=1000)
        fitted.fit(((x - center) / scale)[rows], train_part[1][..., n].flatten().numpy()[rows])
        features = ((evaluated[0].double().numpy() - center) / scale).reshape(-1, 2)
        rates[..., n] = fitted.predict(features).reshape(20, 25)
    assert float(found) == pytest.approx(float(bits_per_spike(torch.from_numpy(rates), *evaluated[1:])), abs=1e-5)


def test_latents_that_hold_more_than_is_needed_lose_with_few_trials():
    plain = [k_shot_bits(latents_and_counts(200, 0), latents_and_counts(60, 1), k).mean() for k in (4, 200)]
    crowded = [k_shot_bits(latents_and_counts(200, 0, 60), latents_and_counts(60, 1, 60), k).mean() for k in (4, 200)]
    assert crowded[1] > 0.9 * plain[1]
    assert crowded[0] < 0.8 * plain[0]


def test_unobserved_counts_change_nothing():
    train_part, evaluated = latents_and_counts(30, 0), latents_and_counts(20, 1)
    poisoned = [(x, torch.where(mask, counts, torch.nan), mask) for x, counts, mask in (train_part, evaluated)]
    assert torch.equal(k_shot_bits(train_part, evaluated, 8), k_shot_bits(*poisoned, 8))


def test_the_defaults_are_those_of_the_docs():
    parts = latents_and_counts(30, 0), latents_and_counts(20, 1)
    assert torch.equal(k_shot_bits(*parts, 8), k_shot_bits(*parts, 8, draws=10, penalty=2.0, seed=0))


def test_a_constant_latent_changes_nothing():
    parts = latents_and_counts(30, 0), latents_and_counts(20, 1)
    more = [(torch.cat([x, torch.full_like(x[..., :1], 7.0)], -1), *rest) for x, *rest in parts]
    torch.testing.assert_close(k_shot_bits(*parts, 8), k_shot_bits(*more, 8), rtol=1e-5, atol=1e-6)


def test_trials_are_drawn_anew_and_seeded():
    parts = latents_and_counts(30, 0), latents_and_counts(20, 1)
    scores = k_shot_bits(*parts, 5, draws=6)
    assert len(set(scores.tolist())) == 6 and torch.equal(scores, k_shot_bits(*parts, 5, draws=6))
    with pytest.raises(ValueError, match="31 of 30"):
        k_shot_bits(*parts, 31)


def test_names_of_any_number_of_trials():
    assert label("k64_co_bps") == "64-shot" and axis_label("k8_co_bps").endswith("8 trials (bits/spike)")
    assert shown_metrics(["k256_co_bps", "k64_co_bps", "co_bps"]) == ["co_bps", "k64_co_bps", "k256_co_bps"]


SMALL = ["data=lorenz", "data.sizes.n_train=40", "data.sizes.n_val=20", "data.sizes.n_test=10", "data.sizes.n_bins=20",
         "trainer=cpu", "trainer.max_epochs=2", "logger=csv", "callbacks=minimal", "baselines=null"]  # fmt: skip


def test_a_run_has_the_scores_in_its_record(tmp_path):
    found = record(here(tmp_path, "model=gru", "model.hidden=6", "k_shot=[8,40]", base=SMALL).folder)["metrics"]
    assert {f"{split}/k{k}_co_bps" for split in ("val", "test") for k in (8, 40)} <= set(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=mean", "k_shot=[8]"], "k_shot reads held-out neurons from latents, and this model has none"),
        (["model=gru", "data.sizes.n_out=0", "k_shot=[8]"], "k_shot is about held-out neurons, and lorenz has none"),
        (["model=gru", "k_shot=[41]"], "k_shot=41: lorenz has 40 training trials"),
        (["model=gru", "k_shot=[0]"], r"k_shot=\[0\]: give numbers of training trials"),
        (["model=gru", "k_shot=64"], r"k_shot=64: must be a list, each a whole number"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_training(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        here(tmp_path, *words, base=SMALL)


def test_the_training_is_the_same_with_and_without(tmp_path):
    """The check before the training leaves dropout on and draws nothing."""
    words = ["model=gru", "model.hidden=6", "trainer.max_epochs=2"]
    runs = [
        here(tmp_path / name, *words, *more, base=SMALL).folder for name, more in (("a", []), ("b", ["k_shot=[8]"]))
    ]
    one, other = (checkpoint(folder, "last.ckpt")["state_dict"] for folder in runs)
    assert same(one, other)
