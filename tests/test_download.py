"""Finding, fetching and checking the benchmark's files, with a stand-in for the dandi package."""

import dataclasses
import hashlib
import logging
import multiprocessing
import os
import sys
import types
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from neuro_lightning.data.nlb import download
from neuro_lightning.data.nlb import params as params_module
from neuro_lightning.data.nlb.download import nlb_files
from neuro_lightning.data.nlb.params import NLB_DATASETS, Asset
from neuro_lightning.errors import ConfigError, DataError

NAME = "mc_maze_small"
REAL = NLB_DATASETS[NAME]
TRAIN = np.random.default_rng(0).bytes(50_000)
TEST = np.random.default_rng(1).bytes(7_000)


class FakeDandi:
    """The few calls of dandi.dandiapi that are used, over bytes in memory. Counts and remembers what is asked."""

    def __init__(self):
        self.contents = {REAL.train.path: TRAIN, REAL.test.path: TEST}
        self.offsets = []
        self.asked = []
        self.offline = False
        self.stop_after = None
        fake = self

        class DandiAPIClient:
            session = types.SimpleNamespace(get=lambda url, timeout: fake.answer())

            def __enter__(self):
                return self

            def __exit__(self, *exc):
                pass

            def get_url(self, path):
                return f"https://example.org{path}"

            def get_dandiset(self, dandiset_id, version_id=None):
                fake.asked.append((dandiset_id, version_id))
                return types.SimpleNamespace(get_asset_by_path=fake.asset)

        self.module = types.ModuleType("dandi.dandiapi")
        self.module.DandiAPIClient = DandiAPIClient

    def answer(self):
        if self.offline:
            raise ConnectionError("Failed to resolve host")
        return types.SimpleNamespace(raise_for_status=lambda: None)

    def asset(self, path):
        if path not in self.contents:
            raise RuntimeError(f"No asset at path {path!r}")

        def stream(start_at=0):
            self.offsets.append((path, start_at))
            data = self.contents[path]
            for at in range(start_at, len(data), 1000):
                if self.stop_after is not None and at >= self.stop_after:
                    raise ConnectionError("Connection broken")
                yield data[at : at + 1000]

        return types.SimpleNamespace(get_download_file_iter=lambda: stream)


@contextmanager
def published(train=TRAIN, test=TEST):
    """The dataset's table with files small enough for a test."""
    assets = {
        "train": Asset(REAL.train.path, len(train), hashlib.sha256(train).hexdigest()),
        "test": Asset(REAL.test.path, len(test), hashlib.sha256(test).hexdigest()),
    }
    params_module.NLB_DATASETS[NAME] = dataclasses.replace(REAL, **assets)
    try:
        yield
    finally:
        params_module.NLB_DATASETS[NAME] = REAL


@pytest.fixture
def dandi(monkeypatch):
    fake = FakeDandi()
    monkeypatch.setitem(sys.modules, "dandi", types.ModuleType("dandi"))
    monkeypatch.setitem(sys.modules, "dandi.dandiapi", fake.module)
    with published():
        yield fake


@pytest.fixture
def no_dandi(monkeypatch):
    monkeypatch.setitem(sys.modules, "dandi", None)
    monkeypatch.setitem(sys.modules, "dandi.dandiapi", None)
    with published():
        yield


def put(root, train=TRAIN, test=TEST, folder=""):
    for asset, data in ((REAL.train, train), (REAL.test, test)):
        path = root / folder / asset.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def visible(root):
    return sorted(p.name for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))


def test_downloads_the_published_version_and_finds_it_again(tmp_path, dandi):
    paths = nlb_files(NAME, tmp_path)
    assert [p.read_bytes() for p in paths] == [TRAIN, TEST]
    assert paths == (tmp_path / "000140" / REAL.train.path, tmp_path / "000140" / REAL.test.path)
    assert dandi.asked == [("000140", "0.220113.0408")]
    assert not list(tmp_path.rglob("*.part"))
    assert nlb_files(NAME, str(tmp_path)) == paths
    assert len(dandi.offsets) == 2, "the second time nothing is fetched"


@pytest.mark.parametrize(
    "folder",
    [
        "000140/sub-Jenkins",
        "sub-Jenkins",
        "",
        "mc_maze_small",
        "mc_maze_small/sub-Jenkins",
        "mc_maze_small/000140/sub-Jenkins",
    ],
)
def test_files_are_found_in_usual_folder_layouts(tmp_path, no_dandi, folder):
    put(tmp_path, folder=folder)
    train, test = nlb_files(NAME, tmp_path)
    assert train == tmp_path / folder / REAL.train.name and test == tmp_path / folder / REAL.test.name


