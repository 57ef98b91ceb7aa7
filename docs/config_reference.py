"""Reads the keys of the config files with their defaults and comments, and writes them as pages.

A key's meaning is the comment on its line or on the lines right above it. A file that changes a key of another file, as
recipes do, needs no comment of its own: the meaning is looked up where the key comes from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

SKIPPED = {"defaults", "_target_", "_partial_"}
"""Keys that say what to compose or build: shown above a file's table, not in it."""

RECIPES = ("experiment", "sweep", "debug")
"""Groups whose files only change keys of other groups."""


@dataclass(frozen=True)
class Key:
    """One key of one config file.

    Attributes:
        path: from the top of the file, such as ``("masking", "rate")``.
        default: as written in the file; empty for a key that only holds others.
        comment: in the file itself; empty if there is none.
    """

    path: tuple[str, ...]
    default: str
    comment: str

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


@dataclass(frozen=True)
class ConfigFile:
    """One file of ``conf/``.

    Attributes:
        group: its folder below ``conf/``, such as ``hydra/launcher``; empty for ``train.yaml`` and ``predict.yaml``.
        name: without ``.yaml``.
        about: the comment at its top.
        defaults: its defaults list.
        target: the class that it builds; empty if it builds none.
        keys: all others.
        is_global: whether its keys are full paths (``# @package _global_``).
    """

    group: str
    name: str
    about: list[str]
    defaults: list
    target: str
    keys: list[Key]
    is_global: bool


@dataclass(frozen=True)
class Configs:
    """All config files of a folder."""

    files: list[ConfigFile] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Configs:
        """Read every ``.yaml`` below ``folder``."""
        return cls([read_file(path, folder) for path in sorted(folder.rglob("*.yaml"))])

    @cached_property
    def groups(self) -> dict[str, list[ConfigFile]]:
        """The files of each group."""
        groups: dict[str, list[ConfigFile]] = {}
        for file in self.files:
            groups.setdefault(file.group, []).append(file)
        return groups

    @cached_property
    def mounts(self) -> dict[str, set[str]]:
        """Which groups are composed under a key, by its last part: ``optimizer`` holds a choice of ``optimizer``."""
        mounts: dict[str, set[str]] = {}
        for group in self.groups:
            mounts.setdefault(group.split("/")[-1], set()).add(group)
        for file in self.files:
            for entry in file.defaults:
                if isinstance(entry, dict):
                    entry = next(iter(entry))
                group, at, package = entry.removeprefix("override ").removeprefix("optional ").partition("@")
                if at:  # of `_sizes@sizes` the file's own group is meant
                    group = group.removeprefix("/") if group.startswith("/") or group in self.groups else file.group
                    mounts.setdefault(package.split(".")[-1], set()).add(group)
        return mounts

    def meaning(self, file: ConfigFile, key: Key) -> str:
        """What a key means: its own comment, or that of the key that it changes; empty if nobody says."""
        recipe = file.group in RECIPES
        if key.comment and not recipe:
            return key.comment
        chosen = self._chosen(file)
        if recipe or file.is_global:
            found = self._full_path(key.path, chosen) or key.comment
        else:
            found = self._look_up(file.group, key.path, chosen)
        return found or self._above(file, key)

    def _above(self, file: ConfigFile, key: Key) -> str:
        """The comment of the key that holds this one in its file."""
        above = [other for other in file.keys if not other.default and other.path == key.path[: len(other.path)]]
        return above[-1].comment if above else ""

    def _chosen(self, file: ConfigFile) -> dict[str, str]:
        """Which file of each group a file composes, those of its own group that it builds on included."""
        chosen: dict[str, str] = {}
        for entry in file.defaults:
            if isinstance(entry, str):
                for parent in self.groups.get(file.group, ()):
                    if parent.name == entry and entry != "_self_":
                        chosen |= self._chosen(parent) | {file.group: entry}
            else:
                (group, name), *_ = entry.items()
                group = group.removeprefix("override ").partition("@")[0].removeprefix("/")
                for composed in self.groups.get(group, ()):
                    if composed.name == name:
                        chosen |= self._chosen(composed) | {group: name}
        return chosen

    def _full_path(self, path: tuple[str, ...], chosen: dict[str, str]) -> str:
        in_space = path[:3] == ("hydra", "sweeper", "params") or "." in path[-1]
        if path[:2] == ("hydra", "sweeper") and len(path) > 3 and in_space:  # such as `model.hidden: 32,64`
            path = tuple(path[-1].split("."))
        for depth in (3, 2):  # hydra/sweeper/pruner, then hydra/sweeper
            if path[0] == "hydra" and (found := self._look_up("/".join(path[:depth]), path[depth:], chosen)):
                return found
        if found := self._look_up("", path, chosen):
            return found
        if path[0] == "callbacks":  # callbacks that only recipes add
            for file in self.files:
                for key in file.keys:
                    if file.group in RECIPES and key.path == path and key.comment:
                        return key.comment
        groups = self.mounts.get(path[-1].partition("@")[0], ())
        return "which file of " + " or ".join(f"`conf/{group}`" for group in sorted(groups)) if groups else ""

    def _look_up(self, group: str, path: tuple[str, ...], chosen: dict[str, str]) -> str:
        if found := self._comment_of(group, path, chosen):
            return found
        for position, part in enumerate(path[:-1]):
            for mounted in sorted(self.mounts.get(part, ())):
                rest = path[position + 1 :]
                if len(rest) < len(path) and (found := self._look_up(mounted, rest, chosen)):
                    return found
        return self._comment_of(group, path[:-1], chosen, only_mappings=True)  # of `reg.l2` it stands at `reg: {...}`

    def _comment_of(
        self, group: str, path: tuple[str, ...], chosen: dict[str, str], only_mappings: bool = False
    ) -> str:
        files = sorted(self.groups.get(group, ()), key=lambda file: file.name != chosen.get(group))
        for file in [*files, *(file for file in self.files if file.is_global and not group)]:
            if file.group in RECIPES or (file.is_global and group):
                continue
            for key in file.keys:
                if key.path == path and key.comment and (key.default[:1] == "{" or not only_mappings):
                    return key.comment
        return ""

    def without_meaning(self) -> list[str]:
        """The keys that no comment explains, as ``group/name.yaml: key``."""
        return [
            f"{file.group}/{file.name}.yaml: {key.name}".lstrip("/")
            for file in self.files
            if file.name != "wandb_sweep"  # in Weights & Biases' own format
            for key in file.keys
            if key.default and not self.meaning(file, key)
        ]


