"""Reads the files that torch writes: only tensors and plain values, every byte checked."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from neuro_lightning.errors import CheckpointError


def read_tensors(path: str | Path) -> dict[str, Any]:
    """The dictionary of a file of ``torch.save``; nothing that it carries is run.

    torch does not compare the checksums that the file holds, so that a flipped bit would be a wrong weight.

    Raises:
        CheckpointError: the file is not there, damaged, or holds something else.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} differs")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, no dictionary")
    except Exception as error:  # a damaged stream may fail at any of the reader's steps
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if isinstance(error, pickle.UnpicklingError):  # torch proposes to run what is in the file
            reason = "it holds something else than tensors and plain values"
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint; it is damaged or of another kind ({reason})"
        ) from None
    return content
