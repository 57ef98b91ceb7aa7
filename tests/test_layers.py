"""Imports go down only, and the maths is free of frameworks."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "neuro_lightning"
FRAMEWORKS = {"pytorch_lightning", "hydra", "omegaconf", "wandb"}
LAYERS = [
    {"contracts", "errors", "artifacts", "ranks", "registry", "overrides", "options", "private_names", "quoting"},
    {"functional"},
    {"nn", "losses", "metrics", "optim", "data", "config_types"},
    {"models"},
    {"config"},
    {
        "callbacks",
        "distributed",
        "folders",
        "guarding",
        "loggers",
        "metrics_csv",
        "wandb_run",
        "records",
        "evaluation",
        "submission",
        "sweeps",
        "report",
    },
    {"checkpoint"},
    {"building", "ensemble"},
    {"monitors", "training_length", "prediction", "refit", "outcome"},
    {"prediction_files"},
    {"run", "resume"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert room(path) in LEVEL, f"{path} stands in no layer"
    for module in imported(path, top_level_only=True):
        if module.startswith("neuro_lightning."):
            other = module.split(".")[1]
            assert LEVEL[other] <= LEVEL[room(path)], f"{path.name} imports {module}, which lies above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_maths_and_readers_know_no_framework(path):
    reader = room(path) == "data" and path.name not in ("module.py", "datamodule.py")
    if room(path) in ("functional", "nn", "contracts", "losses") or reader:
        assert not FRAMEWORKS & {module.split(".")[0] for module in imported(path, top_level_only=False)}
