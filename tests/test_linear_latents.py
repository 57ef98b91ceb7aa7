"""Principal components and factor analysis against scikit-learn, against planted factors, and on the road."""

import numpy as np
import pytest
import torch
from runs import TESTS, TINY, checkpoint, here, record, same
from sklearn import decomposition

from neuro_lightning.contracts import DataSpec, call_network
from neuro_lightning.errors import ConfigError, DataError
from neuro_lightning.functional.factors import factor_analysis, principal_components
from neuro_lightning.functional.smoothing import gaussian_smooth
from neuro_lightning.models.linear_latents import PCA, FactorAnalysis
from neuro_lightning.models.spike_factors import SpikeFactorsNet

TRACES = [
    f"hydra.searchpath=[file://{TESTS / 'conf'}]", "trusted=[tiny_traces]", "data=tiny_traces", "trainer=cpu",
    "logger=csv", "callbacks=minimal", "baselines=null", "++trainer.enable_progress_bar=false",
]  # fmt: skip


def planted(n=2000, n_latents=3, n_neurons=20, seed=0):
    """Samples with private noise that differs tenfold; and what is behind them."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n_latents, n_neurons))
    signal = rng.normal(size=(n, n_latents)) @ loadings + rng.uniform(1, 3, n_neurons)
    private = rng.uniform(0.1, 1.0, n_neurons) ** 2
    return torch.from_numpy(signal + rng.normal(size=signal.shape) * np.sqrt(private)), signal, private


def reconstruction(factors, x):
    return (x - factors.mean) @ factors.encoder @ factors.loadings + factors.mean


def test_principal_components_equal_scikit_learn():
    x, _, _ = planted()
    ours, theirs = principal_components(x, 4), decomposition.PCA(4).fit(x.numpy())
    expected = theirs.inverse_transform(theirs.transform(x.numpy()))
    np.testing.assert_allclose(reconstruction(ours, x), expected, atol=1e-9)
    np.testing.assert_allclose(np.abs((ours.loadings @ theirs.components_.T).numpy()), np.eye(4), atol=1e-9)
    assert (ours.loadings.gather(1, ours.loadings.abs().argmax(1, keepdim=True)) > 0).all(), "signs are fixed"


def test_all_components_reconstruct_exactly():
    x, _, _ = planted(n_neurons=6)
    torch.testing.assert_close(reconstruction(principal_components(x, 6), x), x)
    assert principal_components(x, 60).loadings.shape == (6, 6)


def test_factor_analysis_equals_scikit_learn():
    x, _, _ = planted()
    ours, private = factor_analysis(x, 3, tolerance=1e-12)
    theirs = decomposition.FactorAnalysis(3, tol=1e-9, max_iter=5000, svd_method="lapack").fit(x.numpy())
    np.testing.assert_allclose(private, theirs.noise_variance_, rtol=1e-3)
    expected = theirs.transform(x.numpy()) @ theirs.components_ + theirs.mean_
    np.testing.assert_allclose(reconstruction(ours, x), expected, atol=2e-3)
    np.testing.assert_allclose(ours.loadings.T @ ours.loadings, theirs.components_.T @ theirs.components_, atol=1e-3)


def test_factor_analysis_finds_what_was_planted_and_leaves_the_noise_out():
    x, signal, private = planted()
    factors, found = factor_analysis(x, 3)
    np.testing.assert_allclose(found, private, rtol=0.15, atol=0.005)
    error = [
        (reconstruction(f, x) - torch.from_numpy(signal)).square().mean() for f in (factors, principal_components(x, 3))
    ]
    assert error[0] < 0.8 * error[1] < 0.8 * private.mean(), "nearer to the truth than principal components"


def test_a_silent_neuron_and_too_many_factors_are_survived():
    x, _, _ = planted(n=300, n_neurons=6)
    x = torch.cat([x, torch.zeros(300, 1).double()], 1)
    factors, private = factor_analysis(x, 50, max_iterations=50)
    assert factors.loadings.shape == (7, 7) and (private > 0).all()
    fitted = reconstruction(factors, x)
    assert fitted.isfinite().all() and float(fitted[:, -1].abs().max()) < 1e-6


class OneBatch(list):
    """A dataset whose trials are one batch."""

    def __getitem__(self, index):
        assert list(index) == list(range(len(self)))
        return super().__getitem__(0)

    def __len__(self):
        return len(super().__getitem__(0)["inputs"])


def dataset(x, n_in, mask=None):
    """(B, T, N) samples as a training split."""
    mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    return OneBatch([{"inputs": x[..., :n_in], "targets": x, "mask": mask}])


def spec(n_in, n_out, **options):
    return DataSpec("x", kind="traces", n_in=n_in, n_out=n_out, n_bins=50, **options)


@pytest.mark.parametrize("model", [PCA, FactorAnalysis])
def test_held_out_neurons_are_predicted_and_never_seen(model):
    x, signal, _ = planted()
    x, signal = x.float().unflatten(0, (40, 50)), torch.from_numpy(signal).unflatten(0, (40, 50))
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.99
    mask[..., :15] = True
    poisoned = torch.where(mask, x, torch.nan)
    fitted = model(spec(15, 5), n_components=3)
    fitted.fit_net(dataset(poisoned[:30], 15, mask[:30]))
    output = fitted.net(x[30:, :, :15])
    assert output["latents"].shape == (10, 50, 3) and output["rates"].shape == (10, 50, 20)
    error = (output["rates"] - signal[30:]).square().mean((0, 1)) / signal.var((0, 1))
    assert float(error[15:].max()) < 0.2 and float(error[:15].max()) < 0.3
    torch.testing.assert_close(
        output["rates"][..., :15], fitted.net.mean + output["latents"] @ fitted.net.loadings[0, :, :15]
    )


def test_the_penalty_prevents_overfitting_of_a_few_bins():
    x = planted(n=2045, n_latents=1, n_neurons=45)[0].float()
    few, fresh = x[:45], x[None, 45:]
    fitted = PCA(spec(40, 5), n_components=40)
    fitted.fit_net(dataset(few.unflatten(0, (9, 5)), 40))
    error = (fitted.net(fresh[..., :40])["rates"] - fresh)[..., 40:].square().mean((0, 1))
    rows = torch.cat([torch.ones(45, 1), few], 1)
    by_heart = rows[:, :41] @ torch.linalg.lstsq(rows[:, :41], few[:, 40:]).solution
    assert float((by_heart - few[:, 40:]).square().mean()) < 0.1 * float(error.mean()), "it could have been"
    assert float(error.mean()) < 0.4 * float(fresh[0, :, 40:].var(0).mean())


def test_more_components_than_neurons_make_no_difference():
    fitted = PCA(spec(6, 0), n_components=75)
    x = torch.randn(4, 50, 6)
    fitted.fit_net(dataset(x, 6))
    torch.testing.assert_close(fitted.net(x)["rates"], x, atol=1e-5, rtol=1e-5)


def test_unsupported_settings_are_refused():
    with pytest.raises(ConfigError, match="n_components=0"):
        PCA(spec(6, 0), n_components=0)
    assert "2 forward bins" in FactorAnalysis.refuse(spec(6, 0, n_forward=2))
    with pytest.raises(DataError, match="no two training bins"):
        PCA(spec(3, 1), n_components=1).fit_net(
            dataset(torch.randn(2, 5, 4), 3, torch.zeros(2, 5, 4, dtype=torch.bool))
        )


@pytest.mark.parametrize(("model", "least"), [("pca", 0.6), ("fa", 0.85)])
def test_as_models_they_find_the_planted_latents(tmp_path, model, least):
    here(tmp_path, f"model={model}", "model.n_components=2", base=TRACES)
    metrics = record(tmp_path)["metrics"]
    assert metrics["test/rates_r2"] > least and metrics["test/co_r2"] > least


def test_as_baselines_they_have_as_many_latents_as_the_model(tmp_path):
    run = [*TRACES, "model=lstm_autoencoder", "trainer.max_epochs=1"]
    run.remove("baselines=null")
    found = {}
    for n in (1, 2):
        here(tmp_path / str(n), f"model.latent_dim={n}", base=run)
        found[n] = record(tmp_path / str(n))["baselines"]
    assert found[1]["pca"]["val"]["mse"] > 2 * found[2]["pca"]["val"]["mse"]
    assert found[1]["mean"] == found[2]["mean"]
    assert set(found[1]) == {"zero", "constant", "mean", "pca", "fa"}
    here(tmp_path / "pca", "model=pca", "model.n_components=2", base=TRACES)
    expected = {name.split("/")[1]: v for name, v in record(tmp_path / "pca")["metrics"].items() if "val/" in name}
    assert found[2]["pca"]["val"] == pytest.approx({k: v for k, v in expected.items() if k != "loss"}, rel=1e-6)


@pytest.mark.parametrize("model", [PCA, FactorAnalysis])
def test_planes_may_have_components_of_their_own(model):
    """Two planes with unrelated loadings: their own maps equal two separate fits, and one map serves them worse."""
    parts = [planted(n=1000, seed=seed)[0].float().unflatten(0, (20, 50)) for seed in (1, 2)]
    x, plane = torch.cat(parts), torch.arange(2).repeat_interleave(20)
    batch = {"inputs": x[..., :15], "targets": x, "mask": torch.ones_like(x, dtype=torch.bool), "condition": plane}
    own, shared = (model(spec(15, 5, decode_groups=2), n_components=3, per_plane=which) for which in (True, False))
    for fitted in (own, shared):
        fitted.fit_net(OneBatch([batch]))
    rates = call_network(own.net, batch)["rates"]
    for k, part in enumerate(parts):
        alone = model(spec(15, 5), n_components=3)
        alone.fit_net(dataset(part, 15))
        torch.testing.assert_close(rates[plane == k], alone.net(part[..., :15])["rates"])
    errors = [(call_network(net, batch)["rates"] - x).square().mean() for net in (own.net, shared.net)]
    assert errors[0] < 0.5 * errors[1]


# ---- spikes

SPIKES = [word for word in TINY if not word.startswith("model")] + ["model=fa", "model.n_components=2"]


def test_spikes_are_read_out_by_a_poisson_regression(tmp_path):
    """Forward bins too; and the targets of validation and test trials change nothing."""
    poison = ",".join(f"{split}.{part}:3.0" for split in ("val", "test") for part in ("heldout", "heldin_forward"))
    folders = [
        here(tmp_path / name, *words, base=SPIKES).folder
        for name, words in (("clean", []), ("poisoned", [f"++data.poison={{{poison}}}"]))
    ]
    assert same(*(checkpoint(folder, "best.ckpt")["state_dict"] for folder in folders))
    clean, poisoned = (record(folder)["metrics"] for folder in folders)
    assert clean["val/co_bps"] != poisoned["val/co_bps"], "the poison is there"
    assert clean["test/co_bps"] > 0.02 and clean["val/fp_bps"] > -0.2


def test_the_factors_of_spikes_see_the_smoothed_roots():
    net = SpikeFactorsNet(DataSpec("x", n_in=6, n_out=4, n_forward=3), 2, 2, max_iterations=50)
    counts = torch.poisson(torch.full((8, 9, 6), 2.0), generator=torch.Generator().manual_seed(0)).double()
    net.kernel_sd.fill_(1.5)
    net.learn(counts)
    smooth = gaussian_smooth(counts.sqrt(), torch.tensor(1.5).double())
    factors, _ = factor_analysis(smooth.flatten(0, 1), 2, max_iterations=50)
    latents = net.infer(counts, 3)
    torch.testing.assert_close(latents[:, :9], (smooth - factors.mean) @ factors.encoder)
    torch.testing.assert_close(latents[:, 9:], latents[:, 8:9].expand(-1, 3, -1))
    assert FactorAnalysis.refuse(DataSpec("x", n_in=6, n_forward=2)) is None
