"""``run.json``: what a run was, what it ran on and what came out; the source of truth of every report."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.errors import DataError
from neuro_lightning.ranks import is_main_process
from neuro_lightning.version import VERSION

FILE_NAME = "run.json"
KINDS = {
    dict: ("objective", "data", "config", "checkpoints", "metrics"),
    list: ("overrides",),
    str: ("status", "error", "run_id"),
    int | float: ("wall_s", "attempts"),
}
PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "numpy", "neuro_lightning", "nlb_tools")


class RunRecord:
    """Writes ``run.json`` into the folder of a run, whole at every change, from the first process only.

    Args:
        folder: the run's folder; made if it is not there.
        resumed: continue the record that is there: its start, its id and the time it has taken are kept.
    """

    def __init__(self, folder: str | Path, *, resumed: bool = False) -> None:
        self.path = Path(folder) / FILE_NAME
        found = read_record_if_any(self.path)
        failed, self._attempts = found.get("status") == "failed", found.get("attempts") or 1
        self._attempts += failed  # in the same folder; an interruption is no new attempt
        before = found if resumed else {}
        self.values: dict[str, Any] = before
        self._found = dict(before)
        self._begun = False
        self.run_id: str = self.values.get("run_id") or stable_id(folder)
        self._spent = float(self.values.get("wall_s") or 0.0)
        self._begin = time.perf_counter()
        self._peak = PeakMemory()

    def start(self, *, config: Mapping[str, Any], overrides: Sequence[str] = (), seed: int | None = None) -> None:
        """Note what is run and with what.

        Args:
            config: the resolved config as plain dictionaries.
            overrides: as typed, ``["model=gru", "seed=1"]``.
            seed: the run's seed.
        """
        self._begin, self._peak = time.perf_counter(), PeakMemory()
        started = self.values.get("started") or _now()
        self.values |= {
            "run_id": self.run_id,
            "status": "running",
            "error": None,
            "started": started,
            "ended": None,
            "attempts": self._attempts,
        }
        self.values |= {"overrides": list(overrides), "seed": seed, "config": dict(config)}
        self.values |= {"versions": versions(), "git": git_state(), "host": socket.gethostname()}
        self.values |= {"slurm_job": os.environ.get("SLURM_JOB_ID")}
        self._write()

    def update(self, **values: Any) -> None:
        """Add or replace values; a dictionary is merged into the one that is there."""
        for name, value in values.items():
            old = self.values.get(name)
            self.values[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
        self._write()

    def close(self, status: str, error: str | None = None, **values: Any) -> None:
        """Note how the run ended, such as ``finished`` or ``diverged``; ``values`` as in :meth:`update`."""
        wall = self._spent + time.perf_counter() - self._begin
        self.update(
            status=status,
            error=error,
            ended=_now(),
            wall_s=round(wall, 3),
            peak_memory=self._peak.read(),
            **values,
        )

    def fail(self, error: BaseException) -> None:
        """Note that the run ended with an error."""
        text = str(error) or type(error).__name__
        self.close("failed", f"{type(error).__name__}: {text}")

    def interrupt(self) -> None:
        """Note that the user stopped the run."""
        self.close("interrupted")

    def mark_begun(self, *_: Any) -> None:
        """Note that the training has begun: an error from now on is recorded as this run's."""
        self._begun = True

    def restore(self, error: BaseException) -> None:
        """Write the earlier record back after a resume that failed before it trained; it counts as an attempt."""
        if self._begun:
            self.fail(error)
            return
        self.values = self._found | ({"attempts": self._attempts} if self._found.get("status") == "failed" else {})
        self._write()

    def _write(self) -> None:
        if is_main_process():
            write_json(self.path, self.values)


class PeakMemory:
    """The largest memory that this process has held since the object was made."""

    def __init__(self) -> None:
        self.since_start = not _reset_resident_peak()
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, Any]:
        """``rss_mb``, resident memory in MB, and ``cuda_mb``, tensors on the GPU in MB (null without one).

        ``of_process`` is true where the system cannot forget an earlier peak: that of an earlier run, maybe.
        """
        cuda = _cuda()
        return {
            "rss_mb": round(_resident_peak() / 1e6, 1),
            "of_process": self.since_start,
            "cuda_mb": round(cuda.max_memory_allocated() / 1e6, 1) if cuda else None,
        }


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    # is_initialized: asking a GPU that this run does not use would start it
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _reset_resident_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the high-water mark
    except OSError:
        return False
    return True