def test_only_what_is_missing_is_fetched(tmp_path, dandi):
    put(tmp_path, folder="mc_maze_small")
    (tmp_path / "mc_maze_small" / REAL.test.name).unlink()
    train, test = nlb_files(NAME, tmp_path)
    assert train.parent.name == "mc_maze_small" and test.parent.parent.name == "000140"
    assert [path for path, _ in dandi.offsets] == [REAL.test.path]


def test_without_the_test_file(tmp_path, no_dandi):
    put(tmp_path)
    (tmp_path / REAL.test.name).unlink()
    assert nlb_files(NAME, tmp_path, test=False)[0] == tmp_path / REAL.train.name
    with pytest.raises(DataError, match="desc-test"):
        nlb_files(NAME, tmp_path)


def test_an_interrupted_download_is_resumed_and_is_not_used_as_the_file(tmp_path, dandi):
    dandi.stop_after = 30_000
    with pytest.raises(DataError, match=r"Connection broken.*continues from the part"):
        nlb_files(NAME, tmp_path)
    assert visible(tmp_path) == []
    dandi.stop_after = None
    train, _ = nlb_files(NAME, tmp_path)
    assert train.read_bytes() == TRAIN
    assert [offset for path, offset in dandi.offsets if path == REAL.train.path] == [0, 30_000]


def test_a_stream_that_ends_early_without_an_error(tmp_path, dandi):
    dandi.contents[REAL.train.path] = TRAIN[:20_000]
    with pytest.raises(DataError, match="ended after 20,000 of 50,000 bytes"):
        nlb_files(NAME, tmp_path)
    assert visible(tmp_path) == []


def test_a_killed_download_is_resumed(tmp_path, dandi):
    def killed(start_at=0):
        yield TRAIN[:10_000]
        raise KeyboardInterrupt

    asset = params_module.NLB_DATASETS[NAME].train
    target = tmp_path / "000140" / asset.path
    with pytest.raises(KeyboardInterrupt):
        download._download(killed, target, asset)
    assert visible(tmp_path) == []
    assert nlb_files(NAME, tmp_path)[0].read_bytes() == TRAIN


def test_wrong_bytes_are_removed(tmp_path, dandi):
    dandi.contents[REAL.train.path] = TRAIN[:-1] + bytes([TRAIN[-1] ^ 1])
    with pytest.raises(DataError, match=r"SHA-256.*removed"):
        nlb_files(NAME, tmp_path)
    assert visible(tmp_path) == [] and not list(tmp_path.rglob(".*.part"))
    dandi.contents[REAL.train.path] = TRAIN
    assert nlb_files(NAME, tmp_path)[0].read_bytes() == TRAIN


def test_more_bytes_than_published_are_wrong_bytes(tmp_path, dandi):
    dandi.contents[REAL.train.path] = TRAIN + b"more"
    with pytest.raises(DataError, match="SHA-256"):
        nlb_files(NAME, tmp_path)
    assert visible(tmp_path) == []


def assert_helpful(error, root):
    message = str(error.value)
    for path in (root / "000140" / REAL.train.path, root / "000140" / REAL.test.path):
        assert str(path) in message
    assert "dandi download DANDI:000140/0.220113.0408 -o" in message
    assert "pip install 'neuro_lightning[dandi]'" in message
    assert "data.root" in message and "data.simulate=true" in message


def test_without_dandi_one_error_says_what_to_do(tmp_path, no_dandi):
    with pytest.raises(DataError, match="package dandi") as error:
        nlb_files(NAME, tmp_path)
    assert_helpful(error, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_network(tmp_path, dandi):
    dandi.offline = True
    with pytest.raises(DataError, match="Failed to resolve host") as error:
        nlb_files(NAME, tmp_path)
    assert_helpful(error, tmp_path)
    assert dandi.asked == []


def test_download_forbidden(tmp_path, dandi):
    with pytest.raises(DataError, match=r"data\.download=false") as error:
        nlb_files(NAME, tmp_path, download=False)
    assert_helpful(error, tmp_path)
    assert dandi.asked == []


def test_the_archive_does_not_have_the_file(tmp_path, dandi):
    del dandi.contents[REAL.test.path]
    with pytest.raises(DataError, match="No asset at path") as error:
        nlb_files(NAME, tmp_path)
    assert_helpful(error, tmp_path)


def test_no_space(tmp_path, dandi, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=56_999))
    with pytest.raises(DataError, match=r"free space.*data\.root"):
        nlb_files(NAME, tmp_path)
    assert dandi.asked == []
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=57_000))
    nlb_files(NAME, tmp_path)


def test_a_root_that_cannot_be_made(tmp_path, dandi):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be made.*data\.root"):
        nlb_files(NAME, tmp_path / "file")


def test_unknown_dataset(tmp_path):
    with pytest.raises(ConfigError, match="mc_rtt"):
        nlb_files("mc_amaze", tmp_path)


