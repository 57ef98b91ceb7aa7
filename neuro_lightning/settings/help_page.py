"""What ``--help`` prints: the groups and keys that a user chooses from, read from the comments in ``conf/``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from importlib.resources.abc import Traversable
from itertools import takewhile
from typing import NamedTuple

from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.options import config_folder, describe_options, file_options

WIDTH = 100
MAX_LISTED = 24  # options, of which the overview gives the number only
COMMANDS = {
    "train": {
        "": "train a small GRU on simulated spikes",
        "model=ndt data=mc_rtt data.simulate=true": "simulate data in place of a download",
        "-m model=gru,ndt seed=0,1,2": "train every combination, compare scores",
        "-m sweep=ndt_bayes data=mc_rtt": "search for good settings",
        "resume=latest": "resume the newest run",
        "--help data model": "explain the options of these groups",
        "model=ndt --cfg job": "print all keys and their values",
    },
    "predict": {
        "ckpt=outputs/...": "write a run's submission or its predictions",
        "ckpt=latest": "the same of the run that finished last",
        "ckpt=outputs/... data.phase=test": "predict the test trials",
        "ckpt=outputs/... output=latents": "write the latents of every trial",
        "ckpt=multirun/... ensemble=greedy": "average several models of a sweep",
        "ckpt=[outputs/...,outputs/...]": "average these runs",
    },
}


class Group(NamedTuple):
    """A config group.

    Attributes:
        section: heading under which it stands.
        name: as typed, such as ``callbacks/average``.
        default: the option that is taken if none is typed; None for groups that a run takes nothing from by default.
        meaning: one line.
        options: their names; those that begin with ``_`` are parts of others and are left out.
    """

    section: str
    name: str
    default: str | None
    meaning: str
    options: list[str]


def help_page(command: str, program: str, conf: str, words: Sequence[str] = ()) -> str:
    """The text of ``--help``.

    Args:
        command: ``train`` or ``predict``.
        program: what is typed to run it, such as ``python train.py``.
        conf: where the configs lie, as Hydra is told.
        words: names of groups whose options are explained, in place of the overview.

    Raises:
        ConfigError: a word that is no group.
    """
    text = (config_folder(conf) / f"{command}.yaml").read_text()
    groups = list(_groups(text, conf))
    chosen = [group for group in groups if group.name in words]
    unknown = [word for word in words if re.fullmatch(r"[\w/]+", word) and word not in {group.name for group in groups}]
    if unknown:
        raise ConfigError(
            f"--help {unknown[0]}: no such group; {describe_options(unknown[0], [g.name for g in groups])}"
        )
    if chosen:
        return "\n\n".join(_explain_group(group, conf) for group in chosen)
    tables = {"Commands": {f"{program} {words}".rstrip(): meaning for words, meaning in COMMANDS[command].items()}}
    for group in groups:
        title = group.name + (f" [{group.default}]" if group.default else "")
        tables.setdefault(group.section, {})[title] = f"{group.meaning}\n{_format_options(group, program)}"
    tables["Keys, key=value"] = dict(re.findall(r"^(\w+):[^#\n]*# (.+)$", text, re.MULTILINE))
    blocks = [f"{title}:\n{_table(rows)}" for title, rows in tables.items()]
    return "\n\n".join([*blocks, f"Hydra's own flags: {program} --hydra-help"])


def _groups(text: str, conf: str) -> Iterator[Group]:
    """The groups that ``train.yaml`` or ``predict.yaml`` explains, with its comments' headings."""
    section = "Groups, group=option [default]"
    for line in text.partition("\n\n")[0].splitlines():
        if found := re.match(r"  - ([a-z/]+): (\w+) +# (.+)", line):
            name, default, meaning = found.groups()
        elif found := re.match(r"  #   ([a-z/]+): (.+)", line):
            (name, meaning), default = found.groups(), "null"
        else:
            section = line.removeprefix("  # ").rstrip(":") if line.startswith("  # ") else section
            continue
        options = sorted(option for option in file_options(conf, name) if not option.startswith("_"))
        yield Group(section, name, None if default == "null" else default, meaning, options)


def _format_options(group: Group, program: str) -> str:
    names = ", ".join(group.options)
    return names if len(group.options) <= MAX_LISTED else f"{len(group.options)} options: {program} --help {group.name}"


def _explain_group(group: Group, conf: str) -> str:
    """A group's options, each with the first sentence of its file."""
    folder = config_folder(conf) / group.name
    return f"{group.name}: {group.meaning}\n" + _table({name: _first_sentence(folder, name) for name in group.options})


def _first_sentence(folder: Traversable, option: str) -> str:
    lines = (folder / f"{option}.yaml").read_text().replace("# @package _global_\n", "").splitlines()
    comments = takewhile(lambda line: re.match("# [^ ]", line), lines)  # commands are indented
    text = " ".join(line.removeprefix("# ") for line in comments)
    return re.split(r"(?<! al)\. (?=[A-Z])", text)[0].rstrip(".:")


def _table(rows: dict[str, str]) -> str:
    """Two columns: what is typed, and what it means."""
    column = max(map(len, rows)) + 4
    wrap = textwrap.TextWrapper(WIDTH - column, break_long_words=False, break_on_hyphens=False)
    lines = []
    for name, text in rows.items():
        first, *rest = [line for part in text.splitlines() for line in wrap.wrap(part)] or [""]
        lines += [f"  {name}".ljust(column) + first, *(" " * column + line for line in rest)]
    return "\n".join(line.rstrip() for line in lines)
