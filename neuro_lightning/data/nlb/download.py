"""Find, fetch and check the files of the Neural Latents Benchmark.

The files lie on the DANDI archive (https://dandiarchive.org); the ``dandi`` package fetches their published version,
size and SHA-256 are compared with those of ``neuro_lightning.data.nlb.params``. ``dandi`` is optional and imported
only when something has to be fetched.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.locks import locked
from neuro_lightning.data.formats.nwb import is_simulated
from neuro_lightning.data.identity import checksum
from neuro_lightning.data.nlb.params import Asset, NLBParams, find_files, get_params
from neuro_lightning.errors import DataError

log = logging.getLogger(__name__)


def nlb_files(dataset: str, root: str | Path, *, download: bool = True, test: bool = True) -> tuple[Path, Path]:
    """The train and the test file of a dataset: found, or fetched into ``root/<dandiset>/``, and checked.

    Found are ``root/<dandiset>/sub-X/FILE``, ``root/sub-X/FILE``, ``root/FILE``, and the same below
    ``root/<dataset>``.

    Args:
        dataset: the dataset's name.
        root: the folder to look in (``data.root``).
        download: fetch what is missing.
        test: whether the test file is needed; if not, its path is where it would lie.

    Raises:
        ConfigError: the benchmark has no dataset of that name.
        DataError: a file is missing and cannot be fetched, or is not the published one.
    """
    params, root = get_params(dataset), Path(root).expanduser()
    wanted = params.assets if test else params.assets[:1]
    missing = [asset for asset, path in zip(wanted, find_files(params.name, root), strict=False) if not path.is_file()]
    if missing and not download:
        raise DataError(_by_hand(params, root, "is not here, and data.download=false forbids to fetch it"))
    if missing:
        _fetch(params, missing, root)
    paths = find_files(params.name, root)
    for asset, path in zip(wanted, paths, strict=False):
        check_asset(path, asset)
    return paths


def check_asset(path: Path, asset: Asset) -> None:
    """Whether a file is the published one; a simulated twin, which says so in its description, passes too.

    A file that has passed is remembered beside it by size and time of change, and is not hashed again.

    Raises:
        DataError: size or SHA-256 differ.
    """
    size = path.stat().st_size
    if (size == asset.size and _checksum(path) == asset.sha256) or is_simulated(path):
        return
    what = f"{size:,} bytes instead of {asset.size:,}" if size != asset.size else "another SHA-256 than published"
    raise DataError(f"{path} is not the published file: it has {what}. Remove it, and the next run fetches it again")


def _checksum(path: Path) -> str:
    """SHA-256 of a file, from its sidecar where the file has not changed since."""
    stat = path.stat()
    identity = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    sidecar = path.with_name(f".{path.name}.sha256.json")
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(sidecar.read_text())
        if {name: known[name] for name in identity} == identity:
            return known["sha256"]
    digest = checksum(path)
    with suppress(OSError), atomic_path(sidecar) as part:  # a folder that may only be read: hash again next time
        part.write_text(json.dumps({**identity, "sha256": digest}))
    return digest


def _by_hand(params: NLBParams, root: Path, trouble: str) -> str:
    """What is wrong, which files belong where, and the commands that fetch them."""
    lines = [
        f"  {path}  ({asset.size:,} bytes{'' if path.is_file() else ', missing'})"
        for path, asset in zip(find_files(params.name, root), params.assets, strict=True)
    ]
    folder = shlex.quote(str(root))
    command = f"mkdir -p {folder} && dandi download DANDI:{params.dandiset}/{params.version} -o {folder}"
    return "\n".join(
        [
            f"{params.name} {trouble}. These files are expected:",
            *lines,
            f"Fetch them with\n  pip install 'neuro_lightning[dandi]'\n  {command}",
            "or set data.root=DIR to where they lie, or try everything on a simulated twin: data.simulate=true",
        ]
    )


def _fetch(params: NLBParams, assets: Sequence[Asset], root: Path) -> None:
    """Download published files to where ``dandi download`` would put them.

    Raises:
        DataError: there is no dandi, no network or no space, or what came is not the published file.
    """
    try:
        from dandi.dandiapi import DandiAPIClient
    except ImportError:
        raise DataError(
            _by_hand(params, root, "is not here, and neither is the package dandi, which fetches it")
        ) from None
    folder = root / params.dandiset
    _make_room(folder, assets)
    try:
        with _quiet_dandi(), DandiAPIClient() as client:
            # one plain request first: dandi itself would try for a minute before it says that it is offline
            client.session.get(client.get_url("/info/"), timeout=30).raise_for_status()
            dandiset = client.get_dandiset(params.dandiset, params.version)
            for asset in assets:
                remote = dandiset.get_asset_by_path(asset.path)
                _download(remote.get_download_file_iter(), folder / asset.path, asset)
    except DataError:
        raise
    except Exception as error:  # requests, dandi and pydantic raise what they like when a server misbehaves
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        trouble = f"could not be downloaded ({reason}); the next run continues from the part that was downloaded"
        raise DataError(_by_hand(params, root, trouble)) from error


def _download(stream: Callable[[int], Iterator[bytes]], path: Path, asset: Asset) -> None:
    """One file, by way of ``.NAME.part`` beside it, where an earlier attempt may have left its beginning.

    Args:
        stream: gives the file's bytes from an offset on.
        path: where the file shall be.
        asset: what is published.

    Raises:
        DataError: what came is not the published file; it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    # two jobs of a sweep that fetch the same file do so one after the other
    with locked(path.with_name(f".{path.name}.lock"), remove=True), part.open("ab") as file:
        if path.is_file():  # another process was quicker
            part.unlink(missing_ok=True)
            return
        done = file.tell()
        if done > asset.size:
            file.truncate(done := 0)
        log.info(f"downloading {asset.name} ({asset.size / 1e6:,.0f} MB) to {path.parent}")
        for chunk in stream(done) if done < asset.size else ():
            file.write(chunk)
            tenths, done = done * 10 // asset.size, done + len(chunk)
            if done * 10 // asset.size > tenths:
                log.info(f"{asset.name}: {done * 10 // asset.size * 10} %")
        file.flush()
        if file.tell() < asset.size:
            raise OSError(f"the connection ended after {file.tell():,} of {asset.size:,} bytes")
        with part.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        if digest != asset.sha256:
            part.unlink()
            raise DataError(
                f"the download of {path} has another SHA-256 than the published file ({digest[:12]}... instead of "
                f"{asset.sha256[:12]}...), so it was removed; run it again, and if it stays so, tell DANDI"
            )
        os.replace(part, path)


def _make_room(folder: Path, assets: Sequence[Asset]) -> None:
    """Make the folder, and see that the files fit.

    Raises:
        DataError: the disk has too little space, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}): set data.root=DIR to another folder") from None
    parts = [folder / asset.path for asset in assets]
    there = sum(p.stat().st_size for path in parts if (p := path.with_name(f".{path.name}.part")).is_file())
    needed = sum(asset.size for asset in assets) - there
    if free < needed:
        raise DataError(
            f"{folder} has {free / 1e6:,.0f} MB of free space, the download needs {needed / 1e6:,.0f} MB: "
            "make room or set data.root=DIR to another disk"
        )


@contextmanager
def _quiet_dandi() -> Iterator[None]:
    """Dandi logs whole tracebacks; ours is one message."""
    logger = logging.getLogger("dandi")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
