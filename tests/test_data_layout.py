"""The layout of data/: a dataset is one folder, shared parts know no dataset, readers' options are written once."""

import ast
import inspect
import typing
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuro_lightning.data.options import takes_options_of

ROOT = Path(__file__).resolve().parents[1] / "neuro_lightning" / "data"
SHARED = {"checks", "formats", "spike_trials"}
DATASETS = {path.parent.name for path in ROOT.glob("*/datamodule.py")}
# arrays of one's own are prepared as the files of these are, and their twins come from the simulator; the neurons of
# a simulated brainset are those of the benchmark's twins
ALLOWED = {"arrays": {"stringer", "synthetic"}, "brainset": {"nlb"}, "bwb": {"brainset", "nlb"}}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_data(path):
    tree = ast.parse(path.read_text())
    own = path.relative_to(ROOT).parts[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuro_lightning"):
            assert node in tree.body, f"{node.module} is imported inside a function"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found = {parts[2] for name in names if len(parts := name.split(".")) > 2 and parts[1] == "data"}
            others = (found & DATASETS) - {own} - ALLOWED.get(own, set())
            assert not others, f"{own} imports the dataset {', '.join(others)}"


def test_every_folder_is_a_dataset_or_shared():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == DATASETS | SHARED and {"nlb", "nwb", "antolik"} <= DATASETS


def read(path, *, bin_ms: int = 5, units: list[int] | None = None, truth: str | None = None):
    return path, bin_ms, units, truth


@dataclass(frozen=True, kw_only=True)
class Preparation:
    window: int = 64


@takes_options_of(read, without=["truth"])
class Module:
    def __init__(self, path: str, **loader: int) -> None:
        self.path, self.loader = path, loader


@takes_options_of(Preparation)
class Prepared:
    def __init__(self, **loader: int) -> None:
        self.loader = loader


def test_a_data_module_takes_the_options_of_its_reader():
    module = Module("a.nwb", units=[1], batch_size=3)
    assert module.options == {"bin_ms": 5, "units": [1]} and module.loader == {"batch_size": 3}
    assert list(inspect.signature(Module).parameters) == ["path", "bin_ms", "units", "loader"]
    assert typing.get_type_hints(Module.__init__)["units"] == list[int] | None
    assert Prepared(window=8, batch_size=3).options == Preparation(window=8)
    with pytest.raises(TypeError):
        Prepared(8)
