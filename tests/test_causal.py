"""Causal configurations, through whole training steps: what comes later changes nothing about what is said of a bin."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ROOT, TINY, same
from tiny import BINS, FORWARD, N_IN, N_OUT

from neuro_lightning.contracts import DataSpec
from neuro_lightning.settings.config import instantiate

N = N_IN + N_OUT
GRU = ["model=gru", "model.hidden=6", "model.bidirectional=false"]
NDT = ["model=ndt", "model.width=8", "model.layers=2", "model.feedforward=7", "model.attention.context_forward_ms=0"]
STNDT = ["model=stndt", *NDT[1:]]
CONFIGS = {
    "gru": GRU,
    "gru, a step a bin": [*GRU, "model.step_ms=null"],
    "gru, three bins a step": [*GRU, "model.step_ms=30"],
    "gru, embedded counts": [*GRU, "readin@model.readin=embedding", "model.masking.rescale=false"],
    "gru_smoothed": ["model=gru_smoothed", *GRU[1:]],
    "gru, 30 ms late": [*GRU, "model.fixed_lag_ms=30"],
    "ndt": NDT,
    "ndt, 30 ms late": [*NDT, "model.fixed_lag_ms=30"],
    "ndt, a step a bin": [*NDT, "model.step_ms=null"],
    "ndt, three bins a step": [*NDT, "model.step_ms=30"],
    "ndt, as published": [*NDT, "readin@model.readin=identity", "model.width=null", "model.attention_heads=2",
                          "model.positions=sinusoidal", "model.pre_norm=false", "model.attention.reach_ms=null"],
    "ndt, a window back": [*NDT, "model.attention.context_backward_ms=40"],
    "ndt, counts and smoothed": [*NDT, "readin@model.readin=counts_and_smoothed"],
    "ndt, masked steps": [*NDT, "masking@model.masking=random", "model.masking.max_span=2"],
    "ndt, masked elements": [*NDT, "masking@model.masking=full"],
    "ndt, coordinated dropout": [*NDT, "masking@model.masking=coordinated"],
    "stndt": STNDT,
    "stndt, 30 ms late": [*STNDT, "model.fixed_lag_ms=30"],
    "stndt, a step a bin": [*STNDT, "model.step_ms=null"],
    "stndt, channels are neurons": [*STNDT, "readin@model.readin=linear", "model.width=null",
                                    "model.attention_heads=2"],
    "smoothing": ["model=smoothing", "model.causal=true"],
    "plds": ["model=plds", "model.causal=true"],
    "gpfa": ["model=gpfa", "model.causal=true"],
    "mean": ["model=mean"],
}  # fmt: skip
WITHOUT_SUMS = (
    "gru, a step a bin",
    "plds",
    "gpfa",
    "mean",
)  # over time: in others a weight of zero meets the poison, as NaN


def model_of(name: str, partial: bool = False):
    """A configured model with random weights, as a run on the tiny recording would build it."""
    words = [word for word in TINY if not word.startswith("model")]
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("train", overrides=[*words, *CONFIGS[name]])
    spec = DataSpec("tiny", n_in=N_IN, n_out=N_OUT, n_bins=BINS, n_forward=FORWARD, bin_ms=10, mean_rates=(0.3,) * N,
                    partial=partial)  # fmt: skip
    torch.manual_seed(0)
    model = instantiate(cfg.model, spec=spec)
    model = model if name == "smoothing" else model.double()
    for weight in (*model.net.parameters(), *model.net.buffers()):
        if weight.is_floating_point() and not weight.any():  # what training or a fit begins at zero
            torch.nn.init.normal_(weight)
    return model


def said(model, inputs: torch.Tensor, observed: torch.Tensor | None = None, masked: bool = False) -> torch.Tensor:
    """Log-rates (B, L, N); with masking and dropout as of a training step, which draw the same each time."""
    given = () if observed is None else (observed,)
    torch.manual_seed(1)
    if masked and model.masking is not None:
        inputs, _ = model.masking(inputs, *given)
    return model.net(inputs, *given)["log_rates"]


def counts() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.poisson(torch.ones(4, BINS, N_IN)).double()


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", CONFIGS)
def test_later_counts_change_nothing(name, training):
    """Bit for bit, with the masking and the dropout of a training step, too; and later bins do see them."""
    model = model_of(name).train(training)
    assert not model.net.looks_ahead
    before = said(model, counts(), masked=training)
    for t in (1, 5, 9, 10, 11):
        seen = max(0, t - model.net.lag)
        for poison in (math.nan, 1e4) if name in WITHOUT_SUMS else (1e4,):
            poisoned = counts()
            poisoned[:, t:] = poison
            after = said(model, poisoned, masked=training)
            assert same(before[:, :seen], after[:, :seen])
            assert name == "mean" or not same(before[:, seen:], after[:, seen:])


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith(("gru", "ndt", "stndt", "smoothing"))])
def test_missing_later_counts_change_nothing(name):
    """Whether later bins were recorded does not matter, as long as the trial goes on."""
    model = model_of(name, partial=True).eval()
    there = torch.rand(4, BINS, N_IN, generator=torch.Generator().manual_seed(0)) < 0.7
    there[:, -1] = True
    before = said(model, counts(), there)
    for t in (2, 6, 10):
        other = there.clone()
        other[:, t:-1] = ~other[:, t:-1]
        seen = max(0, t - model.net.lag)
        assert same(before[:, :seen], said(model, counts(), other)[:, :seen])


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if "embedded" not in name and name not in ("mean", "plds", "gpfa")]
)
def test_no_gradient_comes_from_later_counts(name):
    """In training the loss of a bin is made smaller by what came before it alone."""
    model = model_of(name).train()
    inputs = counts().requires_grad_()
    log_rates = said(model, inputs, masked=True)
    for t in (5, 9):
        (slope,) = torch.autograd.grad(log_rates[:, : t - model.net.lag].sum(), inputs, retain_graph=True)
        assert (slope[:, t:] == 0).all() and (slope[:, :t] != 0).any()
