"""What a newcomer types: each mistake is one line that says what to type in its place."""

import shlex

import pytest
from hydra._internal.utils import get_args_parser

from neuro_lightning.cli import CONF, compose_config, predict_arguments, train_arguments
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.help_page import help_page
from neuro_lightning.settings.quoting import typed_value
from neuro_lightning.settings.typed_words import HYDRA_FLAGS, parse_words

TRAIN = [
    ("--model=gru", "--model=gru: no such flag; settings are written without dashes, model=gru"),
    ("-model=gru", "no such flag; .* model=gru"),
    ("--epochs 3", "without dashes, epochs=[.]"),
    ("model gru", "'model' is no override, which are KEY=VALUE$"),
    ("data = lorenz", "without spaces around the =$"),
    ("outputs/nwb/gru/today", "give the key of this path"),
    ("model=gru,ndt", r"^model=gru,ndt: several values are a sweep, .*; a list is 'model=\[gru,ndt\]'"),
    ("data.path=a,b.nwb data=nwb", "text with commas \"data.path='a,b.nwb'\"$"),
    ("seed=range(3)", "train.py -m seed=range.3.$"),
    ("model=null", "^model=null: no such option; there are cnn, "),
    ("data=true", "^data=true: no such option; there are "),
    ("debug=1", "there are fast, limit, overfit, profile; for none leave debug out, or write ~debug"),
    ("sweep=null", "no such option"),
    ("~data", "^~data: a run needs data=[.]"),
    ("model=GRU", "did you mean 'gru'"),
    ("data=session.nwb", "a file of your own is data=nwb data.path=FILE"),
    ("data=/there/session.h5", "data=lfads_h5 .[.]h5.*; there are antolik_v1"),
    ("data=nwb data.path=~/a.nwb", "write data.path=[$]HOME/a.nwb"),
    ("data=nwb data.path=/a=b/c.nwb", "needs quotes of its own: \"data.path='/a=b/c.nwb'\"$"),
    ("lr=1", "^lr: no such key; did you mean model.optimizer.lr[?] there are adapt"),
    ("model.lr=1", "^model.lr: no such key; did you mean model.optimizer.lr[?] there are bidirectional"),
    ("batch_size=3", "did you mean data.batch_size[?]"),
    ("experiment=few_images data=images channels=3", "did you mean model.core.channels[?]"),
    ("bin_width=3", "^bin_width: no such key; there are adapt"),
    ("optimizer=adam", "^Could not override 'optimizer'. Did you mean to override optimizer@model.optimizer[?]$"),
    ("-m seed=0,1 trainer.max_epoch=1", "^trainer.max_epoch: no such key; did you mean 'max_epochs'"),
    ("--resolve", "--resolve goes with --cfg job"),
]  # fmt: skip
PREDICT = [
    ("ckpt", "'ckpt' is no override"),
    ("--ckpt=a", "without dashes, ckpt=a"),
    ("-m ckpt=a", "^-m is for train.py; .*'ckpt=.RUN,RUN.'"),
    ("ckpt=a,b", r"a list is 'ckpt=\[a,b\]'"),
    ("ckpt=a model=gru", "^model=gru: predict.py takes model from the checkpoint$"),
    ("ckpt=a data=mc_rtt", "takes data from the checkpoint; keys of the data can be given, such as data.path=FILE"),
    ("ckpt=a file=~/b.h5", "write file=[$]HOME/b.h5"),
    ("ckpt=a phase=test", "did you mean data.phase[?]"),
]  # fmt: skip


def compose(command: str, words: list[str]) -> None:
    """What the command does with its words before it begins."""
    words = (train_arguments if command == "train" else predict_arguments)(words)
    compose_config(command, [word for word, parsed in parse_words(words) if not parsed.is_sweep_override()])


@pytest.mark.parametrize(
    ("command", "words", "message"), [("train", *case) for case in TRAIN] + [("predict", *case) for case in PREDICT]
)
def test_a_mistake_is_one_line_that_says_what_to_type(command, words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose(command, words.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    ["-m model=plds,gpfa model.iterations=3", "-m data.path='a,b' data=nwb", "~logger"],
)  # fmt: skip
def test_what_is_right_passes(words):
    compose("train", words.split())


def test_the_words_that_an_error_proposes_can_be_typed():
    for path in ("/a=b/c.nwb", "it's=1.nwb", "a=$b.nwb"):
        with pytest.raises(ConfigError) as caught:
            train_arguments(["data=nwb", f"data.path={path}"])
        proposed = shlex.split(str(caught.value).rpartition("of its own: ")[2])
        assert typed_value(train_arguments(["data=nwb", *proposed]), "data.path") == path


def test_every_flag_of_hydra_is_known():
    flags = {flag for action in get_args_parser()._actions for flag in action.option_strings}
    assert flags == set(HYDRA_FLAGS), "Hydra's flags have changed: bring HYDRA_FLAGS up to date"


def test_help_refuses_a_group_that_is_not_there():
    with pytest.raises(ConfigError, match=r"^--help models: no such group; did you mean 'model'[?]"):
        help_page("train", "train.py", CONF, ["--help", "models"])
    assert help_page("train", "train.py", CONF, ["model=ndt", "--help"]).startswith("Commands")
