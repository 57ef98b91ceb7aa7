"""What all tests share."""

import copy
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# for runs that go on, whose files cannot say it
os.environ.setdefault("NEURO_TRUSTED", "tiny,tiny_traces,pictures,launched,dying,test_search")

import pytest
from folder_holder import other_process  # noqa: F401  # a fixture
from omegaconf import OmegaConf
from visual_twins import (  # noqa: F401  # fixtures
    antolik_copy,
    antolik_root,
    spontaneous,
    spontaneous_twin,
    uwndc19_challenge,
    uwndc19_folder,
    uwndc19_root,
)

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = tuple(str(folder / "conf") for folder in (ROOT, ROOT / "tests"))


def load_configs_once(load: Callable = OmegaConf.load) -> None:
    """Parse each of our own YAML files once in a process: it is a quarter of the time that composing a config takes."""
    loaded = {}

    def load_once(file):
        name = str(getattr(file, "name", file))
        if not name.startswith(CONFIGS):
            return load(file)
        key = name, os.stat(name).st_mtime_ns
        if key not in loaded:
            loaded[key] = load(file)
        return copy.deepcopy(loaded[key])

    OmegaConf.load = staticmethod(load_once)


load_configs_once()


@pytest.fixture(autouse=True)
def no_network_no_wandb(monkeypatch):
    """No test talks to Weights & Biases; those about its files say WANDB_MODE=offline."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture
def forked_workers(monkeypatch):
    """What this process starts as workers is forked from a process that has imported the package: see forks.py."""
    import forks

    monkeypatch.setattr(sys, "executable", forks.executable())


@pytest.fixture
def whole_mat_files(monkeypatch):
    """MATLAB files are read at once, not in a process of its own first: test_damaged_files is about that."""
    monkeypatch.setattr("neuro_lightning.data.formats.mat.find_reading_problem", lambda *_: "")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real recordings; tests that need it are skipped where it is not there."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real recordings (../shared/data) are not here")
    return folder


@pytest.fixture(scope="session")
def ensemble_sweep(tmp_path_factory) -> Path:
    """The folder of a small sweep whose models can be averaged; tests copy it before they change it."""
    from ensembles import make_sweep

    return make_sweep(tmp_path_factory.mktemp("multirun"))


# seconds of files that take long without a slow test
LONG = {
    "test_pairs": 26,
    "test_resume_ends": 25,
    "test_nlb_parity": 22,
    "test_config": 20,
    "test_docs": 15,
    "test_gamma": 12,
}


def pytest_collection_modifyitems(items):
    """Files that take long come first: two workers that take file after file then end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -10 * slow[item.path] - LONG.get(item.path.stem, 0))
