"""The trials of a split as tensors in memory; a batch is one index look-up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuro_lightning.data.recording import Trials
from neuro_lightning.functional.ridge import decode_folds


class TrialDataset(Dataset):
    """Serves whole batches: ``dataset[[3, 1, 2]]`` is a :class:`neuro_lightning.contracts.Batch` of three trials.

    Args:
        trials: the split's arrays.
        n_out: held-out neurons N_out (the split itself may hide them).
        n_forward: forward bins F (likewise).
        evaluate: score held-out neurons only where ``trials.scored`` says so; else all observed bins count.
    """

    def __init__(self, trials: Trials, *, n_out: int, n_forward: int, evaluate: bool) -> None:
        n_trials, self.n_bins, self.n_in = trials.heldin.shape
        counts = np.zeros((n_trials, self.n_bins + n_forward, self.n_in + n_out), trials.heldin.dtype)
        seen = np.zeros(counts.shape, bool)
        observed, neurons = slice(0, self.n_bins), slice(0, self.n_in)
        forward, heldout = slice(self.n_bins, None), slice(self.n_in, None)
        for rows, columns, part in (
            (observed, neurons, trials.heldin),
            (observed, heldout, trials.heldout),
            (forward, neurons, trials.heldin_forward),
            (forward, heldout, trials.heldout_forward),
        ):
            if part is not None and part.size:
                counts[:, rows, columns] = part
                seen[:, rows, columns] = True
        if np.issubdtype(counts.dtype, np.floating):
            seen &= ~np.isnan(counts)
        if evaluate and trials.scored is not None:
            seen[:, observed, heldout] &= trials.scored[:, :, None]
        self.counts = torch.from_numpy(counts)
        self.mask = None if seen.all() else torch.from_numpy(seen)
        self.extras: dict[str, Tensor] = {}
        for name, dtype in (("condition", np.int64), ("jitter", np.int64), ("rates", np.float32)):
            if (values := getattr(trials, name)) is not None:
                self.extras[name] = torch.from_numpy(np.ascontiguousarray(values, dtype))
        if trials.behavior is not None:
            self.extras["behavior"] = torch.from_numpy(np.ascontiguousarray(trials.behavior, np.float32))
            if trials.behavior.ndim == 3:
                groups = None if trials.decode_mask is None else torch.from_numpy(trials.decode_mask)
                self.extras["decode_fold"] = decode_folds(self.extras["behavior"], groups)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: list[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(index)
        counts = self.counts[chosen]
        mask = torch.ones(counts.shape, dtype=torch.bool) if self.mask is None else self.mask[chosen]
        extras = {name: values[chosen] for name, values in self.extras.items()}
        inputs = counts[:, : self.n_bins, : self.n_in]
        return {"inputs": inputs, "targets": counts, "mask": mask, "index": chosen, **extras}
