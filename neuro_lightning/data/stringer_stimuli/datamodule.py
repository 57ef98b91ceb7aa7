"""Data modules of Stringer's recordings of responses to stimuli: gratings and natural images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from neuro_lightning.data.cache import cached
from neuro_lightning.data.module import ImageDataModule, TwinDataModule
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.stringer_stimuli.natimg import load_natimg
from neuro_lightning.data.stringer_stimuli.orientations import load_orientations
from neuro_lightning.data.stringer_stimuli.twin import write_natimg, write_orientations
from neuro_lightning.errors import DataError
from neuro_lightning.functional.orientation import decode_bumps, fit_bumps, median_angle_error
from neuro_lightning.metrics.angle import decoding_neurons

VERSION = 2  # of the readers: raise it when they give other results, and older caches are left aside
ORIENTATIONS = "stringer_orientations"
NATIMG = "stringer_natimg"
OSF = "https://osf.io/ny4ut/download (937 MB)"
GRATINGS = "https://doi.org/10.25378/janelia.8279387"
FIGSHARE = "https://doi.org/10.25378/janelia.6845348"
IMAGES = "images_natimg2800_all.mat"


@takes_options_of(load_orientations, without=("truth",))
class Orientations(TwinDataModule, ImageDataModule):
    """Responses of mouse V1 to static gratings, as images of them: Stringer et al. 2021.

    Args:
        cache_dir: prepared tensors.
        file: Neuromatch's ``stringer_orientations.npy``, or a session's ``gratings_*.npy``; a path is taken as it is.
        loader: see :class:`ImageDataModule`; and how the file is read, see
            :func:`neuro_lightning.data.stringer_stimuli.orientations.load_orientations`.
    """

    def __init__(self, *, cache_dir: str, file: str = "stringer_orientations.npy", **loader: Any) -> None:
        super().__init__(**loader)
        self.cache_dir, self.file = Path(cache_dir), file

    def load(self) -> Recording:
        """Images and responses, from the cache if they are there."""
        if self.simulate:
            path, truth = write_orientations(self.twin_folder(ORIENTATIONS), seed=self.simulate_seed)
        else:
            where = f"fetch it from {GRATINGS if 'gratings' in self.file else OSF}"
            path, truth = _find(self.root, ORIENTATIONS, self.file, where), None
        return cached(
            self.cache_dir,
            {"reader": ORIENTATIONS, "version": VERSION, "simulate": self.simulate, **self.options},
            [path] if truth is None else [path, truth],
            lambda: load_orientations(path, **self.options, truth=truth),
        )

    def reference_scores(self, split: str) -> dict[str, dict[str, float]]:
        """What recorded training responses tell of the angle: the authors' linear decoder, by the same neurons.

        It is a reference rather than a bound: a model without noise may make better templates than that.
        """
        splits, period = self.recording.splits, self.options["period"]
        neurons = decoding_neurons(self.spec.n_neurons).numpy()
        (x, angle), (x_split, angle_split) = (
            (torch.from_numpy(s.responses[:, neurons]), torch.rad2deg(torch.from_numpy(s.angle)))
            for s in (splits["train"], splits[split])
        )
        decoded = decode_bumps(fit_bumps(x, angle, period), x_split, period)
        error = float(median_angle_error(decoded, angle_split, period))
        return {**super().reference_scores(split), "linear decoder": {"angle_deg": error}}


@takes_options_of(load_natimg, without=("truth",))
class NaturalImages(TwinDataModule, ImageDataModule):
    """Responses of mouse V1 to natural images, each shown twice: Stringer et al. 2019.

    Args:
        cache_dir: prepared tensors.
        session: ``<mouse>_<date>`` of the recording, or its file's name or path; None takes the only one there.
        images: the images' file.
        loader: see :class:`ImageDataModule`; and how the files are read, see
            :func:`neuro_lightning.data.stringer_stimuli.natimg.load_natimg`.
    """

    def __init__(self, *, cache_dir: str, session: str | None = None, images: str = IMAGES, **loader: Any) -> None:
        super().__init__(**loader)
        self.cache_dir, self.session, self.images = Path(cache_dir), session, images

    def files(self) -> tuple[Path, Path]:
        """The recording and the images.

        Raises:
            DataError: one is missing, or no session is named though there are several.
        """
        session = self.session or "M*"
        name = session if session.endswith(".mat") else f"natimg2800_{session}.mat"
        where = f"fetch it from {FIGSHARE}"
        return _find(self.root, NATIMG, name, where), _find(self.root, NATIMG, self.images, where)

    def load(self) -> Recording:
        """Images and responses, from the cache if they are there."""
        if self.simulate:
            *files, truth = write_natimg(self.twin_folder(NATIMG), seed=self.simulate_seed)
        else:
            files, truth = list(self.files()), None
        return cached(
            self.cache_dir,
            {"reader": NATIMG, "version": VERSION, "simulate": self.simulate, **self.options},
            files if truth is None else [*files, truth],
            lambda: load_natimg(*files, **self.options, truth=truth),
        )


def _find(root: Path, name: str, file: str, where: str) -> Path:
    """A file by its name in the dataset's folders, of which ``*`` may be a part, or by its path.

    Raises:
        DataError: it is not there, or there are several.
    """
    path = Path(file).expanduser()
    if path.parent != Path():
        found = {path.name: path} if path.is_file() else {}
        missing = f"{file} is not there: {where}"
    else:
        folders = [root, root / "stringer", root / name]
        found = {path.name: path for folder in folders for path in sorted(folder.glob(file))}
        places = f"{folders[2]} nor in {folders[1]}"
        missing = f"{file.replace('M*', '<mouse>_<date>')} is neither in {places}: {where} and put it into {folders[2]}"
    if not found:
        raise DataError(f"{missing}, or set data.simulate=true")
    if len(found) > 1:
        raise DataError(f"{root} has {', '.join(found)}: choose one with data.session=<mouse>_<date>")
    return next(iter(found.values()))