def read_file(path: Path, folder: Path) -> ConfigFile:
    """Read one config file with its comments."""
    text = path.read_text()
    lines = text.splitlines()
    relative = path.relative_to(folder)
    content = yaml.safe_load(text) or {}
    about = []
    for line in lines:
        if not line.startswith("#"):
            break
        about.append(line.removeprefix("#").removeprefix(" "))
    is_global = bool(about) and about[0].startswith("@package _global_")
    root = yaml.compose(text)
    keys = list(_keys(root, lines, ())) if isinstance(root, yaml.MappingNode) else []
    return ConfigFile(
        "/".join(relative.parts[:-1]),
        path.stem,
        about[1:] if is_global else about,
        content.get("defaults", []),
        content.get("_target_", ""),
        [key for key in keys if not SKIPPED & set(key.path)],
        is_global or not relative.parts[:-1],
    )


def _keys(node: yaml.MappingNode, lines: list[str], above: tuple[str, ...]):
    for name, value in node.value:
        path = (*above, name.value)
        spread = isinstance(value, yaml.CollectionNode) and not value.flow_style  # over the lines below the key
        block = spread and isinstance(value, yaml.MappingNode)
        comment = _comment(lines, name.start_mark, name.end_mark if spread else value.end_mark)
        inline = isinstance(value, yaml.MappingNode) and value.flow_style and value.value and not comment
        yield Key(path, "" if block or inline else _source(lines, value), comment)
        if block or inline:
            yield from _keys(value, lines, path)


def _source(lines: list[str], value: yaml.Node) -> str:
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column].strip() or "null"
    if isinstance(value, yaml.CollectionNode) and value.flow_style:
        return " ".join(line.split(" #")[0].strip() for line in lines[start.line : end.line + 1])
    return yaml.safe_dump(yaml.safe_load(yaml.serialize(value)), default_flow_style=True, width=10_000).strip()


def _comment(lines: list[str], start: yaml.Mark, end: yaml.Mark) -> str:
    """The comment behind a value with its continuation lines, else the lines of comment right above the key."""
    last = min(end.line, len(lines) - 1)
    if last > start.line and end.column == 0:  # a block ends where the next line begins
        last = start.line
    found = re.search(r"^[\s]*#\s?(.*)", lines[last][end.column if end.line == last else 0 :].lstrip(":"))
    if found:
        words, column = [found.group(1)], lines[last].rindex("#" + lines[last].split("#", 1)[1])
        for line in lines[last + 1 :]:
            if line.lstrip().startswith("#") and line.index("#") == column and column > start.column:
                words.append(line.lstrip().removeprefix("#").strip())
            else:
                break
        return " ".join(words).strip()
    words = []
    for number in range(start.line - 1, 0, -1):  # not the file's first line, which says what the file is
        line = lines[number]
        if line.lstrip().startswith("#") and line.index("#") == start.column:
            words.insert(0, line.lstrip().removeprefix("#").strip())
        else:
            break
    return " ".join(words) if start.line - len(words) > 0 else ""
