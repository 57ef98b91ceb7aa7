"""A checkpoint of one run, made one that another run goes on from: the weights move, the records do not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

RECORDS = "Checkpoint"  # callbacks whose state says what is best in a run's own folder


def graft(donor: Path, own: Path | None, path: Path) -> Path:
    """Write the donor's checkpoint with this run's own memory of its best checkpoint.

    Weights, optimizer, epochs and everything drawn are the donor's. But ``best.ckpt`` in a run's folder is the best
    that was ever trained there, and a run must not take the donor's file for its own.

    Args:
        donor: the checkpoint of the run whose weights are taken over.
        own: this run's own last one; None if it has none.
        path: where the new checkpoint is written.

    Returns:
        The new checkpoint.
    """
    import torch

    from neuro_lightning.models.loading import read_checkpoint

    content = read_checkpoint(donor)
    mine = read_checkpoint(own)["callbacks"] if own is not None else {}
    content["callbacks"] = {k: v for k, v in content["callbacks"].items() if not _is_record(k)}
    content["callbacks"] |= {k: v for k, v in mine.items() if _is_record(k)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    torch.save(content, part)
    os.replace(part, path)
    return path


def _is_record(key: Any) -> bool:
    return str(key).startswith(RECORDS)
