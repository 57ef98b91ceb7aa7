"""Read the HDF5 files that the LFADS family of repositories exchanges.

Three styles of keys are known:

- LFADS (tensorflow/models, research/lfads): ``train_data`` and ``valid_data`` with every neuron, optionally the rates
  behind them in ``train_truth`` and ``valid_truth``;
- lfads-torch (arsedler9/lfads-torch): ``train_encod_data`` (held-in neurons, observed bins) and ``train_recon_data``
  (all neurons, held-in first, observed and forward bins), and the same with ``valid_``;
- NLB and NDT (snel-repo/neural-data-transformers): ``train_spikes_heldin``, ``train_spikes_heldout`` and their
  ``_forward`` parts, and the same with ``eval_``; in older files of NDT ``data`` stands for ``spikes``.

Datasets and attributes of other names are not looked at.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from neuro_lightning.data.checks.bounds import check_array, check_sizes, read_h5, reading
from neuro_lightning.data.checks.options import check_share, check_whole
from neuro_lightning.data.checks.overlap import first_identical, shared_counts
from neuro_lightning.data.checks.plausible import multiples_warning
from neuro_lightning.data.counts import MOST, without_duplicates, without_shared_trials
from neuro_lightning.data.recording import Recording, Trials, compact
from neuro_lightning.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

TOLERANCE = np.log(1.5)
"""How far the number of spikes may lie from that of the true rates, as a logarithm."""

STYLES = {  # the keys that must be there, and their axes: A and B trials, L = T + F bins, N = I + O neurons
    "nlb": {
        "train_spikes_heldin": "ATI",
        "train_spikes_heldout": "ATO",
        "eval_spikes_heldin": "BTI",
        "eval_spikes_heldout": "BTO",
    },
    "lfads_torch": {
        "train_encod_data": "ATI",
        "train_recon_data": "ALN",
        "valid_encod_data": "BTI",
        "valid_recon_data": "BLN",
    },
    "lfads": {"train_data": "ALN", "valid_data": "BLN"},
}
FORWARD = {f"{key}_forward": axes.replace("T", "F") for key, axes in STYLES["nlb"].items()}
COUNTS = {*FORWARD, *(key for keys in STYLES.values() for key in keys)}
OTHERS = {f"{p}_{name}" for p in ("train", "valid", "eval") for name in ("behavior", "lowd", "decode_mask", "inds")}
TRUTH = ("train_truth", "valid_truth", "conversion_factor", "dt")


def load_lfads_h5(
    path: str | Path,
    *,
    bin_ms: int = 10,
    heldout_fraction: float = 0.25,
    seed: int = 0,
    n_forward: int = 0,
    drop_duplicates: bool = False,
) -> Recording:
    """Read an LFADS-style HDF5 file.

    Args:
        path: the file.
        bin_ms: its bin width in ms, which such files do not say; 10 is what LFADS's generators use.
        heldout_fraction: share of the neurons to hold out where the file does not say which.
        seed: draws these neurons; they are kept in ``info["heldout_units"]``.
        n_forward: last bins of each trial to be predicted unseen, where the file does not say.
        drop_duplicates: of neurons that spike in the same bins, keep one: the held-out one where the file says which
            are, else the one with the most spikes.

    Returns:
        A recording with the splits ``train`` and ``val``. True rates, where the file has them, are in the unit that
        fits its counts; ``info["truth"]`` says which. Trials with the same true rates are one
        condition, whose PSTH are these rates. Training trials that are also validation trials, or share bins with one
        (windows cut with an overlap), are left out with a warning.

    Raises:
        DataError: the file is missing, damaged or of no known style, or its arrays contradict each other, or hold
            what cannot be spike counts.
        ConfigError: ``bin_ms``, ``heldout_fraction`` or ``n_forward`` cannot be.
    """
    path = Path(path).expanduser()
    check_whole("bin_ms", bin_ms, 1)
    check_share("heldout_fraction", heldout_fraction, zero=True)
    arrays = _read(path)
    style, counts, n_in, n_bins = _counts(path, arrays)
    _check_width(path, arrays.get("dt"), bin_ms)
    n_neurons, n_total = counts["train"].shape[2], counts["train"].shape[1]
    if n_bins == n_total:
        check_whole("n_forward", n_forward, 0, n_total - 1)
        n_bins = n_total - n_forward
    heldout = np.arange(n_neurons) >= n_in
    keep, warnings = without_duplicates(path, counts["train"], heldout, drop_duplicates)
    if n_in == n_neurons:
        heldout[keep] = _choose_heldout(len(keep), heldout_fraction, seed)
    order = keep[np.argsort(heldout[keep], kind="stable")]
    rates, unit = _rates(path, arrays, counts, bin_ms)
    extras = _extras(path, arrays, counts, n_bins)
    condition, psth = _conditions(rates) if rates else (None, None)
    splits = {}
    for split, values in counts.items():
        row = np.arange(len(values))
        splits[split] = Trials.from_counts(compact(values[:, :, order]), n_bins, int((~heldout[keep]).sum()), row=row)
        for name, pair in extras.items():
            setattr(splits[split], name, pair.get(split, getattr(splits[split], name)))
        if rates:
            splits[split].rates = rates[split][:, :, order].astype(np.float32)
            splits[split].condition = None if condition is None else condition[split]
    # the benchmark's own split has the begin of another trial in some forward bins (mc_rtt)
    shared = shared_counts(*(v[:, :n_bins] if style == "nlb" else v for v in (counts["train"], counts["val"])))
    length = n_bins if style == "nlb" else n_total
    splits["train"], overlap, lines = without_shared_trials(path, splits["train"], shared, length)
    if line := multiples_warning(list(counts.values())):
        lines = [*lines, f"{path}: {line}"]
    return Recording(
        name="lfads_h5",
        bin_ms=bin_ms,
        splits=splits,
        unit_ids=order,
        psth=None if psth is None else psth[:, :n_bins, order],
        behavior_kind="none" if splits["train"].behavior is None else "velocity",
        simulated="train_truth" in arrays and "valid_truth" in arrays,
        sources=[{"path": str(path), "size": path.stat().st_size}],
        info={
            "style": style,
            "heldout_units": keep[heldout[keep]].tolist(),
            "seed": seed,
            **({"truth": unit} if rates else {}),
            **overlap,
            **({"warnings": warnings + lines} if warnings + lines else {}),
        },
    )


def _read(path: Path) -> Arrays:
    """The known datasets at the file's top level, and those among its attributes (lfads-torch keeps masks there)."""
    import h5py

    if not path.is_file():
        raise DataError(f"{path} is not there: data.path must name an HDF5 file in the style of LFADS")
    with reading(path), h5py.File(path, "r") as file:
        older = "train_spikes_heldin" not in file
        names = {name.replace("_data_held", "_spikes_held") if older else name: name for name in file}
        known = (*COUNTS, *OTHERS, *TRUTH)
        found = {n: file[real] for n, real in names.items() if n in known and isinstance(file[real], h5py.Dataset)}
        arrays = {name: read_h5(dataset, f"{path}: {name}") for name, dataset in found.items()}
        arrays |= {name: np.asarray(file.attrs[name]) for name in file.attrs if name in known and name not in arrays}
    for name in sorted(COUNTS & set(arrays)):
        where, axes = f"{path}: {name}", ("trials", "bins", "neurons")
        check_array(arrays[name], where, axes=axes, minimum=0, maximum=MOST, whole=True, what="spike counts")
        if arrays[name].dtype.kind == "b":
            arrays[name] = arrays[name].astype(np.uint8)
    return arrays


