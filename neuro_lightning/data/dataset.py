"""The trials of a split as tensors; a batch is put together when it is asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuro_lightning.contracts import full_mask
from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.data.recording import Trials
from neuro_lightning.functional.ridge import decode_folds

Place = tuple[slice, slice, slice]  # in (B, L, N)


class TrialDataset(Dataset):
    """Serves whole batches: ``dataset[[3, 1, 2]]`` is a :class:`neuro_lightning.contracts.Batch` of three trials.

    It holds views of the split's arrays, no copies: where those lie in a file (see
    :mod:`neuro_lightning.data.mapped`), a session takes no memory of its own.

    Args:
        trials: the split's arrays.
        n_out: held-out neurons N_out (the split itself may hide them).
        n_forward: forward bins F (likewise).
        evaluate: score held-out and withheld neurons only where ``trials.scored`` says so; else all observed bins
            count.
        partial: say which inputs were recorded, as ``DataSpec.partial``.
    """

    def __init__(self, trials: Trials, *, n_out: int, n_forward: int, evaluate: bool, partial: bool = False) -> None:
        self.n_trials, self.n_bins, self.n_in = trials.heldin.shape
        self.dtype = _shared(trials.heldin, trials.heldin.dtype).dtype
        self.shape = self.n_bins + n_forward, self.n_in + n_out
        observed, neurons = slice(0, self.n_bins), slice(0, self.n_in)
        forward, heldout = slice(self.n_bins, None), slice(self.n_in, None)
        self.parts: list[tuple[Place, Tensor]] = []  # views of the split's counts, and where in a batch they go
        self.hidden: list[Place] = []  # places of which nothing is known
        for rows, columns, part in (
            (observed, neurons, trials.heldin),
            (observed, heldout, trials.heldout),
            (forward, neurons, trials.heldin_forward),
            (forward, heldout, trials.heldout_forward),
        ):
            if part is not None and part.size:
                self.parts.append(((slice(None), rows, columns), _shared(part, trials.heldin.dtype)))
            else:
                self.hidden.append((slice(None), rows, columns))
        self.has_nan = any(_has_nan(part) for _, part in self.parts)
        self.scored = _shared(trials.scored, bool) if evaluate and trials.scored is not None else None
        self.recorded = None if trials.observed is None else _shared(trials.observed[:, :, : self.shape[1]], bool)
        self.extras: dict[str, Tensor] = {}
        if partial:
            everything = full_mask(trials.heldin.shape)
            self.extras["observed"] = everything if self.recorded is None else self.recorded[:, :, neurons]
        self.withheld = None if trials.withheld is None else _shared(trials.withheld, bool)
        for name, dtype in (
            ("condition", np.int64), ("jitter", np.int64), ("rates", np.float32), ("labels", np.float32),
        ):  # fmt: skip
            if (values := getattr(trials, name)) is not None:
                self.extras[name] = _shared(values, dtype)
        if trials.behavior is not None:
            self.extras["behavior"] = _shared(trials.behavior, np.float32)
            if trials.behavior.ndim == 3:
                if self.recorded is not None:
                    unseen = ~self.recorded[:, :, neurons].any(2, keepdim=True)
                    self.extras["behavior"] = self.extras["behavior"].masked_fill(unseen, torch.nan)
                groups = None if trials.decode_mask is None else _shared(trials.decode_mask, bool)
                self.extras["decode_fold"] = decode_folds(self.extras["behavior"], groups)

    def __len__(self) -> int:
        return self.n_trials

    def __getitem__(self, index: list[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(index, dtype=torch.long)  # also where there is none
        counts = self._counts(chosen)
        mask = torch.ones(counts.shape, dtype=torch.bool)
        if self.recorded is not None:
            recorded = self.recorded[chosen]
            window = slice(None), slice(0, self.n_bins), slice(0, recorded.shape[2])  # held-out neurons may be hidden
            counts[window].masked_fill_(~recorded, 0)
            mask[window] = recorded
        for place in self.hidden:
            mask[place] = False
        if self.has_nan:
            mask &= ~counts.isnan()
        if self.scored is not None:
            mask[:, : self.n_bins, self.n_in :] &= self.scored[chosen, :, None]
        extras = {name: values.index_select(0, chosen) for name, values in self.extras.items()}
        inputs = counts[:, : self.n_bins, : self.n_in]
        if self.withheld is not None:
            hidden = self.withheld[chosen][:, None].expand(inputs.shape)
            inputs = inputs.masked_fill(hidden, 0)
            extras["observed"] = extras["observed"] & ~hidden
            mask[:, : self.n_bins, : self.n_in] &= (
                hidden if self.scored is None else hidden & self.scored[chosen, :, None]
            )
        return {"inputs": inputs, "targets": counts, "mask": mask, "index": chosen, **extras}

    def _counts(self, chosen: Tensor) -> Tensor:
        """(B, L, N) counts of some trials, zero where nothing is known; each value is copied once."""
        counts = torch.zeros((len(chosen), *self.shape), dtype=self.dtype)
        for place, part in self.parts:
            torch.index_select(part, 0, chosen, out=counts[place])
        return counts


def _shared(values: np.ndarray, dtype: np.dtype | type) -> Tensor:
    """A tensor of an array's own memory, or of a copy where torch cannot share it."""
    values = np.require(values, dtype, ["ALIGNED", "WRITEABLE"])
    return torch.from_numpy(values.copy() if min(values.strides, default=0) < 0 else values)


def _has_nan(values: Tensor) -> bool:
    return values.is_floating_point() and any(bool(values[rows].isnan().any()) for rows in row_blocks(values))
