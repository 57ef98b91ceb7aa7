"""What --help prints: the groups a user chooses from, each with a line, and commands that work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import command_here

from neuro_lightning import cli
from neuro_lightning.settings.help_page import COMMANDS, WIDTH, help_page
from neuro_lightning.settings.options import check_options

CONF = Path(cli.CONF)
HIDDEN = {"hydra", "paths", "hydra/sweeper/pruner", "hydra/sweeper/sampler", "hydra/sweeper/scheduler"}
GROUPS = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")} - {".", *HIDDEN}


def printed(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", list(arguments))
    (cli.predict if "predict" in arguments[0] else cli.train)()
    return capsys.readouterr().out


def test_every_group_is_shown_with_a_line(monkeypatch, capsys):
    page = printed(monkeypatch, capsys, "train.py", "--help")
    shown = {line.split()[0] for line in page.splitlines() if line.startswith("  ") and line[2] != " "}
    assert shown >= GROUPS, f"say in conf/train.yaml what these groups are: {GROUPS - shown}"
    assert "data [lorenz]" in page and " _" not in page, "the default is marked, parts of other configs are left out"
    assert max(map(len, page.splitlines())) <= WIDTH


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_option_of_a_group_is_explained(monkeypatch, capsys, group):
    page = printed(monkeypatch, capsys, "train.py", "--help", group)
    rows = [line[2:] for line in page.splitlines()[1:] if line[2] != " "]
    assert {row.split()[0] for row in rows} >= {
        path.stem for path in (CONF / group).glob("*.yaml") if path.stem[0] != "_"
    }
    bare = [row for row in rows if len(row.split()) < 2]
    assert not bare, f"say in the first line of these files of conf/{group} what they are: {bare}"


@pytest.mark.parametrize("words", COMMANDS["train"])
def test_the_commands_name_options_that_exist(words):
    check_options([word for word in words.split() if "=" in word], cli.CONF)


def test_predict_has_a_page_of_its_keys(monkeypatch, capsys):
    page = printed(monkeypatch, capsys, "/usr/bin/neuro-predict", "-h")
    assert "  neuro-predict ckpt=" in page and "a run's folder or latest, a checkpoint" in page


def test_the_page_is_quick():
    code = "import sys; sys.argv = ['train.py', '--help']; from neuro_lightning.cli import train; train()"
    code += "; print(sorted({'torch', 'numpy', 'pandas', 'pytorch_lightning', 'wandb'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n"), "the page needs none of the large libraries"


def test_an_installed_package_has_the_page_too(monkeypatch):
    monkeypatch.syspath_prepend(CONF.parent)
    assert help_page("train", "neuro-train", "pkg://conf") == help_page("train", "neuro-train", cli.CONF)


def test_a_mistyped_key_is_one_line_that_names_the_nearest(tmp_path):
    done = command_here(tmp_path, "model=gru", "model.hiden=3")
    assert done.returncode == 1
    assert re.fullmatch("error: model.hiden: no such key; did you mean 'hidden'[?] there are .*\n", done.stderr)