def _counts(path: Path, arrays: Arrays) -> tuple[str, Arrays, int, int]:
    """The style of a file, and its counts (B, L, N) by split, held-in neurons first.

    Returns:
        ``(style, counts, n_in, n_bins)``: how many neurons are held in, and how many bins are observed, as the file
        says; all of them where it does not say.
    """
    style = next((s for s, keys in STYLES.items() if set(keys) <= set(arrays)), None)
    if style is None:
        wanted = "; or ".join(", ".join(keys) for keys in STYLES.values())
        has = ", ".join(key for key in arrays if key in COUNTS) or "none of them"
        raise DataError(f"{path} has none of the known sets of keys. Expected {wanted}. It has {has}")
    ahead = [key for key in FORWARD if key in arrays] if style == "nlb" else []
    check_sizes(f"{path}: ", arrays, STYLES[style] | {key: FORWARD[key] for key in ahead})
    if ahead and len(ahead) < len(FORWARD):
        raise DataError(f"{path} has forward bins in {', '.join(ahead)} only; {', '.join(FORWARD)} are needed")
    parts = {"train": "train", "val": "eval" if style == "nlb" else "valid"}
    first = arrays[next(iter(STYLES[style]))]
    if style == "nlb":
        pieces = [[f"spikes_{group}{ending}" for group in ("heldin", "heldout")] for ending in ("", "_forward")]
        rows = pieces if ahead else pieces[:1]  # of bins; in each the groups of neurons
        counts = {s: np.block([[arrays[f"{p}_{name}"] for name in row] for row in rows]) for s, p in parts.items()}
    else:
        counts = {s: arrays[f"{p}_data" if style == "lfads" else f"{p}_recon_data"] for s, p in parts.items()}
    for split, part in parts.items() if style == "lfads_torch" else ():
        encoded = arrays[f"{part}_encod_data"]
        if not np.array_equal(counts[split][:, : encoded.shape[1], : encoded.shape[2]], encoded):
            raise DataError(f"{path}: {part}_encod_data is not the first part of {part}_recon_data")
    return style, counts, first.shape[2], first.shape[1]


