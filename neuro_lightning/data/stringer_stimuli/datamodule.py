"""Data modules of Stringer's recordings of responses to stimuli: gratings and natural images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from neuro_lightning.data.cache import cached
from neuro_lightning.data.module import ImageDataModule
from neuro_lightning.data.recording import Recording
from neuro_lightning.data.stringer_stimuli.natimg import load_natimg
from neuro_lightning.data.stringer_stimuli.orientations import load_orientations
from neuro_lightning.data.stringer_stimuli.twin import write_natimg, write_orientations
from neuro_lightning.errors import DataError
from neuro_lightning.functional.orientation import decode_bumps, fit_bumps, median_angle_error
from neuro_lightning.metrics.angle import decoding_neurons

VERSION = 1  # of the readers: raise it when they give other results, and older caches are left aside
ORIENTATIONS = "stringer_orientations"
NATIMG = "stringer_natimg"
OSF = "https://osf.io/ny4ut/download (937 MB)"
GRATINGS = "https://doi.org/10.25378/janelia.8279387"
FIGSHARE = "https://doi.org/10.25378/janelia.6845348"
IMAGES = "images_natimg2800_all.mat"


class Orientations(ImageDataModule):
    """Responses of mouse V1 to static gratings, as images of them: Stringer et al. 2021.

    Args:
        root: the files lie in ``<root>/stringer_orientations/``, ``<root>/stringer/`` or ``<root>`` itself.
        cache_dir: prepared tensors.
        file: Neuromatch's ``stringer_orientations.npy``, or a session's ``gratings_*.npy``; a path is taken as it is.
        neurons: how many to draw, at most; None takes all.
        remove_components: spontaneous principal components taken out of the responses.
        standardize: z-score by the training trials.
        val_fraction: share of the trials that do not test to validate with.
        seed: draws the validation trials and the neurons.
        size: ``[H, W]`` of the images in pixels.
        degrees_per_pixel: of the visual field.
        cycles_per_degree: spatial frequency of the gratings.
        phase: of the gratings in degrees.
        period: 180 takes gratings as orientations, 360 as directions.
        simulate: use a simulated twin, written below ``root`` in the layout of the real file.
        simulate_seed: of the twin.
        loader: see :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str,
        cache_dir: str,
        file: str = "stringer_orientations.npy",
        neurons: int | None = None,
        remove_components: int = 0,
        standardize: bool = True,
        val_fraction: float = 0.1,
        seed: int = 0,
        size: Sequence[int] = (32, 32),
        degrees_per_pixel: float = 2.0,
        cycles_per_degree: float = 0.05,
        phase: float = 0,
        period: float = 180,
        simulate: bool = False,
        simulate_seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.root, self.cache_dir, self.file = Path(root).expanduser(), Path(cache_dir), file
        self.simulate, self.simulate_seed = simulate, simulate_seed
        self.options = {
            "neurons": neurons,
            "remove_components": remove_components,
            "standardize": standardize,
            "val_fraction": val_fraction,
            "seed": seed,
            "size": tuple(size),
            "degrees_per_pixel": degrees_per_pixel,
            "cycles_per_degree": cycles_per_degree,
            "phase": phase,
            "period": period,
        }

    def load(self) -> Recording:
        """Images and responses, from the cache if they are there."""
        if self.simulate:
            path, truth = write_orientations(
                _twin(self.root, ORIENTATIONS, self.simulate_seed), seed=self.simulate_seed
            )
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


class NaturalImages(ImageDataModule):
    """Responses of mouse V1 to natural images, each shown twice: Stringer et al. 2019.

    Args:
        root: the files lie in ``<root>/stringer_natimg/``, ``<root>/stringer/`` or ``<root>`` itself.
        cache_dir: prepared tensors.
        session: ``<mouse>_<date>`` of the recording, or its file's name or path; None takes the only one there.
        images: the images' file.
        neurons: how many to draw, at most; None takes all.
        remove_components: spontaneous principal components taken out of the responses.
        standardize: z-score by the training images.
        val_fraction: share of the images to validate with.
        test_fraction: share of the images to test with.
        seed: draws the images of each split, and the neurons.
        crop: ``[top, bottom, left, right]`` in pixels, None for all.
        downsample: pixels a side that are averaged to one.
        simulate: use a simulated twin, written below ``root`` in the layout of the real files.
        simulate_seed: of the twin.
        loader: see :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str,
        cache_dir: str,
        session: str | None = None,
        images: str = IMAGES,
        neurons: int | None = None,
        remove_components: int = 32,
        standardize: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
        crop: Sequence[int] | None = None,
        downsample: int = 4,
        simulate: bool = False,
        simulate_seed: int = 0,
        **loader: Any,
    ) -> None:
        super().__init__(**loader)
        self.root, self.cache_dir, self.session, self.images = Path(root).expanduser(), Path(cache_dir), session, images
        self.simulate, self.simulate_seed = simulate, simulate_seed
        self.options = {
            "neurons": neurons,
            "remove_components": remove_components,
            "standardize": standardize,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "seed": seed,
            "crop": None if crop is None else tuple(crop),
            "downsample": downsample,
        }

    def files(self) -> tuple[Path, Path]:
        """The recording and the images.

        Raises:
            DataError: one is missing, or no session is named though there are several.
        """
        where = f"fetch it from {FIGSHARE}"
        if self.session is None:
            found = {
                p.name: p for folder in _folders(self.root, NATIMG) for p in sorted(folder.glob("natimg2800_M*.mat"))
            }
            if not found:
                raise DataError(_missing(self.root, NATIMG, "natimg2800_<mouse>_<date>.mat", where))
            if len(found) > 1:
                raise DataError(f"{self.root} has {', '.join(found)}: choose one with data.session=<mouse>_<date>")
            return next(iter(found.values())), _find(self.root, NATIMG, self.images, where)
        name = self.session if self.session.endswith(".mat") else f"natimg2800_{self.session}.mat"
        return _find(self.root, NATIMG, name, where), _find(self.root, NATIMG, self.images, where)

    def load(self) -> Recording:
        """Images and responses, from the cache if they are there."""
        if self.simulate:
            *files, truth = write_natimg(_twin(self.root, NATIMG, self.simulate_seed), seed=self.simulate_seed)
        else:
            files, truth = list(self.files()), None
        return cached(
            self.cache_dir,
            {"reader": NATIMG, "version": VERSION, "simulate": self.simulate, **self.options},
            files if truth is None else [*files, truth],
            lambda: load_natimg(*files, **self.options, truth=truth),
        )


def _twin(root: Path, name: str, seed: int) -> Path:
    return root / "simulated" / name / f"seed_{seed}"


def _folders(root: Path, name: str) -> list[Path]:
    return [root / name, root / "stringer", root]


def _find(root: Path, name: str, file: str, where: str) -> Path:
    """A file by its name in the dataset's folders, or by its path.

    Raises:
        DataError: it is not there.
    """
    path = Path(file).expanduser()
    places = [path] if path.parent != Path() else [folder / file for folder in _folders(root, name)]
    for place in places:
        if place.is_file():
            return place
    raise DataError(_missing(root, name, file, where))


def _missing(root: Path, name: str, file: str, where: str) -> str:
    if Path(file).parent != Path():
        return f"{file} is not there: {where}, or set data.simulate=true"
    places = f"{root / name} nor in {root / 'stringer'}"
    return f"{file} is neither in {places}: {where} and put it into {root / name}, or set data.simulate=true"
