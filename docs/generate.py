"""Writes the pages that follow from the code: config keys, the API, the picture of the rooms, the tutorials.

Sphinx's ``conf.py`` calls :func:`write_all` before each build. What is written is not under version control.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

from config_reference import RECIPES, ConfigFile, Configs
from pictures import parts_picture, road_picture, room_imports, room_rows, rooms_picture

import neuro_lightning

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "neuro_lightning"

PUBLIC = ["contracts", "errors", "losses", "optim", "functional", "metrics", "nn", "models", "data", "callbacks"]
"""Modules and subpackages of the API reference, beside ``neuro_lightning`` itself."""

HOW_TO_CHOOSE = {
    "augment": ("augment@data.augment=NAME", "data.augment."),
    "callbacks": ("callbacks=NAME", "callbacks."),
    "callbacks/average": ("callbacks/average=NAME", "callbacks.average."),
    "core": ("core@model.core=NAME", "model.core."),
    "layer": ("layer@model.first=NAME", "model.first."),
    "loss": ("loss@model.loss=NAME", "model.loss."),
    "masking": ("masking@model.masking=NAME", "model.masking."),
    "optimizer": ("optimizer@model.optimizer=NAME", "model.optimizer."),
    "readin": ("readin@model.readin=NAME", "model.readin."),
    "readout": ("readout@model.readout=NAME", "model.readout."),
    "scheduler": ("scheduler@model.scheduler=NAME", "model.scheduler."),
}
"""Groups whose choice and keys are typed in another way than ``group=NAME`` and ``group.KEY=VALUE``."""


def write_all(docs: Path) -> None:
    """Write all generated pages below ``docs``."""
    copy_notebooks(docs / "tutorials")
    config_pages(Configs.read(ROOT / "conf"), docs / "reference" / "config")
    api_pages(docs / "reference" / "api")
    write(docs / "images" / "rooms.svg", rooms_picture(PACKAGE))
    write(docs / "images" / "parts.svg", parts_picture())
    write(docs / "images" / "road.svg", road_picture(PACKAGE))
    write(docs / "_rooms.md", rooms_table())
    contributing = (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")
    contributing = contributing.replace("](CHANGELOG.md)", "](changelog.md)")
    write(docs / "_contributing.md", contributing)
    write(docs / "changelog.md", (ROOT / "CHANGELOG.md").read_text())


def copy_notebooks(folder: Path) -> None:
    """Copy the notebooks beside the page that lists them; their links to pages are from the folder of the notebooks."""
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        write(folder / notebook.name, notebook.read_text().replace("](../docs/", "](../"))


def write(path: Path, text: str) -> None:
    """Write a page unless it holds this text already, so that an unchanged page is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


# ---- config keys


def config_pages(configs: Configs, folder: Path) -> None:
    """Write one page for each folder of ``conf/`` and one for ``train.yaml`` and ``predict.yaml`` each."""
    shutil.rmtree(folder, ignore_errors=True)
    names = sorted({group.split("/")[0] for group in configs.groups if group})
    toctree = ["train", "predict", *names]
    for file in configs.groups[""]:
        if file.name in ("train", "predict"):
            body = [f"# {file.name}.py", "", *_about(file), *_table(configs, file, "")]
            write(folder / f"{file.name}.md", "\n".join(body) + "\n")
    for name in names:
        lines = [f"# {name}", ""]
        for group in sorted(group for group in configs.groups if group.split("/")[0] == name):
            choose, prefix = HOW_TO_CHOOSE.get(group, (f"{group}=NAME", group.replace("/", ".") + "."))
            if group != name:
                lines += [f"## {group}", ""]
            typed = "" if group in RECIPES else f"; keys are typed `{prefix}KEY=VALUE`"
            lines += [f"Chosen by `{choose}`{typed}.", ""]
            for file in sorted(configs.groups[group], key=lambda file: file.name.startswith("_")):
                lines += [f"({_anchor(file)})=", f"##{'#' * (group != name)} {file.name}", "", *_about(file)]
                lines += [*_built(file), *_composed(configs, file)]
                lines += _table(configs, file, "" if file.is_global else prefix)
        write(folder / f"{name}.md", "\n".join(lines) + "\n")
    write(folder / "index.md", "\n".join([*CONFIG_INDEX, *toctree, "```", ""]))


CONFIG_INDEX = """# Config keys

Every key of every config file, with its default and its meaning. The pages are made from the files of `conf/`, so they
say what the code says. A key is typed on the command line as `key=value`; the default is what you get without it.
A default such as `${seed}` takes the value of another key; `???` must be given.

`python train.py --cfg job` prints the composed config of a command without running it, and a key that nothing reads is
refused before anything is built.

```{toctree}
:maxdepth: 1
""".splitlines()


def _anchor(file: ConfigFile) -> str:
    return f"config-{file.group}-{file.name}".replace("/", "-").replace("_", "-")


