"""The wheel holds everything and works where there is no checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel, built from a copy: no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for part in ("conf", "neuro_lightning"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "neuro_lightning" not in done.stderr, "setuptools warns of what it packs"
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def files(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def call(site: Path, folder: Path, name: str, *arguments: str) -> str:
    """What an installed command prints, started in another folder."""
    (entry,) = (site / next(site.glob("*.dist-info")).name).glob("entry_points.txt")
    target = dict(line.split(" = ") for line in entry.read_text().splitlines() if " = " in line)[name]
    module, function = target.split(":")
    code = f"import sys; sys.argv[0] = {name!r}; from {module} import {function} as command; command()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_and_every_config_is_inside(installed):
    assert files(installed / "neuro_lightning" / "conf", "*.yaml") == files(ROOT / "conf", "*.yaml")
    modules = {name for name in files(installed / "neuro_lightning", "*.py") if not name.startswith("conf/")}
    assert modules == files(ROOT / "neuro_lightning", "*.py")
    assert (installed / "neuro_lightning" / "py.typed").is_file(), "type checkers need it"


def test_the_commands_run_from_another_folder(installed, tmp_path):
    sizes = ["data.sizes.n_train=16", "data.sizes.n_val=8", "data.sizes.n_test=8", "data.sizes.n_bins=20"]
    quick = ["trainer=debug", "callbacks=minimal", "logger=csv", "baselines=null", "model.hidden=4"]
    assert "simulated data" in call(installed, tmp_path, "neuro-train", *sizes, *quick, "hydra.run.dir=run")
    call(installed, tmp_path, "neuro-predict", "ckpt=run", "file=rates.h5")
    assert (tmp_path / "rates.h5").is_file()
