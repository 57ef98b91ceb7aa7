"""From several files in ``data.path`` to the config of one recording each."""

from __future__ import annotations

import copy
import glob
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from neuro_lightning.errors import DataError
from neuro_lightning.settings.registry import find_target

SESSIONS = "neuro_lightning.data.sessions.Sessions"
LOADER = (
    "batch_size", "eval_batch_size", "shuffle_seed", "steps_at_once", "least_steps", "sampling",
)  # fmt: skip
"""Keys that are said once for all sessions."""


def with_sessions(cfg: DictConfig, trusted: Sequence[str] = ()) -> DictConfig:
    """The config with a recording for each file, where ``data.path`` is a list, a folder or a pattern; else as it is.

    Without a path a dataset may itself know of several files, by a class method ``session_files``.

    Args:
        cfg: the composed config of ``conf/train.yaml``.
        trusted: packages of the user's own that configs may build from.

    Raises:
        DataError: no file fits.
    """
    path = None if OmegaConf.is_missing(cfg.data, "path") else cfg.data.get("path")
    files = _files(path, cfg.data, trusted)
    if files is None:
        return cfg
    single = copy.deepcopy(cfg.data)
    sessions = {}
    for name, file in zip(session_names(files), files, strict=True):
        sessions[name] = OmegaConf.merge(single, {"path": str(file)})
    changed = copy.deepcopy(cfg)
    loading = OmegaConf.masked_copy(single, [key for key in LOADER if key in single])
    own = {"_target_": SESSIONS, "leave_out_damaged": not OmegaConf.is_list(path), "sessions": sessions}
    OmegaConf.set_struct(changed, False)
    OmegaConf.set_struct(loading, False)
    changed.data = OmegaConf.merge(loading, own)
    return changed


def session_names(files: Sequence[Path]) -> list[str]:
    """A name for each file that no other has: what differs in the files' names, or in their folders' where these agree.

    Example:
        >>> session_names([Path("a/sub-1_ses-monday_ecephys.nwb"), Path("b/sub-1_ses-tuesday_ecephys.nwb")])
        ['ses-monday', 'ses-tuesday']
        >>> session_names([Path("monday/spikes.nwb"), Path("tuesday/spikes.nwb")])
        ['monday', 'tuesday']
        >>> session_names([Path("a/b_c.nwb"), Path("a_b/c.nwb"), Path("b/c.nwb")])
        ['a_b_1', 'a_b_2', 'b']
        >>> session_names([Path("monday.nwb")])
        ['monday']
    """
    words = [file.stem.split("_") for file in files]
    if len({file.stem for file in files}) < len(files):
        words = [[*file.parent.parts, *of_file] for file, of_file in zip(files, words, strict=True)]
    for end in (0, -1) if len(files) > 1 else ():
        while len({of_file[end] for of_file in words}) == 1 and min(map(len, words)) > 1:
            for of_file in words:
                of_file.pop(end)
    names = ["_".join(of_file).replace("/", "") for of_file in words]
    again = {name for name in names if names.count(name) > 1}
    return [f"{name}_{number}" if name in again else name for number, name in enumerate(names, start=1)]


def _files(path: object, data: DictConfig, trusted: Sequence[str]) -> list[Path] | None:
    """The files of several sessions; None where one recording is meant."""
    if OmegaConf.is_list(path):
        files = [Path(str(file)).expanduser() for file in path]
        if double := next((file for file in files if files.count(file) > 1), None):
            raise DataError(f"data.path names {double} more than once: a recording is one session")
        if not files:
            raise DataError("data.path=[] names no file")
        return sorted(files)
    if path is not None and not isinstance(path, str):
        return None
    target = find_target(data.get("_target_"), trusted) if "_target_" in data else None
    if path is None:
        find = getattr(target, "session_files", None)
        files = find(OmegaConf.to_container(data, resolve=True)) if find else None
        return files if files and len(files) > 1 else None
    pattern = getattr(target, "file_pattern", None)
    place = Path(path).expanduser()
    if pattern is None or place.is_file() or not (place.is_dir() or glob.has_magic(path)):
        return None
    found = sorted(place.rglob(pattern)) if place.is_dir() else sorted(map(Path, glob.glob(str(place), recursive=True)))
    files = [file for file in found if file.is_file()]
    if not files:
        what = f"holds no {pattern}" if place.is_dir() else "fits no file"
        raise DataError(f"data.path={path} {what}: name a file, a list of files, a folder or a pattern")
    return files
