"""Imports go down only, lazy ones included, and the maths is free of frameworks."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "neuro_lightning"
FRAMEWORKS = {"pytorch_lightning", "hydra", "omegaconf", "wandb"}
# from the lowest room to the highest: each imports from those above it in this list only
ROOMS = [
    "version", "errors", "contracts", "ranks", "private_names", "artifacts", "settings", "functional", "nn", "losses",
    "optim", "metrics", "data", "models", "realtime", "display", "submission", "loggers", "callbacks", "ensemble",
    "runs", "export", "analysis", "sweeps", "cli", "api", "live", "pages", "report",
]  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it; names of a package's own modules as modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_room(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def rooms_above() -> set[tuple[str, str]]:
    """Pairs of rooms of which the lower one imports the higher one."""
    found = set()
    for path in FILES:
        for module in imported(path):
            package, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            if package == PACKAGE.name and is_room(other) and ROOMS.index(other) > ROOMS.index(room(path)):
                found.add((room(path), other))
    return found


def test_every_room_has_its_place():
    assert {room(path) for path in FILES} == set(ROOMS)


def test_imports_go_down():
    assert not rooms_above(), "(room, room that it may not import)"


def test_modules_import_no_circle():
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    edges = {
        name: {m for full in imported(path) for m in (full, full.rpartition(".")[0]) if m in modules and m != name}
        for name, path in modules.items()
    }
    while free := [name for name, others in edges.items() if not others & set(edges)]:
        for name in free:
            del edges[name]
    assert not edges, "modules that import each other in a circle"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_maths_and_readers_know_no_framework(path):
    reader = room(path) == "data" and path.name not in ("module.py", "datamodule.py", "datamodules.py")
    if room(path) in ("functional", "nn", "contracts", "losses") or reader:
        assert not FRAMEWORKS & {module.split(".")[0] for module in imported(path)}
