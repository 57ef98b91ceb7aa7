"""The cache of prepared recordings: what it keeps, what it notices, and what it survives."""

import errno
import logging
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import fields

import numpy as np
import pytest

from neuro_lightning.data import cache as cache_module
from neuro_lightning.data import mapped as mapped_module
from neuro_lightning.data.cache import cache_key, cached, load_recording
from neuro_lightning.data.mapped import ALIGNMENT, is_mapped
from neuro_lightning.data.memory import JobMemory
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.errors import DataError


def make_trials(n, rng):
    return Trials(
        heldin=rng.poisson(0.3, (n, 7, 4)).astype(np.uint8),
        heldout=rng.poisson(0.3, (n, 7, 2)).astype(np.uint8),
        heldin_forward=rng.poisson(0.3, (n, 3, 4)).astype(np.float32),
        heldout_forward=np.full((n, 3, 2), np.nan, np.float32),
        behavior=rng.normal(size=(n, 7, 2)),
        decode_mask=rng.random((n, 2)) > 0.5,
        scored=rng.random((n, 7)) > 0.5,
        condition=rng.integers(-1, 3, n),
        jitter=rng.integers(0, 3, n),
        rates=rng.random((n, 10, 6)).astype(np.float32),
        row=np.arange(n),
    )


def make_recording(seed=0):
    rng = np.random.default_rng(seed)
    hidden = make_trials(3, rng)
    hidden = Trials(heldin=hidden.heldin, row=hidden.row)
    return Recording(
        name="toy",
        bin_ms=5,
        splits={"train": make_trials(6, rng), "val": make_trials(2, rng), "test": hidden},
        unit_ids=np.array([11, 12, 13, 14, 21, 22]),
        psth=rng.random((3, 7, 6)),
        behavior_kind="velocity",
        simulated=True,
        sources=[{"path": "a.nwb", "size": 12, "sha256": "ff"}],
        info={"window_ms": (0, 700), "heldin": np.array([1, 2]), "share": np.float64(0.25), "nothing": None},
    )


def assert_same(a, b):
    assert list(a.splits) == list(b.splits)
    for split in a.splits:
        for name in (field.name for field in fields(Trials)):
            left, right = getattr(a.splits[split], name), getattr(b.splits[split], name)
            assert (left is None) == (right is None), (split, name)
            if left is not None:
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right)
    for field in fields(Recording):
        if field.name != "splits":
            np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name))


