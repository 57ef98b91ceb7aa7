"""Every config composes, names real targets, and no key goes unconsumed."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from neuro_lightning.errors import ConfigError
from neuro_lightning.models.loading import check_saved
from neuro_lightning.settings.config import check_config, instantiate, to_plain
from neuro_lightning.settings.settings import PredictSettings, TrainSettings

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    output = tmp_path_factory.mktemp("run")

    def make(*overrides, name="train"):
        needed = ["data.path=some.nwb"] if {"data=nwb", "data=lfads_h5"} & set(overrides) else []
        where = [f"paths.output_dir={output}"] if name == "train" else ["ckpt=x"]
        return compose(name, overrides=[*needed, *overrides, *where])

    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield make


# one of each kind of data: a dataset reaches the rest of the config through its kind's score alone
KINDS = {"lorenz": "spikes", "stringer_spontaneous": "traces", "antolik_v1": "responses", "uwndc19": "masked_responses",
         "bwb": "deviance"}  # fmt: skip


def check_pairs(composed, pairs):
    for data, model in pairs:
        cfg = composed(f"data={data}", f"model={model}")
        check_config(cfg, known=TrainSettings.config_keys())
        config = to_plain(cfg)
        for key in ("data", "model"):  # as a checkpoint brings them along
            check_saved(Path("a.ckpt"), key, config[key])


def test_every_dataset_and_every_model_composes(composed):
    assert set(KINDS.values()) == set(names("score"))
    check_pairs(composed, [(data, "gru") for data in names("data")])
    check_pairs(composed, [(list(KINDS)[i % 4], model) for i, model in enumerate(names("model"))])


@pytest.mark.rare
def test_every_dataset_meets_every_model(composed):
    pairs = list(itertools.product(names("data"), names("model")))
    assert len(pairs) >= 22
    check_pairs(composed, pairs)


@pytest.mark.parametrize("group", ["trainer", "callbacks", "logger", "debug", "experiment"])
def test_every_choice_of_every_other_group(composed, group):
    for name in names(group):
        needs_file = "/data: nwb" in (CONF / group / f"{name}.yaml").read_text()
        cfg = composed(f"{group}={name}", *(["data.path=some.nwb"] if needs_file else []))
        check_config(cfg, known=TrainSettings.config_keys())
        to_plain(cfg)


@pytest.mark.parametrize("group", ["optimizer", "scheduler"])
def test_every_optimizer_and_schedule(composed, group):
    for name in names(group):
        check_config(composed(f"{group}@model.{group}={name}"), known=TrainSettings.config_keys())


def test_predict_composes(composed):
    check_config(composed(name="predict"), known=PredictSettings.config_keys())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+model.hiden=3", "model.hiden: GRU takes no such argument; it takes .*hidden"),
        ("+model.optimizer.lrr=1", "model.optimizer.lrr: AdamW takes no such argument"),
        ("+trainer.max_epoch=2", "trainer.max_epoch: Trainer takes no such argument"),
        ("+data.bin_width=5", "data.bin_width: .* takes no such argument"),
        ("+callbacks.checkpoint.best=1", "callbacks.checkpoint.best"),
        ("+sead=1", "sead: no such key; the top level has .*seed"),
        ("model._target_=neuro_lightning.models.gru.LSTM", "cannot be imported"),
        ("model._target_=os.system", "not in a trusted package"),
    ],
)
def test_a_key_that_nothing_consumes_is_refused(composed, override, message):
    with pytest.raises(ConfigError, match=message):
        check_config(composed(override), known=TrainSettings.config_keys())


def test_a_missing_key_is_named(composed):
    cfg = composed("model=gru")
    with open_dict(cfg):
        del cfg.model["hidden"]
    with pytest.raises(ConfigError, match="model: GRU needs the key 'hidden'"):
        check_config(cfg, known=TrainSettings.config_keys())


def test_a_value_that_must_be_given_is_named(composed):
    with pytest.raises(ConfigError, match=r"data.path must be given, as in `data.path=...`"):
        to_plain(composed("data=nwb", "data.path=???"))


def test_nothing_outside_the_trusted_packages_is_built():
    with pytest.raises(ConfigError, match="trusted"):
        instantiate(OmegaConf.create({"_target_": "subprocess.check_output", "args": ["true"]}))
    built = instantiate(OmegaConf.create({"_target_": "fractions.Fraction", "numerator": 3}), trusted=["fractions"])
    assert built == 3


def test_an_objects_own_complaint_comes_through():
    masking = {"_target_": "neuro_lightning.nn.masking.CoordinatedDropout", "rate": 2.0}
    with pytest.raises(ConfigError, match=r"^model.masking: masking.rate must lie in \[0, 1\)"):
        instantiate(OmegaConf.create({"model": {"masking": masking}}).model)
    with pytest.raises(ConfigError, match=r"^model: '<=' not supported"):
        instantiate(OmegaConf.create({"model": {**masking, "rate": "much"}}).model)


def test_the_command_line_answers_without_heavy_imports():
    code = (
        "import sys; sys.argv = ['train.py', '--cfg', 'job']\n"
        "from neuro_lightning.cli import train\n"
        "try: train()\n"
        "finally: print('HEAVY', [m for m in ('torch', 'numpy', 'pandas', 'pytorch_lightning', 'wandb', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "model:" in done.stdout and "HEAVY []" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.max_epochs=ten", "trainer.max_epochs=ten: must be a whole number or null"),
        ("model.hidden=null", "model.hidden=null: must be a whole number"),
        ("model.hidden=abc", "model.hidden=abc: must be a whole number"),
        ("model.hidden=64.5", "model.hidden=64.5: must be a whole number"),
        ("model.bidirectional=maybe", "model.bidirectional=maybe: must be true or false"),
        ("model.optimizer.lr=fast", "model.optimizer.lr=fast: must be a number"),
        ("model.masking=coordinated", "model.masking=coordinated: must be a part of its own"),
        ("model.readin=linear", "(ReadInSettings); groups are chosen as in readin@model.readin=linear"),
        ("model.readout=5", "its keys are typed one by one, as in model.readout.dropout=..."),
        ("data.sizes=n_train:10", "(Sizes); its keys are typed one by one, as in data.sizes.n_train=..."),
        ("model.masking=coordinated", "masking@model.masking=coordinated"),
        ("data.batch_size=true", "data.batch_size=True: must be a whole number"),
        ("data.sizes.n_in=few", "data.sizes.n_in=few: must be a whole number"),
        ("data.batch_size=[1,2]", "data.batch_size=[1, 2]: must be a whole number"),
        ("callbacks.figures.n_trials=some", "callbacks.figures.n_trials=some: must be a whole number"),
    ],
)
def test_values_of_a_wrong_type_are_named_as_typed(composed, word, message):
    with pytest.raises(ConfigError) as caught:
        check_config(composed(word), known=TrainSettings.config_keys())
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2, "one line for the one value"


def test_a_value_that_is_taken_from_elsewhere_is_named_where_it_was_typed():
    import torch
    from omegaconf import OmegaConf

    from neuro_lightning.settings.types import wrong_types

    cfg = OmegaConf.create({"size": "big", "layer": {"_target_": "x", "in_features": "${size}", "bias": 3}})
    lines = wrong_types("layer", cfg.layer, torch.nn.Linear)
    assert lines == ["size=big: must be a whole number", "layer.bias=3: must be true or false"]
