"""Scores a submission file against a target file, as the benchmark's own evaluation does.

    python -m neuro_lightning.submission.score TARGETS.h5 SUBMISSION.h5 [--json FILE]

The numbers are those of ``nlb_tools.evaluation.evaluate``, in the same structure and spelling. Rates are read a block
of trials at a time, so memory stays bounded, and the decoder is fitted from sums, which is far faster.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro_lightning.artifacts.records import write_json
from neuro_lightning.data.blocks import row_blocks
from neuro_lightning.data.checks.bounds import reading
from neuro_lightning.display.table import print_official_scores
from neuro_lightning.errors import SubmissionError, errors_in_one_line
from neuro_lightning.functional.ridge import decode_folds
from neuro_lightning.metrics.bits import BitsPerSpike
from neuro_lightning.metrics.decoding import TpCorrelation, VelocityR2
from neuro_lightning.metrics.rates import PsthR2
from neuro_lightning.submission.check import AGAIN, BLOCK, arrays_of, check_submission, open_h5
from neuro_lightning.submission.layout import EVAL, FORWARD, OFFICIAL, RATES, TRAIN, group_order, official_results
from neuro_lightning.submission.targets import SHAPES, read_targets

log = logging.getLogger(__name__)

Arrays = Mapping[str, Any]
"""Arrays or HDF5 datasets by name."""


def score(
    targets: str | Path | Mapping[str, Arrays], submission: str | Path | Mapping[str, Arrays]
) -> list[dict[str, dict[str, float]]]:
    """Scores every dataset that both files hold.

    Args:
        targets: the target file, or its groups of arrays.
        submission: the submission file, or its groups of arrays.

    Returns:
        One ``{"<group>_split": {...}}`` a dataset with the keys ``co-bps``, ``vel R2`` or ``tp corr``, ``psth R2`` and
        ``fp-bps`` as far as they apply; the scaling sets are merged into one, with keys such as ``[500] co-bps``. A
        score that the targets leave undefined is NaN.

    Raises:
        SubmissionError: a file cannot be read, the files have no dataset in common, an array is missing, or rates have
            the wrong shape, are NaN, infinite, negative or in Hz.
    """
    with ExitStack() as stack:
        files = {"targets": targets, "submission": submission}
        names = [str(file) if isinstance(file, str | Path) else what for what, file in files.items()]
        target, rates = (
            stack.enter_context(open_h5(file)) if isinstance(file, str | Path) else file for file in files.values()
        )
        with reading(names[0], AGAIN, SubmissionError):
            there = set(target)
        with reading(names[1], AGAIN, SubmissionError):
            common = group_order(there & set(rates))
        if not common:
            raise SubmissionError(
                f"{names[1]}: no dataset of {names[0]} is in it; it has {sorted(rates)}, the targets {sorted(target)}. "
                "Groups are named <dataset> at 5 ms and <dataset>_<bin width> otherwise"
            )
        for group in sorted(set(rates) - set(common)):
            log.warning("%s: no targets for %s, which is not scored", names[0], group)
        return official_results({g: _score_group(names, g, target, rates) for g in common})


def _score_group(
    names: list[str], group: str, targets: Mapping[str, Arrays], submission: Mapping[str, Arrays]
) -> dict[str, float]:
    """The scores of one dataset, in the order of the official evaluation."""
    rates = arrays_of(submission, group, names[1])
    with reading(names[0], AGAIN, SubmissionError):
        forward = FORWARD[0] in rates
        target = read_targets(arrays_of(targets, group, names[0]), f"{names[0]}:/{group}", forward=forward)
    with reading(names[1], AGAIN, SubmissionError):
        return _scores(target, rates, f"{names[1]}:/{group}", OFFICIAL.get(group, (group, 5))[1])


def _scores(target: dict[str, np.ndarray], rates: Arrays, where: str, bin_ms: int) -> dict[str, float]:
    spikes = target["eval_spikes_heldout"]
    behavior = {part: target[f"{part}_behavior"] for part in ("train", "eval")}
    velocity = behavior["eval"].ndim == 3
    forward = FORWARD[0] in rates and "eval_spikes_heldin_forward" in target
    used = [*(TRAIN if velocity else ()), *EVAL, *(FORWARD if forward else ())]
    check_submission(
        where,
        {name: rates[name] for name in used if name in rates},
        _expected(used, target, rates),
        mean_counts={EVAL[1]: np.nansum(spikes, (0, 1)) / (~np.isnan(spikes)).sum((0, 1)).clip(1)},
        bin_ms=bin_ms,
    )
    scores = {"co-bps": _bits(rates, EVAL[1:], spikes)}
    if velocity:
        scores["vel R2"] = _velocity(target, rates, behavior)
    else:
        scores["tp corr"] = _tp_correlation(rates, spikes, behavior["eval"])
    if "psth" in target:
        scores["psth R2"] = _psth(target, rates)
    if forward:
        counts = [target[f"eval_spikes_{side}_forward"] for side in ("heldin", "heldout")]
        scores["fp-bps"] = _bits(rates, FORWARD, np.concatenate(counts, axis=2))
    return scores


def _expected(used: list[str], target: dict[str, np.ndarray], rates: Arrays) -> dict[str, tuple[int, ...]]:
    """The shape of each array as far as the targets tell it; only the number of held-in neurons may be open."""
    sizes = {"A": len(target["train_behavior"])}
    for name in ("eval_spikes_heldout", "eval_spikes_heldin_forward", "psth"):
        if name in target:
            sizes |= zip(SHAPES[name], target[name].shape, strict=True)
    if "I" not in sizes:
        predicted = rates[EVAL[0]].shape[-1] if EVAL[0] in rates else 0
        sizes["I"] = sizes["P"] - sizes["N"] if "P" in sizes else predicted
    return {name: tuple(sizes[axis] for axis in RATES[name]) for name in used}


def _rates(rates: Arrays, names: tuple[str, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of trials and their rates in float64, held-in neurons first."""
    widest = max((rates[name] for name in names), key=lambda array: array.shape[2])
    for block in row_blocks(widest, BLOCK):
        parts = [np.asarray(rates[name][block], dtype=np.float64) for name in names]
        yield block, torch.from_numpy(np.concatenate(parts, axis=2))


