"""LFADS in training: what it must not know, its loss and ramps, traces, and runs."""

import math
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, here, rows
from test_lfads import AUTONOMOUS, CONTROLLED, counts, net
from test_poison import HIDDEN, tiny

from neuro_lightning.analysis.latents_file import read_latents
from neuro_lightning.contracts import DataSpec
from neuro_lightning.errors import ConfigError
from neuro_lightning.losses import gamma, zero_inflated_gamma
from neuro_lightning.models.lfads import LFADS, ramp, scored_fraction
from neuro_lightning.models.loading import load_checkpoint
from neuro_lightning.nn.masking import CoordinatedDropout
from neuro_lightning.runs.predict import predict

SMALL = [f"model.sizes.{name}=4" for name in vars(CONTROLLED) if name != "inputs"]
QUICK = ["trainer.max_epochs=6", "model.optimizer.lr=0.05", "model.masking=null", "model.dropout=0"]
WEIGHTS = {"kl_ic": 0.1, "kl_co": 0.2, "l2_gen": 0.3, "l2_con": 0.4}


def module(spec: DataSpec, **options) -> LFADS:
    torch.manual_seed(0)
    fixed = {
        "sizes": CONTROLLED,
        "step_ms": None,
        "dropout": 0.0,
        "posterior_samples": 4,
        "ramp_start": 2,
        "ramp_epochs": 3,
    }
    return LFADS(spec, **{**fixed, **WEIGHTS, **options})


# ---- what must not be known


@pytest.mark.parametrize("poison", [math.nan, 1e30])
def test_what_is_predicted_never_reaches_the_input(poison):
    clean, poisoned = tiny({}), tiny({f"val.{name}": poison for name in HIDDEN})
    model = module(clean.spec).eval()
    for one, other in zip(clean.eval_dataloader("val"), poisoned.eval_dataloader("val"), strict=True):
        assert torch.equal(model(one["inputs"])["log_rates"], model(other["inputs"])["log_rates"])


def test_what_is_hidden_and_scored_does_not_reach_its_prediction():
    """Through the whole training step, with a controller that looks at bins before and after."""
    data = tiny({})
    batch = next(iter(data.train_dataloader()))
    model = module(data.spec, masking=CoordinatedDropout(0.3))
    inputs = batch["inputs"].clone().requires_grad_()
    shown = {}
    model.masking.register_forward_hook(lambda _, __, result: shown.update(hidden=result[1]))
    model.training_step({**batch, "inputs": inputs}, 0).backward()
    assert (inputs.grad[shown["hidden"]] == 0).all() and (inputs.grad[~shown["hidden"]] != 0).any()


# ---- the loss


def test_weights_rise_as_published():
    assert [ramp(epoch, 0, 80) for epoch in (0, 40, 80, 200)] == [1 / 81, 41 / 81, 1, 1]
    assert [ramp(epoch, 2, 3) for epoch in range(7)] == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert ramp(0, 0, 0) == 1


def test_terms_are_weighted_by_the_epoch():
    data = tiny({})
    terms = {name: torch.tensor(value) for name, value in zip(WEIGHTS, (1.0, 10.0, 100.0, 1000.0), strict=True)}
    model = module(data.spec)
    full = sum(WEIGHTS[name] * float(terms[name]) for name in WEIGHTS)
    for epoch, share in enumerate((0, 0, 0.25, 0.5, 0.75, 1, 1)):
        model._trainer = SimpleNamespace(current_epoch=epoch)
        assert float(model.weight_loss_terms(terms)) == pytest.approx(share * full)


def test_divergences_keep_their_weight_whatever_is_scored():
    """Published losses are divided by all elements of the targets, ours by those that are scored."""
    spec = DataSpec("d", n_in=6, n_out=2, n_bins=10, n_forward=3)
    scored = 0.3 * 10 * 6 + 10 * 2 + 3 * 8
    assert scored_fraction(spec, 0.3) == pytest.approx(scored / (13 * 8)) and scored_fraction(spec, 0) == 1
    model = module(spec, masking=CoordinatedDropout(0.3))
    assert model.weights["kl_co"] == pytest.approx(0.2 * 13 * 8 / scored) and model.weights["l2_gen"] == 0.3


