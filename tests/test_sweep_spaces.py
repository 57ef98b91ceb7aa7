"""The published spaces: every one composes with the models' keys, and holds the published figures."""

import math
from functools import cache

import optuna
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, IntDistribution
from runs import ROOT

from neuro_lightning.settings.config import check_config
from neuro_lightning.settings.settings import TrainSettings
from neuro_lightning.sweeps.search.space import read_space

NAMES = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml"))
DROPOUTS = ("model.dropout.embedding", "model.dropout.layers", "model.readout.dropout")
CONTEXT = ("model.attention.context_forward_ms", "model.attention.context_backward_ms")
BIN_MS = 5

# the papers' ranges in their own units: bins and epochs are turned into ms and shares below
NDT = {
    **dict.fromkeys(DROPOUTS, (0.3, 0.7)),
    **dict.fromkeys(CONTEXT, (10 * BIN_MS, 100 * BIN_MS)),
    "model.optimizer.lr": (1e-5, 5e-3),
    "model.optimizer.weight_decay": (1e-8, 1e-3, "log"),
    "model.scheduler.warmup": (0, 0.04),  # 2,000 of 50,501 epochs
    "model.masking.ratio": (0.1, 0.4),
    "model.masking.token_ratio": (0.5, 1, "log"),
    "model.masking.random_ratio": (0.8, 1),
    "model.masking.max_span": (1, 7),
}
AREA2 = {
    **NDT,
    **dict.fromkeys(DROPOUTS, (0.2, 0.6)),
    **dict.fromkeys(CONTEXT, (4 * BIN_MS, 100 * BIN_MS)),
    "model.masking.random_ratio": (0.9, 1),
    "model.masking.max_span": (1, 5),
}
AREA2.pop("model.scheduler.warmup")  # fixed
STNDT = {
    "model.dropout.embedding": (0, 0.6),
    "model.dropout.layers": (0, 0.4),
    "model.readout.dropout": (0, 0.4),
    **dict.fromkeys(CONTEXT, (1 * BIN_MS, 100 * BIN_MS)),
    "model.optimizer.lr": (1e-5, 1e-2, "log"),
    "model.scheduler.warmup": (0, 0.139),  # 7,000 of 50,501 epochs
    "model.contrast.weight": (0.01, 1),
    "model.contrast.ratio": (0.05, 0.2),
    "model.masking.ratio": (0.1, 0.4),
    "model.masking.token_ratio": (0.5, 1, "log"),
    "model.masking.random_ratio": (0.3, 1),
    "model.masking.max_span": (1, 7),
}
RANGES = {
    "ndt_bayes": NDT,
    "ndt_bayes_area2": AREA2,
    "ndt_bayes_dmfc": {
        **NDT, **dict.fromkeys(CONTEXT, (40 * BIN_MS, 240 * BIN_MS)), "model.masking.random_ratio": (0.9, 1)
    },
    "stndt_bayes": STNDT,
    "stndt_bayes_rtt": {**STNDT, "model.optimizer.lr": (1e-4, 1e-1, "log")},
    "stndt_bayes_area2": {**STNDT, **dict.fromkeys(DROPOUTS, (0, 0.6)), "model.masking.ratio": (0.1, 0.6)},
    "lfads_random": {
        "model.optimizer.lr": (1e-5, 5e-3, "log"),
        "model.dropout": (0, 0.6),
        "model.masking.rate": (0.01, 0.7),
        "model.kl_co": (1e-6, 1e-4, "log"),
        "model.kl_ic": (1e-6, 1e-3, "log"),
        "model.l2_gen": (1e-4, 1, "log"),
        "model.l2_con": (1e-4, 1, "log"),
    },
    "nmas_lstm": {"model.optimizer.lr": (math.exp(-9.9), math.exp(-5.3), "log")},
    "few_trials": {
        "model.readin.dropout": (0.1, 0.7),
        "model.layer_dropout": (0.2, 0.7),
        "model.readout.dropout": (0.2, 0.7),
        "model.masking.low": (0.05, 0.3),
        "model.masking.high": (0.5, 0.9),
        "model.optimizer.lr": (1e-3, 1e-2, "log"),
        "model.optimizer.weight_decay": (1e-3, 3e-1, "log"),
    },
}  # fmt: skip
MAKIN = {
    "model.optimizer.lr": [5e-4, 1e-3, 5e-3, 1e-2, 1.5e-2],
    "model.optimizer.weight_decay": [0, 5e-8, 5e-7],
    "model.hidden": [32, 40, 64],
    "model.layers": [1, 2, 3],
    "model.masking.rate": [0.25, 0.27, 0.3],
}
CHOICES = {
    "few_trials": {"model.hidden": [40, 64, 96]},
    "rnnf_grid": {**MAKIN, "model.readin.dropout": [0.46, 0.5, 0.6]},
    "roberta_grid": {**MAKIN, "model.dropout": [0.46, 0.5, 0.6]},
    "nmas_lstm": {
        "model.optimizer.weight_decay": [0, 1e-5, 5e-5, 1e-6],
        "model.latent_dim": [50, 75, 100, 125, 150],
        "model.dropout": [0.1, 0.2, 0.3, 0.5],
    },
    "antolik_lr": {"model.optimizer.lr": [1e-5, 1e-4, 5e-4, 1e-3, 5e-3]},
    "antolik_dropout": {"model.hidden.dropout": [0, 0.05, 0.1, 0.2, 0.4, 0.5], "model.hidden.units": [0.2, 0.3, 0.4]},
    "antolik_l1": {"model.output.reg.l1": [*(10.0**e for e in range(-9, 2))]},
    "antolik_l2": {"model.output.reg.l2": [*(10.0**e for e in range(-9, 2))]},
    "antolik_l2_apart": {
        "model.hidden.reg.l2": [0, 0.05, 0.1, 0.5],
        "model.output.reg.l2": [0, 0.05, 0.1, 0.5],
        "model.hidden.units": [0.2, 0.3],
    },
    "antolik_sizes": {"model.hidden.units": [0.05, 0.1, 0.2, 0.3, 0.4], "model.first.units": [4, 9, 15, 20, 30]},
    "antolik_lnln": {
        "model.hidden.units": [0.1, 0.2],
        "model.hidden.reg.d2x": [0, 0.1, 0.5, 1, 10],
        "model.output.reg.l2": [0.1, 0.5],
    },
    "antolik_ln": {"model.output.reg.d2x": [0, 1, 10, 100, 1000, 10000, 100000]},
    "antolik_conv": {
        "model.first.size": [3, 7, 15],
        "model.first.filters": [9, 30],
        "model.first.reg.d2x": [0.01, 0.1],
        "model.hidden.reg.max": [0.01, 0.1, 1],
    },
    "antolik_pooled": {
        "model.first.units": [9, 15, 25],
        "model.hidden.units": [0.2, 0.3],
        "model.output.reg.l2": [0, 0.1, 1],
    },
}
TRIALS = {"few_trials": 30, "ndt_bayes": 100, "stndt_bayes": 120, "lfads_random": 60, "nmas_lstm": 50}