def _resident_peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024


# ---- files


def read_record(path: str | Path) -> dict[str, Any]:
    """The record of a run, from its ``run.json`` or its folder.

    Raises:
        DataError: there is none, or it is not JSON.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _check_kinds(record)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the folder of a run, which holds {FILE_NAME}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it, or restore it from a copy") from None
    return record


def newest_finished_run(folder: str | Path) -> Path | None:
    """The run below a folder that finished last; None if there is none."""
    records = sorted(Path(folder).rglob(FILE_NAME), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in records if read_record_if_any(path).get("status") == "finished"), None)


def _check_kinds(record: Any) -> None:
    """Check the types of the parts that others read, which would otherwise fail far from here."""
    if not isinstance(record, dict):
        raise ValueError(f"it holds a {type(record).__name__}, no dictionary")
    for kind, names in KINDS.items():
        for name in names:
            value = record.get(name)
            if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
                raise ValueError(f"{name} is {str(value)[:40]!r}")
    if not all(isinstance(word, str) for word in record.get("overrides") or ()):
        raise ValueError("overrides holds something else than text")
    for part, name in (("objective", "value"), ("objective", "peak"), ("objective", "end"), ("checkpoints", "epochs")):
        value = (record.get(part) or {}).get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{part}.{name} is {str(value)[:40]!r}")


def read_record_if_any(path: str | Path) -> dict[str, Any]:
    """As :func:`read_record`; empty where there is none, or a damaged one that a full disk has cut, say."""
    try:
        return read_record(path)
    except DataError:
        return {}


def write_json(path: Path, values: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write strict JSON in one piece: a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(plain(values), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """``value`` as JSON holds it: arrays become lists, numbers that are not finite null, others their text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy and torch, scalars too
        return plain(value.tolist())
    return str(value)


# ---- identities


def stable_id(folder: str | Path) -> str:
    """A run's id: the same for the same folder, so that a resumed run is recognized."""
    return hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:12]


def versions() -> dict[str, str | None]:
    """The installed versions of Python and of the packages that decide a result."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package.replace("-", "_")] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package.replace("-", "_")] = None
    if found["neuro_lightning"] is None:  # run from a checkout that is not installed
        found["neuro_lightning"] = VERSION
    return found


def git_state(folder: str | Path | None = None) -> dict[str, Any] | None:
    """Commit of this code and whether tracked files differ from it; None where it is not under git.

    Args:
        folder: where the code lies; by default this package.
    """
    folder = Path(folder) if folder is not None else Path(__file__).parent
    # an installed copy inside somebody's checkout is not that checkout's code: ask for a tracked file
    if not _git(folder, "ls-files", "--", "."):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "-uno"))} if commit else None


# git's settings can name programs that it starts: only these count, besides a checkout's own
GIT_SETTINGS = (
    "core.fsmonitor=false", f"core.hooksPath={os.devnull}", f"core.attributesFile={os.devnull}", "core.pager=cat",
    "protocol.allow=never", "diff.external=", "submodule.recurse=false",
)  # fmt: skip
GIT_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ATTR_NOSYSTEM": "1",
}  # fmt: skip


def _git(folder: Path, *command: str) -> str | None:
    """The output of a git command in a folder, without settings and hooks; None if it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = [word for setting in GIT_SETTINGS for word in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *settings, *command],
            env={**kept, **GIT_ENVIRONMENT}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def flat_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``["+model.hidden=8", "seed=1"]`` as ``{"model.hidden": 8, "seed": 1}``.

    Deletions and Hydra's own keys are left out.
    """
    values = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.lstrip("+")
        if equals and not key.startswith(("~", "hydra.", "hydra/")):
            values[key] = _scalar(text)
    return values


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "null": None}.get(text.lower(), text.strip("'\""))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