@pytest.mark.parametrize("sizes", [CONTROLLED, AUTONOMOUS])
def test_terms_of_a_training_step(sizes):
    losses = net(sizes).train()(counts())["losses"]
    assert set(losses) == (set(WEIGHTS) if sizes.controlled else {"kl_ic", "l2_gen"})
    assert losses["kl_ic"] > 0
    torch.testing.assert_close(losses["l2_gen"], net(sizes).core.generator.cell.weight_hh.square().mean() / 2)


# ---- traces


TRACES = DataSpec("t", kind="traces", n_in=6, n_bins=10, bin_ms=1000, mean_rates=(0.5,) * 6)


def test_longer_sequences_are_read_in_windows():
    model = module(TRACES).eval()
    longer = counts(2, 25)
    output = model(longer)
    assert output["rates"].shape == (2, 25, 6) and output["inferred_inputs"].shape == (2, 25, 2)
    assert "initial_condition" not in output
    torch.testing.assert_close(output["rates"][:, :10], model(longer[:, :10])["rates"])


@pytest.mark.parametrize(
    ("loss", "names"), [(gamma, ["log_shape"]), (zero_inflated_gamma, ["log_shape", "gate_logit"])]
)
def test_losses_of_several_parameters(loss, names):
    model = module(TRACES, loss=loss)
    targets = torch.rand(4, 10, 6).sub(0.3).clamp_min(0)
    output = model.net(targets)
    assert set(output) == {"log_rates", *names, "losses"}
    total, _ = loss(output, targets, torch.ones_like(targets, dtype=torch.bool), TRACES)
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(model.eval()(targets)["log_rates"].exp().mean(), torch.tensor(0.5), atol=0.1, rtol=0)


def test_counts_have_no_gamma_likelihood(tmp_path):
    with pytest.raises(ConfigError, match="loss=gamma is for traces") as refused:
        run(tmp_path, "data=tiny", "loss@model.loss=gamma")
    assert "\n" not in str(refused.value)


# ---- runs


def run(folder, *words):
    kept = [word for word in TINY if not word.startswith(("data=", "model", "trusted"))]
    return here(folder, *SMALL, *words, base=[*kept, "trusted=[tiny,tiny_traces]", "model=lfads"])


def test_a_run_learns_and_its_terms_are_logged(tmp_path):
    finished = run(tmp_path, "data=tiny", *QUICK)
    found = rows(finished.folder)
    assert float(found[-1]["train/loss"]) < float(found[0]["train/loss"])
    assert all(float(row[f"train/{name}"]) > 0 for row in found for name in WEIGHTS)
    saved = load_checkpoint(finished.folder, trusted=["tiny"])
    inputs = torch.ones(2, 12, 6)
    assert torch.equal(saved.model(inputs)["log_rates"], saved.model(inputs)["log_rates"])


@pytest.mark.parametrize("words", [[], ["loss@model.loss=gaussian_variance"]])
def test_traces_fit(tmp_path, words):
    finished = run(tmp_path, "data=tiny_traces", *QUICK, *words)
    found = [float(row["train/loss"]) for row in rows(finished.folder)]
    assert np.isfinite(found).all() and found[-1] < found[0]


@pytest.mark.parametrize("data", ["tiny", "tiny_traces"])
def test_what_was_inferred_is_written_beside_the_latents(tmp_path, data):
    run(tmp_path, f"data={data}", "trainer.max_epochs=1")
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("predict", overrides=["trusted=[tiny,tiny_traces]", f"ckpt={tmp_path}", "output=latents"])
    saved = load_checkpoint(tmp_path, trusted=[data])
    with h5py.File(predict(cfg)) as file:
        for split in ("train", "val", "test"):
            found = {name: file[split][name][()] for name in file[split]}
            trials, bins, _ = found["latents"].shape
            assert found["latents"].shape[2] == 4 and found["inferred_inputs"].shape == (trials, bins, 4)
            if data == "tiny" or split == "train":  # a sequence that is read in windows has no beginning of its own
                assert found["initial_condition"].shape == (trials, 4)
            else:
                assert "initial_condition" not in found
    batch = next(iter(tiny({}).eval_dataloader("test"))) if data == "tiny" else None
    if batch is not None:
        own = saved.model(batch["inputs"])["inferred_inputs"]
        np.testing.assert_allclose(found["inferred_inputs"][: len(own)], own.detach().numpy(), atol=1e-5)
    assert read_latents(tmp_path, ["train"]).values.shape[2] == 4
