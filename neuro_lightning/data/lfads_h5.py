"""Read the HDF5 files that the LFADS family of repositories exchanges.

Three styles of keys are known:

- LFADS (tensorflow/models, research/lfads): ``train_data`` and ``valid_data`` with every neuron, optionally the rates
  behind them in ``train_truth`` and ``valid_truth``;
- lfads-torch (arsedler9/lfads-torch): ``train_encod_data`` (held-in neurons, observed bins) and ``train_recon_data``
  (all neurons, held-in first, observed and forward bins), and the same with ``valid_``;
- NLB and NDT (snel-repo/neural-data-transformers): ``train_spikes_heldin``, ``train_spikes_heldout`` and their
  ``_forward`` parts, and the same with ``eval_``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro_lightning.data.recording import Recording, Trials, compact
from neuro_lightning.errors import ConfigError, DataError

Arrays = dict[str, np.ndarray]

STYLES = {  # by the keys that must be there
    "nlb": ("train_spikes_heldin", "train_spikes_heldout", "eval_spikes_heldin", "eval_spikes_heldout"),
    "lfads_torch": ("train_encod_data", "train_recon_data", "valid_encod_data", "valid_recon_data"),
    "lfads": ("train_data", "valid_data"),
}


def load_lfads_h5(
    path: str | Path, *, bin_ms: int = 10, heldout_fraction: float = 0.25, seed: int = 0, n_forward: int = 0
) -> Recording:
    """Read an LFADS-style HDF5 file.

    Args:
        path: the file.
        bin_ms: its bin width in ms, which such files do not say; 10 is what LFADS's generators use.
        heldout_fraction: share of the neurons to hold out where the file does not say which.
        seed: draws these neurons; they are kept in ``info["heldout_units"]``.
        n_forward: last bins of each trial to be predicted unseen, where the file does not say.

    Returns:
        A recording with the splits ``train`` and ``val``. True rates, where the file has them, are divided by its
        ``conversion_factor``, or taken as Hz where it has none. Trials with the same true rates are one condition,
        whose PSTH are these rates.

    Raises:
        DataError: the file is missing, damaged or of no known style, or its arrays contradict each other, hold NaN or
            negative counts.
        ConfigError: ``bin_ms``, ``heldout_fraction`` or ``n_forward`` cannot be.
    """
    path = Path(path).expanduser()
    if not isinstance(bin_ms, int) or bin_ms < 1:
        raise ConfigError(f"data.bin_ms must be a whole number of ms above 0, not {bin_ms!r}")
    arrays = _read(path)
    style = next((s for s, keys in STYLES.items() if set(keys) <= set(arrays)), None)
    if style is None:
        wanted = "; or ".join(", ".join(keys) for keys in STYLES.values())
        raise DataError(f"{path} has none of the known sets of keys. Expected {wanted}. It has {', '.join(arrays)}")
    if style == "nlb":
        parts = {"train": _from_nlb(path, arrays, "train"), "val": _from_nlb(path, arrays, "eval")}
        counts = {split: np.concatenate(p, axis=2) for split, p in parts.items()}
        n_in, n_bins = arrays["train_spikes_heldin"].shape[2], arrays["train_spikes_heldin"].shape[1]
    else:
        key = "data" if style == "lfads" else "recon_data"
        counts = {"train": arrays[f"train_{key}"], "val": arrays[f"valid_{key}"]}
        n_in, n_bins = counts["train"].shape[2], counts["train"].shape[1]
        if style == "lfads_torch":
            n_in, n_bins = _check_encoded(path, arrays)
    if counts["train"].shape[1:] != counts["val"].shape[1:]:
        shapes = [v.shape for v in counts.values()]
        raise DataError(f"{path}: training and validation data differ in bins or neurons: {shapes[0]} and {shapes[1]}")
    n_neurons, n_total = counts["train"].shape[2], counts["train"].shape[1]
    if n_bins == n_total:
        n_bins = _observed_bins(n_total, n_forward)
    heldout = np.arange(n_neurons) >= n_in
    if n_in == n_neurons:
        heldout = _choose_heldout(n_neurons, heldout_fraction, seed)
    order = np.argsort(heldout, kind="stable")
    rates = _rates(path, arrays, counts, bin_ms)
    condition, psth = _conditions(rates) if rates else (None, None)
    splits = {}
    for split, values in counts.items():
        splits[split] = _trials(values[:, :, order], n_bins, int((~heldout).sum()))
        _add_optional(path, splits[split], arrays, {"train": ("train",), "val": ("valid", "eval")}[split], n_bins)
        if rates:
            splits[split].rates = rates[split][:, :, order].astype(np.float32)
            splits[split].condition = None if condition is None else condition[split]
    return Recording(
        name="lfads_h5",
        bin_ms=bin_ms,
        splits=splits,
        unit_ids=order,
        psth=None if psth is None else psth[:, :n_bins, order],
        behavior_kind="none" if splits["train"].behavior is None else "velocity",
        simulated=rates is not None,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={"style": style, "heldout_units": [int(u) for u in np.flatnonzero(heldout)], "seed": seed},
    )


def _read(path: Path) -> Arrays:
    """Every dataset at the file's top level, and the arrays among its attributes (lfads-torch keeps masks there)."""
    import h5py

    if not path.is_file():
        raise DataError(f"{path} is not there: data.path must name an HDF5 file in the style of LFADS")
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}
            arrays |= {k: np.asarray(v) for k, v in file.attrs.items() if k not in arrays}
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read: damaged, cut short or not HDF5; fetch it again ({reason})") from error
    for name, values in arrays.items():
        if name.endswith(("_data", "_forward", "_heldin", "_heldout")):
            _check_counts(path, name, values)
    return arrays