def _about(file: ConfigFile) -> list[str]:
    """The comment at the top of a file; its indented lines are commands."""
    lines, in_code = [], False
    for line in file.about:
        is_code = line.startswith("  ") or bool(re.match(r"\s*(python|wandb) ", line))
        if is_code != in_code:
            lines += ["", "```bash"] if is_code else ["```", ""]
            in_code = is_code
        lines.append(line.removeprefix("  ") if is_code else _escape(line))
    return [*lines, *(["```"] if in_code else []), ""]


def _built(file: ConfigFile) -> list[str]:
    if not file.target:
        return []
    if file.target.startswith(tuple(f"neuro_lightning.{name}." for name in PUBLIC)):
        return [f"Builds {{py:obj}}`{file.target}`.", ""]
    return [f"Builds `{file.target}`.", ""]


def _composed(configs: Configs, file: ConfigFile) -> list[str]:
    parts = []
    for entry in file.defaults:
        if isinstance(entry, dict):
            (group, name), *_ = entry.items()
            parts.append(f"`{group.removeprefix('override ').removeprefix('/')}: {'null' if name is None else name}`")
        elif entry != "_self_":
            parent = next((other for other in configs.groups[file.group] if other.name == entry), None)
            parts.append(f"all of [{entry}](#{_anchor(parent)})" if parent else f"`{entry}`")
    return [f"Takes in {', '.join(parts)}.", ""] if parts else []


def _table(configs: Configs, file: ConfigFile, prefix: str) -> list[str]:
    keys = [key for key in file.keys if key.default]
    if not keys:
        return []
    recipe = file.group in RECIPES
    rows = [f"| key | {'value' if recipe else 'default'} | meaning |", "|---|---|---|"]
    for key in keys:
        meaning = configs.meaning(file, key)
        if recipe and key.comment and key.comment != meaning:
            meaning = f"{meaning} (here: {key.comment})"
        rows.append(f"| {_code(prefix + key.name)} | {_code(key.default)} | {_escape(meaning)} |")
    return [*rows, ""]


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _escape(text: str) -> str:
    """Keep what Markdown would read as markup, outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", "\\|") if part.startswith("`") else re.sub(r"([*<>\[\]|$_])", r"\\\1", part) for part in parts
    )


# ---- architecture


def rooms_table() -> str:
    """A table of the package's parts: what each holds, by its docstring's first line, and what it imports."""
    imports = room_imports(PACKAGE)
    rows = ["| part | what it holds | imports |", "|---|---|---|"]
    for row in room_rows(imports)[::-1]:
        for room in row:
            path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
            about = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
            about = re.sub(r"`{1,2}", "`", re.sub(r":\w+:", "", about))
            others = ", ".join(f"`{other}`" for other in sorted(imports[room])) or "-"
            rows.append(f"| `{room}{'/' if path.name == '__init__.py' else '.py'}` | {_escape(about)} | {others} |")
    return "\n".join(rows) + "\n"


# ---- API


def api_pages(folder: Path) -> None:
    """Write one page for each public module and for each package among them."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = []
    for name in PUBLIC:
        path = PACKAGE / name
        pages += [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else _packages(path)
    names = []
    for path in pages:
        modules = [path] if path.is_file() else sorted(path.glob("*.py"))
        dotted = _dotted(path)
        lines = [f"# {dotted.removeprefix('neuro_lightning.')}", ""]
        for module in modules:
            if module.name == "__main__.py" or not ast.get_docstring(ast.parse(module.read_text())):
                continue
            if path.is_dir() and module.name != "__init__.py":
                lines += [f"## {_dotted(module).removeprefix('neuro_lightning.')}", ""]
            lines += _automodule(_dotted(module))
        names.append(dotted.removeprefix("neuro_lightning."))
        write(folder / f"{names[-1]}.md", "\n".join(lines))
    front = ["# API", "", *_automodule("neuro_lightning.api", members=False)]
    for name in neuro_lightning.__all__:
        if not name.startswith("_"):
            directive = "autoclass" if name[0].isupper() else "autofunction"
            options = ["   :members:"] if name[0].isupper() else []
            front += ["```{eval-rst}", f".. {directive}:: neuro_lightning.{name}", *options, "```", ""]
    contents = ["## Modules", "", "```{toctree}", ":maxdepth: 1", "", *names, "```", ""]
    write(folder / "index.md", "\n".join([*front, *contents]))


def _automodule(name: str, members: bool = True) -> list[str]:
    options = ["   :members:", "   :show-inheritance:"] if members else []
    return ["```{eval-rst}", f".. automodule:: {name}", *options, "```", ""]


def _packages(folder: Path) -> list[Path]:
    """A package and the packages in it, if they hold modules."""
    return [folder, *(path for path in sorted(folder.rglob("*")) if path.is_dir() and (path / "__init__.py").is_file())]


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