class Builder:
    """Builds a recording and counts how often it was asked to."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return make_recording()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.nwb"
    path.write_bytes(bytes(range(256)) * 1024)
    return path


@pytest.fixture
def all_mapped(monkeypatch):
    """Arrays of any size are mapped."""
    monkeypatch.setattr(mapped_module, "LARGE", 1)


@pytest.fixture(params=[False, True], ids=["read", "mapped"])
def either(request, monkeypatch):
    """Arrays of these tests are read, or mapped."""
    monkeypatch.setattr(mapped_module, "LARGE", 1 if request.param else 2**20)


def replace(path, data):
    """Another file of that name: one that is mapped may not be overwritten in place."""
    path.unlink()
    path.write_bytes(data)


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def test_second_time_comes_from_the_cache_and_is_the_same(tmp_path, source):
    build = Builder()
    first = cached(tmp_path / "cache", {"bin_ms": 5}, [source], build)
    second = cached(tmp_path / "cache", {"bin_ms": 5}, [source], build)
    assert build.calls == 1
    assert_same(first, second)
    assert first.info == {"window_ms": [0, 700], "heldin": [1, 2], "share": 0.25, "nothing": None}
    assert only_file(tmp_path / "cache").suffix == ".npz"


def test_one_uncompressed_archive_that_numpy_opens(tmp_path, source):
    recording = cached(tmp_path / "cache", {}, [source], Builder())
    path = only_file(tmp_path / "cache")
    with zipfile.ZipFile(path) as archive:
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["splits/train/heldin"], recording.splits["train"].heldin)


def test_large_arrays_are_mapped_and_the_same(tmp_path, source, all_mapped):
    first = cached(tmp_path / "cache", {}, [source], Builder())
    second = cached(tmp_path / "cache", {}, [source], Builder())
    for recording in (first, second):
        assert_same(recording, cached(tmp_path / "other", {}, [source], Builder()))
        for name, array in recording.arrays().items():
            assert is_mapped(array) and is_mapped(array[1:]) and not is_mapped(array.copy()), name
            assert array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous, name
    expected = make_recording().arrays()
    with np.load(only_file(tmp_path / "cache")) as arrays:
        assert set(arrays) - {"header.json"} == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)
            np.testing.assert_array_equal(first.arrays()[name], array)


def test_small_arrays_are_read(tmp_path, source):
    assert not any(is_mapped(array) for array in cached(tmp_path, {}, [source], Builder()).arrays().values())


def test_writing_to_a_mapped_array_changes_neither_the_file_nor_other_runs(tmp_path, source, all_mapped):
    spoiled = cached(tmp_path / "cache", {}, [source], Builder())
    for array in spoiled.arrays().values():
        array[:] = 1
    assert (spoiled.splits["val"].heldin == 1).all()
    build = Builder()
    assert_same(cached(tmp_path / "other", {}, [source], Builder()), cached(tmp_path / "cache", {}, [source], build))
    assert build.calls == 0


def test_a_mapped_file_may_be_deleted(tmp_path, source, all_mapped):
    recording = cached(tmp_path / "cache", {}, [source], Builder())
    only_file(tmp_path / "cache").unlink()
    build = Builder()
    assert_same(recording, cached(tmp_path / "cache", {}, [source], build))
    assert build.calls == 1


def test_jobs_map_a_recording_anew(tmp_path, source, all_mapped):
    memory, given = JobMemory(), []
    for _ in range(2):
        given.append(memory.recording("key", lambda: cached(tmp_path / "cache", {}, [source], Builder())))
        assert all(is_mapped(array) for array in given[-1].arrays().values())
        given[-1].splits["train"].heldin[:] = 1
    assert not np.shares_memory(given[0].psth, given[1].psth)
    assert memory.find_recording("key") is None


def test_where_files_cannot_be_mapped_they_are_read(tmp_path, source, all_mapped, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mapped_module.mmap, "mmap", refuse)
    build = Builder()
    first, second = (cached(tmp_path / "cache", {}, [source], build) for _ in range(2))
    assert_same(first, second)
    assert build.calls == 1


def test_parameters_and_files_make_the_key(tmp_path, source):
    key = cache_key({"a": 1, "b": 2}, [source])
    assert key == cache_key({"b": 2, "a": 1}, [str(source)])
    assert key != cache_key({"a": 1, "b": 3}, [source])
    other = tmp_path / "other.nwb"
    other.write_bytes(source.read_bytes())
    assert key != cache_key({"a": 1, "b": 2}, [other])
    stat = source.stat()
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    source.write_bytes(data)  # same size, same time of change, another end
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = cache_key({"a": 1, "b": 2}, [source])
    assert changed != key
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert cache_key({"a": 1, "b": 2}, [source]) != changed


def test_caches_of_an_older_format_are_not_used(tmp_path, source, monkeypatch):
    build = Builder()
    cached(tmp_path / "cache", {}, [source], build)
    monkeypatch.setattr(cache_module, "FORMAT", cache_module.FORMAT + 1)
    cached(tmp_path / "cache", {}, [source], build)
    assert build.calls == 2


def test_missing_source(tmp_path):
    with pytest.raises(DataError, match=r"gone\.nwb is not there: check data\.path"):
        cached(tmp_path, {}, [tmp_path / "gone.nwb"], Builder())
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder is a folder, not a file"):
        cached(tmp_path, {}, [tmp_path / "folder"], Builder())


@pytest.mark.parametrize("damage", ["half", "empty", "flip_array", "flip_header", "garbage"])
def test_a_damaged_cache_is_rebuilt_with_one_warning(tmp_path, source, damage, caplog, either):
    build = Builder()
    first = cached(tmp_path / "cache", {}, [source], build)
    path = only_file(tmp_path / "cache")
    good = path.read_bytes()
    data = bytearray(good)
    if damage == "flip_array":
        with zipfile.ZipFile(path) as archive:
            data[archive.getinfo("splits/train/rates.npy").header_offset + 300] ^= 4
    elif damage == "flip_header":
        data[60] ^= 1
    damaged = {"half": good[: len(good) // 2], "empty": b"", "garbage": bytes(len(good))}.get(damage, bytes(data))
    replace(path, damaged)
    with caplog.at_level(logging.WARNING):
        again = cached(tmp_path / "cache", {}, [source], build)
    assert build.calls == 2
    assert [path.name in record.message for record in caplog.records] == [True]
    assert_same(first, again)
    assert_same(first, load_recording(only_file(tmp_path / "cache"))[0])


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_opened_gives_a_warning(tmp_path, source, monkeypatch, caplog, error):
    def refused(*args, **kwargs):
        raise OSError(error, os.strerror(error), str(tmp_path / "cache"))

    monkeypatch.setattr(cache_module, "load_recording", refused)
    monkeypatch.setattr(cache_module, "atomic_path", refused)
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path / "cache", {}, [source], Builder()).name == "toy"
    assert [str(tmp_path / "cache") in record.message for record in caplog.records] == [True, True]


def test_every_flipped_bit_of_an_array_is_noticed(tmp_path, source, either):
    heldin = cached(tmp_path / "cache", {}, [source], Builder()).splits["val"].heldin.tobytes()
    path = only_file(tmp_path / "cache")
    good = path.read_bytes()
    start = good.index(heldin)
    for offset in range(start - 70, start + len(heldin), 7):
        data = bytearray(good)
        data[offset] ^= 1 << (offset % 8)
        replace(path, data)
        with pytest.raises(ValueError, match="damaged"):
            load_recording(path)


def test_without_space_the_run_continues_with_a_warning(tmp_path, source, monkeypatch, caplog):
    written = np.lib.format.write_array
    calls = []

    def full_disk(stream, array, **kwargs):
        calls.append(array)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(stream, array, **kwargs)

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with caplog.at_level(logging.WARNING):
        recording = cached(tmp_path / "cache", {}, [source], Builder())
    assert recording.name == "toy"
    assert len(calls) == 4
    assert len(caplog.records) == 1
    message = caplog.records[0].message
    assert "No space left" in message and "paths.cache" in message and str(tmp_path / "cache") in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_write_that_the_system_cuts_short(tmp_path, source, caplog):
    """The system's own limit of a file's size stands for the full disk: the error comes from a real write."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            recording = cached(tmp_path / "cache", {}, [source], Builder())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert recording.name == "toy"
    assert len(caplog.records) == 1 and "paths.cache" in caplog.records[0].message
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, source, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path / "file" / "cache", {}, [source], Builder()).name == "toy"
    assert len(caplog.records) == 1 and "paths.cache" in caplog.records[0].message


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_write_permission(tmp_path, source, caplog):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o500)
    with caplog.at_level(logging.WARNING):
        assert cached(folder, {}, [source], Builder()).name == "toy"
    assert len(caplog.records) == 1 and "Permission denied" in caplog.records[0].message