@cache
def composed(name: str, *overrides: str):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", overrides=[f"sweep={name}", *overrides], return_hydra_config=True)


@cache
def space_of(name: str):
    """Without the seeds that some grids repeat: a search has none."""
    params = composed(name).hydra.sweeper.params
    return read_space({key: value for key, value in params.items() if key != "seed"}, [])


def numbers(distribution) -> list[float]:
    """The values of a choice or a range of whole numbers."""
    if isinstance(distribution, CategoricalDistribution):
        return [float(choice) for choice in distribution.choices]
    return list(range(distribution.low, distribution.high + 1, distribution.step))


def checked(name: str, job: list[str]):
    """A job's config, every key of which is consumed."""
    cfg = composed(name, *job).copy()
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    check_config(cfg, known=TrainSettings.config_keys())
    return cfg


def test_the_files_are_the_ones_that_are_checked():
    figures = set(RANGES) | set(CHOICES)
    others = {"lfads_pbt", "ndt_asha", "uwndc19_mutations", "bwb"}  # spaces of their own kind, with tests of their own
    plain = {f"antolik_{name}" for name in (
        "baselines", "scaling", "conv_l2", "conv_separable", "dog_conv", "what_where", "regions"
    )}  # fmt: skip
    assert set(NAMES) - others == figures | plain


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"lfads_pbt", "ndt_asha", "uwndc19_mutations", "bwb"}))
def test_every_space_composes_with_keys_that_are_consumed(name):
    """Sampled values reach the config of the job, within the space's bounds."""
    space = space_of(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask(space.searched)
    job = space.overrides(trial.params)
    cfg, chosen = checked(name, job), composed(name, *job).hydra.runtime.choices
    for key, value in trial.params.items():
        found = chosen[key] if key in chosen else OmegaConf.select(cfg, key)
        assert str(found) == str(value) or float(found) == pytest.approx(float(value), rel=1e-12), key
        assert space.searched[key]._contains(space.searched[key].to_internal_repr(value))


@pytest.mark.parametrize("name", sorted(RANGES))
def test_ranges_are_the_published_ones(name):
    searched = space_of(name).searched
    for key, (low, high, *log) in RANGES[name].items():
        found = searched[key]
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3), key
        assert found.log == bool(log), key
        assert isinstance(found, IntDistribution) == (key in CONTEXT or key.endswith("max_span")), key
    assert set(searched) == set(RANGES[name]) | set(CHOICES.get(name, {}))


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_choices_are_the_published_ones(name):
    searched = space_of(name).searched
    for key, values in CHOICES[name].items():
        assert numbers(searched[key]) == pytest.approx(values), key


@pytest.mark.parametrize(("name", "n"), sorted(TRIALS.items()))
def test_budgets(name, n):
    sweeper = composed(name).hydra.sweeper
    assert sweeper.n_trials == n and sweeper._target_.endswith("sweeper.Search")
    assert sweeper.pruner._target_.endswith("pruners.median")


def test_context_is_whole_bins():
    for key in CONTEXT:
        assert (
            space_of("ndt_bayes").searched[key].step == BIN_MS and space_of("ndt_bayes_dmfc").searched[key].high == 1200
        )


def test_what_is_not_searched():
    """A warm-up that is fixed, dropouts that are one, penalties that are alike, and a thesis's ten seeds."""
    assert "model.scheduler.warmup=0.125" in space_of("ndt_bayes_area2").fixed
    cfg = checked("rnnf_grid", ["model.readin.dropout=0.46"])
    assert cfg.model.layer_dropout == cfg.model.readout.dropout == 0.46
    assert checked("antolik_l2", ["model.output.reg.l2=0.7"]).model.hidden.reg.l2 == 0.7
    assert checked("antolik_l1", ["model.output.reg.l1=0.7"]).model.hidden.reg.l1 == 0.7
    assert all(composed(name).hydra.sweeper.params.seed == "range(0,10)" for name in NAMES if "antolik" in name)
    assert composed("rnnf_grid").hydra.sweeper._target_.endswith("grid.Grid")
    assert math.prod(len(numbers(d)) for d in space_of("rnnf_grid").searched.values()) == 1215
    assert composed("nmas_lstm").model.optimizer._target_ == "torch.optim.Adam"
    assert composed("ndt_bayes", "experiment=ndt_ae").trainer.max_epochs == 50501