def _check_counts(path: Path, name: str, values: np.ndarray) -> None:
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {name} must be numbers, trials x bins x neurons, but is {values.dtype} {values.shape}"
        )
    if not values.size:
        raise DataError(f"{path}: {name} is empty, shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: {name} holds values that are not finite numbers; spike counts are expected")
    if values.min() < 0:
        raise DataError(f"{path}: {name} holds negative values; spike counts are expected")


def _from_nlb(path: Path, arrays: Arrays, prefix: str) -> list[np.ndarray]:
    """Held-in and held-out counts (B, L, ·) of one split, forward bins joined on."""
    both = [arrays[f"{prefix}_spikes_{group}"] for group in ("heldin", "heldout")]
    ahead = [arrays.get(f"{prefix}_spikes_{group}_forward") for group in ("heldin", "heldout")]
    pieces = {"heldout": both[1]} | {f"{g}_forward": a for g, a in zip(("heldin", "heldout"), ahead, strict=True)}
    if (ahead[0] is None) != (ahead[1] is None):
        raise DataError(f"{path}: {prefix}_spikes has forward bins of one group only; held-in and held-out are needed")
    for name, values in pieces.items():
        like = both[name.startswith("heldout")]
        fits = values is None or (len(values) == len(both[0]) and values.shape[2] == like.shape[2])
        if not fits or (name == "heldout" and values.shape[1] != both[0].shape[1]):
            raise DataError(
                f"{path}: {prefix}_spikes_{name} {values.shape} does not fit {prefix}_spikes_heldin {both[0].shape}"
            )
    if ahead[0] is None:
        return both
    if ahead[0].shape[1] != ahead[1].shape[1]:
        raise DataError(f"{path}: {prefix}_spikes_heldin_forward and _heldout_forward differ in bins")
    return [np.concatenate(pair, axis=1) for pair in zip(both, ahead, strict=True)]


def _check_encoded(path: Path, arrays: Arrays) -> tuple[int, int]:
    """``(n_in, n_bins)`` of lfads-torch's encoder data, which must be the first part of what is reconstructed."""
    for split in ("train", "valid"):
        encod, recon = arrays[f"{split}_encod_data"], arrays[f"{split}_recon_data"]
        part = recon[:, : encod.shape[1], : encod.shape[2]]
        if part.shape != encod.shape or not np.array_equal(part, encod):
            raise DataError(
                f"{path}: {split}_encod_data {encod.shape} is not the first part of {split}_recon_data {recon.shape}"
            )
    if arrays["train_encod_data"].shape[1:] != arrays["valid_encod_data"].shape[1:]:
        raise DataError(f"{path}: train_encod_data and valid_encod_data differ in bins or neurons")
    return arrays["train_encod_data"].shape[2], arrays["train_encod_data"].shape[1]


