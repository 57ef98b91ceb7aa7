"""The data module of spontaneous activity."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.data.cache import cached
from neuro_lightning.data.module import TwinDataModule
from neuro_lightning.data.options import takes_options_of
from neuro_lightning.data.recording import Recording, Trials
from neuro_lightning.data.stringer.files import find_file
from neuro_lightning.data.stringer.reader import Preparation, load_spontaneous
from neuro_lightning.data.stringer.suite2p import companion_files
from neuro_lightning.data.stringer.twin import write_twin
from neuro_lightning.functional.svca import interleaved, pooled_share, shared_variance

BLOCK_MS = 72_000
"""Blocks in which shared variance is found and tested in turn, as in Stringer et al. 2019."""

VERSION = 1
"""Of the preparation: raised whenever it gives other content than before, so that older caches are left aside."""


class TraceDataModule(TwinDataModule):
    """A session of traces, split in time, beside whose scores stands the variance that its neurons share."""

    options: Preparation

    def __init__(self, **loader: Any) -> None:
        super().__init__(**loader)
        self._shared: dict[str, float] = {}

    @property
    def stride(self) -> int | None:
        """Bins between the starts of training windows."""
        return self.options.stride

    def reference_scores(self, split: str) -> dict[str, dict[str, float]]:
        """Share of the split's variance that neurons have in common, by shared variance components: ``svca``.

        Components are found in the training part and tested on the split (in blocks of its own, in turn, where the
        split is the training part), each plane's neurons in two halves by squares of the field; see
        :mod:`neuro_lightning.functional.svca`.
        It is an estimate from below, as half of the neurons must tell the other half. A model that sees the very neuron
        that it predicts may score more by copying its private noise; held-out neurons show whether it does.
        """
        if split not in self._shared:
            self._shared[split] = self._shared_variance(split)
        return {"svca": {"variance": self._shared[split]}}

    def _shared_variance(self, split: str) -> float:
        recording = self.recording
        parts = []
        for plane in recording.info["planes"]:
            train, test = (_sequence(recording.splits[name], plane) for name in ("train", split))
            if split == "train":
                found = interleaved(test.shape[1], max(1, BLOCK_MS // recording.bin_ms))
                train, test = test[:, found], test[:, ~found]
            half = torch.tensor(recording.info["half"][str(plane)], dtype=torch.bool)
            parts.append(shared_variance(train, test, half))
        return float(pooled_share(parts))


@takes_options_of(Preparation)
class Spontaneous(TraceDataModule):
    """Spontaneous activity of mouse V1 in nine imaging planes (Stringer et al. 2019).

    Args:
        cache_dir: prepared tensors.
        path: ``stringer_spontaneous.npy`` or an original ``spont_*.mat``; None for
            ``root/stringer/stringer_spontaneous.npy``.
        sha256: what the file must be; None for anything.
        loader: see :class:`~neuro_lightning.data.module.TwinDataModule`; and how the file is prepared, see
            :class:`neuro_lightning.data.stringer.reader.Preparation`.
    """

    def __init__(self, *, cache_dir: str, path: str | None = None, sha256: str | None = None, **loader: Any) -> None:
        super().__init__(**loader)
        self.cache_dir, self.path, self.sha256 = Path(cache_dir), path, sha256

    def load(self) -> Recording:
        """The prepared planes, from the cache if they are there."""
        truth = None
        if self.simulate:
            path, truth = write_twin(self.twin_folder("stringer_spontaneous"), seed=self.simulate_seed)
        else:
            path = find_file(self.path, self.root)

        params = {"reader": "stringer_spontaneous", "version": VERSION, "sha256": self.sha256, **asdict(self.options)}
        return cached(
            self.cache_dir,
            params,
            [path, *companion_files(path)] if truth is None else [path, truth],
            lambda: load_spontaneous(path, self.options, truth=truth, sha256=None if truth else self.sha256),
        )


def _sequence(trials: Trials, plane: int) -> Tensor:
    """(N, T) activity of a plane's neurons, held-in and held-out ones, over all of its samples."""
    rows = trials.condition == plane
    parts = [trials.heldin[rows]] + ([] if trials.heldout is None else [trials.heldout[rows]])
    return torch.from_numpy(np.concatenate(parts, axis=2)).flatten(0, 1).T