def _check_width(path: Path, dt: np.ndarray | None, bin_ms: int) -> None:
    """Warn where the file's own bin width (``dt`` in s, which LFADS's generators write) is another one."""
    width = 1000 * float(dt.flat[0]) if dt is not None and dt.dtype.kind in "fiu" and dt.size == 1 else bin_ms
    if 0.1 <= width <= 10_000 and abs(width - bin_ms) > 0.01 * bin_ms:
        log.warning(f"{path} says that its bins are {width:g} ms wide, data.bin_ms that they are {bin_ms}")


def _choose_heldout(n_neurons: int, fraction: float, seed: int) -> np.ndarray:
    """(N,) bool, a seeded share of the neurons."""
    n_out = round(fraction * n_neurons)
    if n_out >= n_neurons:
        raise ConfigError(f"data.heldout_fraction={fraction} of {n_neurons} neurons leaves none to look at; lower it")
    return np.isin(np.arange(n_neurons), np.random.default_rng(seed).permutation(n_neurons)[:n_out])


def _rates(path: Path, arrays: Arrays, counts: Arrays, bin_ms: int) -> tuple[Arrays | None, str]:
    """True rates (B, L, N) of both splits in spikes per bin, None where the file has none that fit its counts.

    The truth is in spikes per bin times ``conversion_factor``, by LFADS's chaotic RNN and lfads-torch; divided by it,
    by LFADS's integration to bound; in Hz, as a rule without a factor; or per bin. The spikes themselves tell which:
    their number is that of the right rates.

    Returns:
        ``(rates, unit)``: the second says how they were found.
    """
    if not {"train_truth", "valid_truth"} <= set(arrays):
        return None, ""
    truth = {"train": arrays["train_truth"], "val": arrays["valid_truth"]}
    for split, values in truth.items():
        if values.shape != counts[split].shape:
            raise DataError(f"{path}: the {split} truth {values.shape} does not fit its data {counts[split].shape}")
        check_array(values, f"{path}: the {split} truth", minimum=0, what="rates")
    units = {"Hz": bin_ms / 1000, "spikes per bin": 1.0}
    if "conversion_factor" in arrays:
        check_array(arrays["conversion_factor"], f"{path}: conversion_factor", kinds="iuf", what="a positive number")
        factor = float(arrays["conversion_factor"].flat[0])
        if factor <= 0:
            raise DataError(f"{path}: conversion_factor must be a positive number, not {factor}")
        units = {"divided by conversion_factor": 1 / factor, "times conversion_factor": factor} | units
    spikes = sum(float(values.sum(dtype=np.float64)) for values in counts.values())
    expected = sum(float(values.sum(dtype=np.float64)) for values in truth.values())
    if not spikes or not expected:
        log.warning(f"{path}: its truth or its counts are all zero; the truth is left aside")
        return None, ""
    off = {unit: abs(np.log(spikes / (expected * scale))) for unit, scale in units.items()}
    first = next(iter(units))
    unit = first if off[first] < TOLERANCE else min(off, key=off.get)
    if not off[unit] < TOLERANCE:
        expected_spikes = ", ".join(f"{expected * scale / spikes:.3g} times as many {u}" for u, scale in units.items())
        log.warning(f"{path}: its truth fits its counts in no known unit (spikes expected: {expected_spikes})")
        return None, ""
    if unit != first:
        log.warning(f"{path}: the spikes say that its truth is to be taken as: {unit}")
    return {split: values * units[unit] for split, values in truth.items()}, unit