def _observed_bins(n_total: int, n_forward: int) -> int:
    if not 0 <= n_forward < n_total:
        raise ConfigError(f"data.n_forward must be at least 0 and below the trials' {n_total} bins, not {n_forward}")
    return n_total - n_forward


def _choose_heldout(n_neurons: int, fraction: float, seed: int) -> np.ndarray:
    """(N,) bool, a seeded share of the neurons."""
    n_out = round(fraction * n_neurons)
    if not 0 <= fraction < 1 or n_out >= n_neurons:
        raise ConfigError(
            f"data.heldout_fraction={fraction} of {n_neurons} neurons leaves none to look at; use 0 to 0.9"
        )
    heldout = np.zeros(n_neurons, bool)
    heldout[np.random.default_rng(seed).permutation(n_neurons)[:n_out]] = True
    return heldout


def _rates(path: Path, arrays: Arrays, counts: Arrays, bin_ms: int) -> Arrays | None:
    """True rates (B, L, N) of both splits in spikes per bin, None where the file has none."""
    truth = {"train": arrays.get("train_truth"), "val": arrays.get("valid_truth")}
    if truth["train"] is None or truth["val"] is None:
        return None
    factor = float(np.ravel(arrays["conversion_factor"])[0]) if "conversion_factor" in arrays else 1000 / bin_ms
    if not np.isfinite(factor) or factor <= 0:
        raise DataError(f"{path}: conversion_factor must be a positive number, not {factor}")
    for split, values in truth.items():
        if values.shape != counts[split].shape:
            raise DataError(f"{path}: the {split} truth {values.shape} does not fit its data {counts[split].shape}")
        if not np.isfinite(values).all() or values.min() < 0:
            raise DataError(f"{path}: the {split} truth holds NaN or negative rates")
    return {split: values / factor for split, values in truth.items()}


def _conditions(rates: Arrays) -> tuple[Arrays | None, np.ndarray | None]:
    """Trials of identical rates are one condition; without repeats there are none.

    Returns:
        ``(condition, psth)``: (B,) of each split and (C, L, N).
    """
    both = np.concatenate([rates["train"], rates["val"]])
    keys = [trial.tobytes() for trial in both]
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    condition = np.array([number[key] for key in keys])
    first = [keys.index(key) for key in number]
    if len(first) == len(both):
        return None, None
    n_train = len(rates["train"])
    return {"train": condition[:n_train], "val": condition[n_train:]}, both[first]


def _trials(counts: np.ndarray, n_bins: int, n_in: int) -> Trials:
    """Cut (B, L, N) counts into observed and forward, held-in and held-out."""
    counts = compact(counts)
    forward = counts[:, n_bins:] if counts.shape[1] > n_bins else None
    has_out = n_in < counts.shape[2]
    return Trials(
        heldin=counts[:, :n_bins, :n_in],
        heldout=counts[:, :n_bins, n_in:] if has_out else None,
        heldin_forward=None if forward is None else forward[:, :, :n_in],
        heldout_forward=forward[:, :, n_in:] if has_out and forward is not None else None,
        row=np.arange(len(counts)),
    )


def _add_optional(path: Path, trials: Trials, arrays: Arrays, prefixes: tuple[str, ...], n_bins: int) -> None:
    """Behavior (or the simulation's low-dimensional state), decoding masks and the trials' numbers."""

    def find(*names: str) -> np.ndarray | None:
        return next((arrays[k] for n in names for p in prefixes if (k := f"{p}_{n}") in arrays), None)

    behavior, mask, rows = find("behavior", "lowd"), find("decode_mask"), find("inds")
    for name, values in (("behavior", behavior), ("decode_mask", mask), ("inds", rows)):
        if values is not None and len(values) != len(trials):
            raise DataError(f"{path}: {prefixes[0]}_{name} has {len(values)} trials, but the data have {len(trials)}")
    if behavior is not None and behavior.ndim == 3:
        trials.behavior = behavior[:, :n_bins].astype(np.float64)
    if mask is not None:
        trials.decode_mask = mask.reshape(len(trials), -1).astype(bool)
    if rows is not None:
        trials.row = np.ravel(rows).astype(np.int64)
