"""One process holds a lock or works in a folder at a time."""

from multiprocessing import get_context
from types import SimpleNamespace

import pytest

from neuro_lightning.artifacts.folders import (
    claim_run_folder,
)
from neuro_lightning.artifacts.locks import (
    FOLDER_LOCK,
    Lock,
    lock_folder,
    locked,
    locked_folder,
    new_folder,
    unlock_folder,
)
from neuro_lightning.errors import FolderError


def test_a_lock_keeps_others_out_until_its_process_dies(tmp_path, other_process):
    other = other_process(tmp_path / "run")
    assert not lock_folder(tmp_path / "run") and not lock_folder(tmp_path / "run", timeout_s=0.1)
    with pytest.raises(FolderError, match=rf"run is in use by process {other.pid} on \S+, since 20\S+: wait for"):
        claim_run_folder(tmp_path / "run")
    other.kill()
    assert lock_folder(tmp_path / "run", timeout_s=10.0)
    unlock_folder(tmp_path / "run")


def test_a_process_may_enter_its_own_folder_again(tmp_path):
    with locked_folder(tmp_path) as acquired, locked_folder(tmp_path / ".") as again:
        assert acquired and again and Lock(tmp_path / FOLDER_LOCK).acquire() is False
    assert Lock(tmp_path / FOLDER_LOCK).acquire() is True


def test_waiting_calls_on_wait_and_a_removed_lock_still_excludes_others(tmp_path):
    said = []
    with locked(tmp_path / "x.lock", remove=True) as acquired:
        assert acquired and Lock(tmp_path / "x.lock").acquire(0.06, lambda: said.append("waits")) is False
    assert said == ["waits"] and not (tmp_path / "x.lock").exists()


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    import errno

    lock = Lock(tmp_path / "a.lock")
    monkeypatch.setattr(lock, "_lock", SimpleNamespace(acquire=lambda **k: raises(OSError(errno.ENOLCK, "no locks"))))
    assert lock.acquire() is None


def raises(error):
    raise error


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=r"file.* cannot be written \(.*choose another folder"):
        claim_run_folder(tmp_path / "file" / "run")
    with pytest.raises(FolderError, match=r"choose another folder with hydra\.run\.dir"):
        new_folder(tmp_path / "file" / "run")


def _make(path, queue):
    queue.put(new_folder(path).name)


def test_new_folders_of_processes_that_start_together_differ(tmp_path):
    context = get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path / "a" / "run", queue)) for _ in range(6)]
    for process in processes:
        process.start()
    names = {queue.get(timeout=20) for _ in processes}
    for process in processes:
        process.join()
    assert names == {"run", *(f"run_{i}" for i in range(2, 7))}
