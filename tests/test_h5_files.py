"""HDF5 files are written whole, and a disk without room for one is an error in a line."""

import resource
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.artifacts.h5_files import h5_file
from neuro_lightning.errors import DataError

RNG = np.random.default_rng(0)


@contextmanager
def largest_file(size: int):
    """No file of this process may grow beyond so many bytes: what the system says of it is what a full disk says."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(group, n=30):
    for i in range(n):
        group.create_dataset(f"g{i % 3}/a{i}", data=RNG.normal(size=(20, 50)), compression="gzip")
        group.attrs[f"x{i}"] = "text" * 20


def test_a_file_is_what_h5py_writes_and_is_added_to(tmp_path):
    values = RNG.normal(size=(5, 4))
    with h5_file(tmp_path / "a.h5", append=True) as file:
        file["one/values"] = values
    with h5_file(tmp_path / "a.h5", append=True) as file:
        file["two"] = ["text"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert (file["one/values"][:] == values).all() and file["two"].asstr()[0] == "text"
    with h5_file(tmp_path / "a.h5") as file:
        file["three"] = 1
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["three"]


@pytest.mark.parametrize("room", [0, 500, 5_000, 100_000])
def test_a_disk_without_room_is_an_error_and_not_the_end_of_the_process(tmp_path, room):
    with (
        largest_file(room),
        pytest.raises(DataError, match=r"a\.h5 cannot be written \(File too large\): make room"),
        whole_file(tmp_path / "a.h5", DataError, "make room") as part,
        h5_file(part) as file,
    ):
        fill(file)
    assert not list(tmp_path.iterdir())


def test_room_that_ends_in_a_file_that_is_added_to(tmp_path):
    with h5_file(tmp_path / "a.h5") as file:
        fill(file, 6)
    size = (tmp_path / "a.h5").stat().st_size
    with (
        largest_file(size + 1000),
        pytest.raises(OSError, match="File too large"),
        h5_file(tmp_path / "a.h5", append=True) as file,
    ):
        fill(file.create_group("more"))


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="of its own"), h5_file(tmp_path / "a.h5"):
        raise ValueError("of its own")
    with pytest.raises(OSError, match="No such file"), h5_file(tmp_path / "none" / "a.h5"):
        pass
