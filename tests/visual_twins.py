"""Small twins of recordings of visual cortex that several test files read, as fixtures; see conftest.py."""

import shutil
from pathlib import Path

import numpy as np
import pytest

ANTOLIK = {"train_images": 60, "neurons": 6, "dogs": 2}
SPONTANEOUS = {"neurons": (14, 12, 10), "n_bins": 121, "n_latents": 3}
UWNDC19_FILES = ("stim.npy", "train.csv", "sub.csv", "truth.npz")


@pytest.fixture(scope="session")
def antolik_root(tmp_path_factory) -> Path:
    """A data folder with a tiny twin of all three regions; tests only read it."""
    from neuro_lightning.data.antolik.twin import write_twin

    root = tmp_path_factory.mktemp("antolik")
    write_twin(root, [1, 2, 3], **ANTOLIK)
    return root


@pytest.fixture
def antolik_copy(antolik_root, tmp_path) -> Path:
    """The folder of region 1, to spoil."""
    region = Path("antolik2016") / "region1"
    shutil.copytree(antolik_root / region, tmp_path / region)
    return tmp_path / region


@pytest.fixture(scope="session")
def uwndc19_root(tmp_path_factory) -> Path:
    """A data folder with the twin of UWNDC19 in its place; tests only read it."""
    from neuro_lightning.data.uwndc19 import twin

    root = tmp_path_factory.mktemp("uwndc19")
    twin.write_uwndc19(root / "simulated" / "uwndc19" / "seed_0")
    return root


@pytest.fixture(scope="session")
def uwndc19_folder(uwndc19_root) -> Path:
    """The folder with the twin's files."""
    return uwndc19_root / "simulated" / "uwndc19" / "seed_0"


@pytest.fixture(scope="module")
def uwndc19_challenge(uwndc19_folder):
    """What these files hold."""
    from neuro_lightning.data.uwndc19.reader import read_challenge

    return read_challenge(uwndc19_folder, image_size=48)


@pytest.fixture(scope="session")
def spontaneous_twin(tmp_path_factory) -> tuple[Path, Path]:
    """The files of a small twin of Stringer's spontaneous activity, and of its truth; tests only read them."""
    from neuro_lightning.data.stringer.twin import write_twin

    return write_twin(tmp_path_factory.mktemp("spontaneous"), seed=1, **SPONTANEOUS)


@pytest.fixture
def spontaneous(spontaneous_twin):
    """What the twin's file holds."""
    from neuro_lightning.data.stringer.files import read_spontaneous

    return read_spontaneous(spontaneous_twin[0])


def lines(folder: Path, name: str = "train.csv") -> list[str]:
    return (folder / name).read_text().splitlines()


def content(path: Path) -> dict[str, np.ndarray]:
    """What a file of spontaneous activity holds, by name."""
    return np.load(path, allow_pickle=True).item()