def _conditions(rates: Arrays) -> tuple[Arrays | None, np.ndarray | None]:
    """Trials of identical rates are one condition; without repeats there are none.

    Returns:
        ``(condition, psth)``: (B,) of each split and (C, L, N).
    """
    both = np.concatenate([rates["train"], rates["val"]])
    first, condition = np.unique(first_identical(both), return_inverse=True)
    if len(first) == len(both):
        return None, None
    n_train = len(rates["train"])
    return {"train": condition[:n_train], "val": condition[n_train:]}, both[first]


def _extras(path: Path, arrays: Arrays, counts: Arrays, n_bins: int) -> dict[str, dict[str, np.ndarray]]:
    """Behavior (or the simulation's low-dimensional state), decoding masks and the trials' numbers of both splits."""
    behavior = _both(path, arrays, "behavior") or _both(path, arrays, "lowd")
    mask, rows = _both(path, arrays, "decode_mask"), _both(path, arrays, "inds")
    for name, pair in {"behavior": behavior, "decode_mask": mask, "inds": rows}.items():
        for split, values in pair.items():
            where = f"{path}: {split} {name}"
            check_array(values, where, may_be_nan=name == "behavior", whole=name != "behavior")
            if values.shape[:1] != counts[split].shape[:1]:
                raise DataError(f"{where} has the shape {values.shape}, but the data have {len(counts[split])} trials")
        if pair and pair["train"].shape[1:] != pair["val"].shape[1:]:
            shapes = f"{pair['train'].shape} and {pair['val'].shape}"
            raise DataError(f"{path}: {name} differs between training and validation in bins or channels: {shapes}")
    if behavior and behavior["train"].ndim != 3:
        log.warning(f"{path}: behavior of shape {behavior['train'].shape} is not trials x bins x channels; not used")
        behavior = {}
    if behavior and behavior["train"].shape[1] < n_bins:
        raise DataError(f"{path}: behavior has {behavior['train'].shape[1]} bins, but the data have {n_bins}")
    return {
        "behavior": {split: values[:, :n_bins].astype(np.float64) for split, values in behavior.items()},
        "decode_mask": {split: values.reshape(len(values), -1).astype(bool) for split, values in mask.items()},
        "row": {split: values.reshape(len(values), -1)[:, 0].astype(np.int64) for split, values in rows.items()},
    }


def _both(path: Path, arrays: Arrays, name: str) -> dict[str, np.ndarray]:
    """An array of both splits; of one split only it is left aside with a warning."""
    keys = {"train": (f"train_{name}",), "val": (f"valid_{name}", f"eval_{name}")}
    found = {split: arrays[key] for split, names in keys.items() for key in reversed(names) if key in arrays}
    if len(found) == 1:
        log.warning(f"{path} has {name} of its {next(iter(found))} part only; it is not used")
        return {}
    return found