def test_existing_files_are_checked(tmp_path, no_dandi):
    put(tmp_path)
    assert nlb_files(NAME, tmp_path, download=False) == (tmp_path / REAL.train.name, tmp_path / REAL.test.name)
    put(tmp_path, train=TRAIN[:-1])
    with pytest.raises(DataError, match="49,999 bytes instead of 50,000"):
        nlb_files(NAME, tmp_path, download=False)
    put(tmp_path, train=bytes(50_000))
    with pytest.raises(DataError, match="SHA-256"):
        nlb_files(NAME, tmp_path)
    assert (tmp_path / REAL.train.name).exists(), "a file that somebody else put there is not removed"


def test_a_verified_file_is_hashed_once(tmp_path, no_dandi, monkeypatch):
    put(tmp_path)
    nlb_files(NAME, tmp_path, download=False)

    def digest(*args):
        raise AssertionError("hashed again")

    with monkeypatch.context() as patch:
        patch.setattr(download.hashlib, "file_digest", digest)
        nlb_files(NAME, tmp_path, download=False)
    path = tmp_path / REAL.train.name
    path.write_bytes(bytes(50_000))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
    with pytest.raises(DataError, match="SHA-256"):
        nlb_files(NAME, tmp_path, download=False)


def test_a_damaged_checksum_file_is_written_again(tmp_path, no_dandi):
    put(tmp_path)
    for text in ("", "[]", '{"size": 50000}'):
        (tmp_path / f".{REAL.train.name}.sha256.json").write_text(text)
        nlb_files(NAME, tmp_path, download=False)


@pytest.mark.parametrize("where", ["session_description", "general/keywords"])
def test_files_that_say_they_are_simulated_are_accepted(tmp_path, no_dandi, where):
    put(tmp_path)
    path = tmp_path / REAL.train.name
    with h5py.File(path, "w") as file:
        file["session_description"] = "a monkey reaches"
    with pytest.raises(DataError, match="not the published file"):
        nlb_files(NAME, tmp_path, download=False)
    with h5py.File(path, "a") as file:
        if where in file:
            del file[where]
        text = "Simulated twin of mc_maze_small"
        file[where] = text if where == "session_description" else np.array([text.encode()])
    nlb_files(NAME, tmp_path, download=False)


def test_dandi_logs_are_silenced_only_during_the_download(tmp_path, dandi, caplog):
    logger = logging.getLogger("dandi")
    logger.setLevel(logging.INFO)
    dandi.answer = lambda: logger.error("a traceback of forty lines") or types.SimpleNamespace(raise_for_status=int)
    nlb_files(NAME, tmp_path)
    assert not [r for r in caplog.records if r.name == "dandi"]
    assert logger.level == logging.INFO


def test_progress_is_logged(tmp_path, dandi, caplog):
    with caplog.at_level(logging.INFO):
        nlb_files(NAME, tmp_path)
    lines = [r.message for r in caplog.records if REAL.train.name in r.message]
    assert "downloading" in lines[0] and lines[-1].endswith("100 %") and len(lines) == 11


def _fetch_slowly(target, asset, started, queue):
    def stream(start_at):
        started.wait(timeout=30)
        yield TRAIN[start_at:]

    try:
        download._download(stream, target, asset)
        queue.put(target.read_bytes() == TRAIN)
    except BaseException as error:
        queue.put(repr(error))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_two_processes_fetch_the_same_file(tmp_path, no_dandi):
    asset = params_module.NLB_DATASETS[NAME].train
    fork = multiprocessing.get_context("fork")
    started, queue = fork.Event(), fork.Queue()
    jobs = [fork.Process(target=_fetch_slowly, args=(tmp_path / asset.path, asset, started, queue)) for _ in range(2)]
    for job in jobs:
        job.start()
    started.set()
    assert [queue.get(timeout=30) for _ in jobs] == [True, True]
    for job in jobs:
        job.join(timeout=30)
    assert not list(tmp_path.rglob("*.part"))


def test_the_real_file_is_the_published_one(shared_data, tmp_path):
    asset = REAL.test
    path = tmp_path / asset.name  # a link, so that the checksum is remembered here
    path.symlink_to(shared_data / "nlb" / NAME / asset.name)
    assert download._checksum(path) == asset.sha256
    download.check_asset(path, asset)


def test_the_dandi_package_has_the_functions_that_are_called():
    api = pytest.importorskip("dandi.dandiapi", reason="the optional package dandi is not installed")
    import inspect

    assert list(inspect.signature(api.DandiAPIClient.get_dandiset).parameters)[1:3] == ["dandiset_id", "version_id"]
    assert "path" in inspect.signature(api.RemoteDandiset.get_asset_by_path).parameters
    assert hasattr(api.DandiAPIClient, "get_url") and hasattr(api.DandiAPIClient, "__enter__")
    assert hasattr(api.BaseRemoteAsset, "get_download_file_iter")