def test_an_interrupted_write_leaves_nothing(tmp_path, source, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", {}, [source], Builder())
    assert list((tmp_path / "cache").iterdir()) == []


def test_temporary_files_are_deleted_after_a_day(tmp_path, source):
    folder = tmp_path / "cache"
    folder.mkdir()
    old, new = folder / ".recording-a.1.part.npz", folder / ".recording-a.2.part.npz"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * cache_module.STALE,) * 2)
    cached(folder, {}, [source], Builder())
    assert not old.exists() and new.exists()


def test_an_error_of_the_reader_leaves_nothing(tmp_path, source):
    def fail():
        raise DataError("no trials")

    with pytest.raises(DataError, match="no trials"):
        cached(tmp_path / "cache", {}, [source], fail)
    assert not (tmp_path / "cache").exists()


def test_two_processes_at_once(tmp_path, source):
    """Both build, since each waits in its build for the other to be there; both succeed, one file remains."""
    script = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[4])
from test_cache import make_recording
from neuro_lightning.data.cache import cached
folder, source, me, other = pathlib.Path(sys.argv[1]), sys.argv[2], *sys.argv[3].split(",")
def build():
    folder.with_name(me).touch()
    while not folder.with_name(other).exists():
        time.sleep(0.01)
    return make_recording()
print(len(cached(folder, {}, [source], build).splits["train"]))
"""
    here = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": os.path.dirname(here)}
    folder = tmp_path / "cache"
    jobs = [
        subprocess.Popen([sys.executable, "-c", script, folder, source, names, here], stdout=subprocess.PIPE, env=env)
        for names in ("one,two", "two,one")
    ]
    assert [job.communicate(timeout=60)[0].strip() for job in jobs] == [b"6", b"6"]
    assert_same(load_recording(only_file(folder))[0], cached(folder, {}, [source], Builder()))


def test_sources_are_the_same_from_another_folder(tmp_path, monkeypatch):
    """Whoever takes a recording from the cache may stand elsewhere than who put it there."""
    (tmp_path / "a.nwb").write_bytes(b"spikes")
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        found = cached(tmp_path / "cache", {}, [tmp_path / "a.nwb"], make_recording)
        assert found.sources == [{"path": str(tmp_path / "a.nwb"), "size": 12, "sha256": "ff"}]