def _bits(rates: Arrays, names: tuple[str, ...], spikes: np.ndarray) -> float:
    metric = BitsPerSpike(spikes.shape[2])
    for block, predicted in _rates(rates, names):
        counts = torch.from_numpy(spikes[block])
        metric.update(predicted, counts, ~counts.isnan())
    return float(metric.compute())


def _velocity(target: dict[str, np.ndarray], rates: Arrays, behavior: dict[str, np.ndarray]) -> float:
    folds, velocity = {}, {part: torch.from_numpy(values) for part, values in behavior.items()}
    for part, values in velocity.items():
        mask = f"{part}_decode_mask"
        groups = torch.from_numpy(target[mask]) if mask in target else None
        folds[part] = decode_folds(values, groups)
    _, head = next(_rates(rates, TRAIN))
    metric = VelocityR2(head.shape[2], velocity["eval"].shape[2], folds["eval"].shape[2], head.mean((0, 1)).tolist())
    for block, predicted in _rates(rates, TRAIN):
        metric.update_train(predicted, velocity["train"][block], folds["train"][block])
    for block, predicted in _rates(rates, EVAL):
        metric.update(predicted, velocity["eval"][block], folds["eval"][block])
    return float(metric.compute())


def _psth(target: dict[str, np.ndarray], rates: Arrays) -> float:
    members = target["eval_cond_idx"]
    trial = np.concatenate([*members, np.zeros(0, np.int64)])
    condition = torch.from_numpy(np.repeat(np.arange(len(members)), [len(m) for m in members]))
    jitter = torch.from_numpy(target["eval_jitter"][trial] if "eval_jitter" in target else np.zeros_like(trial))
    metric = PsthR2(torch.from_numpy(target["psth"]))
    for block, predicted in _rates(rates, EVAL):
        here = torch.from_numpy((trial >= block.start) & (trial < block.stop))
        metric.update(predicted[torch.from_numpy(trial)[here] - block.start], condition[here], jitter[here])
    return float(metric.compute())


def _tp_correlation(rates: Arrays, spikes: np.ndarray, behavior: np.ndarray) -> float:
    metric = TpCorrelation(len(spikes))
    scored = torch.from_numpy(~np.isnan(spikes[..., 0]))
    for block, predicted in _rates(rates, EVAL):
        index = torch.arange(block.start, block.stop)
        metric.update(predicted, scored[block], torch.from_numpy(behavior[block]), index)
    return float(metric.compute())


@errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    """The command line."""
    prog = "python -m neuro_lightning.submission.score"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    parser.add_argument("targets", metavar="TARGETS.h5", help="what the rates are scored against")
    parser.add_argument("submission", metavar="SUBMISSION.h5", help="the predicted rates, in spikes per bin")
    parser.add_argument("--json", metavar="FILE", help="also save the scores here")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    results = score(args.targets, args.submission)
    print_official_scores(f"Scores of {args.submission}", results)
    if args.json:
        write_json(Path(args.json), results)


if __name__ == "__main__":
    sys.exit(main())
