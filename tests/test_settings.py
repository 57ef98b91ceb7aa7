"""The settings of a run: resolved once, and never changed."""

from dataclasses import FrozenInstanceError

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ReadonlyConfigError
from runs import ROOT

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.settings import PredictSettings, TrainSettings


def composed(*words, name="train"):
    with initialize_config_dir(str(ROOT / "conf")):
        return compose(name, overrides=[*([] if name == "predict" else ["paths.output_dir=out"]), *words])


def test_every_key_of_the_config_is_a_field():
    """A key that is added to conf/train.yaml or conf/predict.yaml must be added to the settings, and the other way."""
    assert TrainSettings.config_keys() == set(composed())
    assert PredictSettings.config_keys() == set(composed("ckpt=x", name="predict"))


def test_settings_cannot_be_changed():
    cfg = composed("model.hidden=7", "tags=[a]")
    settings = TrainSettings.resolve(cfg, overrides=["model.hidden=7"])
    with pytest.raises(FrozenInstanceError):
        settings.seed = 1
    with pytest.raises(ReadonlyConfigError):
        settings.model.hidden = 8
    cfg.model.hidden = 9
    assert settings.model.hidden == settings.config["model"]["hidden"] == 7 and settings.tags == ["a"]
    assert isinstance(settings.callbacks, DictConfig) and settings.overrides == ["model.hidden=7"]


def test_what_refers_to_a_changed_setting_changes_with_it():
    settings = TrainSettings.resolve(composed(), group="sweep")
    longer = settings.changed({"epochs": 7})
    assert (longer.trainer.max_epochs, longer.group) == (7, "sweep") and settings.trainer.max_epochs == 100


def test_what_is_missing_or_unknown_is_refused():
    with pytest.raises(ConfigError, match=r"data\.path must be given"):
        TrainSettings.resolve(composed("data=nwb", "data.path=???"))
    with pytest.raises(ConfigError, match="epoch: no such key"):
        TrainSettings.resolve(composed("+epoch=3")).check()
    with pytest.raises(ConfigError, match="seed=-1: give a whole number"):
        TrainSettings.resolve(composed("seed=-1")).check()
