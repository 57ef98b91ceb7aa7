"""The names in the benchmark's files: groups, arrays and scores.

A submission has a group per dataset with predicted rates in spikes per bin, a target file a group of the same name with
what they are scored against. Source: Neural Latents Benchmark '21; neurallatents/nlb_tools.
"""

from __future__ import annotations

from neuro_lightning.data.nlb.params import BIN_WIDTHS, group_name

SCALING = {"mc_maze_large": "[500]", "mc_maze_medium": "[250]", "mc_maze_small": "[100]"}
"""The scaling sets, reported together, and the prefix of their scores: the number of training trials."""

DATASETS = ("mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg", *SCALING)
"""The benchmark's datasets, in its order."""

TRAIN = ("train_rates_heldin", "train_rates_heldout")
EVAL = ("eval_rates_heldin", "eval_rates_heldout")
FORWARD = ("eval_rates_heldin_forward", "eval_rates_heldout_forward")
RATES = {
    "train_rates_heldin": "ATI",
    "train_rates_heldout": "ATN",
    "eval_rates_heldin": "BTI",
    "eval_rates_heldout": "BTN",
    "eval_rates_heldin_forward": "BFI",
    "eval_rates_heldout_forward": "BFN",
}
"""The arrays of a submission's group and their axes: A training and B evaluation trials, T observed and F forward bins,
I held-in and N held-out neurons. Those of ``EVAL`` are needed always, ``TRAIN`` to decode velocity."""

OFFICIAL = {group_name(dataset, bin_ms): (dataset, bin_ms) for dataset in DATASETS for bin_ms in BIN_WIDTHS}
"""The benchmark's groups in its order, with dataset and bin width (ms) of each."""


def group_order(groups: set[str]) -> list[str]:
    """Groups in the benchmark's order, others behind them by name."""
    return [group for group in OFFICIAL if group in groups] + sorted(groups - set(OFFICIAL))


def official_results(scores: dict[str, dict[str, float]]) -> list[dict[str, dict[str, float]]]:
    """Scores in the structure of the official evaluation: one ``<group>_split`` each, the scaling sets merged.

    Args:
        scores: the scores of each group, by the benchmark's spelling.
    """
    results, scaling = [], {bin_ms: {} for bin_ms in BIN_WIDTHS}
    for group in group_order(set(scores)):
        dataset, bin_ms = OFFICIAL.get(group, (group, 5))
        if dataset in SCALING:
            scaling[bin_ms] |= {f"{SCALING[dataset]} {name}": value for name, value in scores[group].items()}
        else:
            results.append({f"{group}_split": scores[group]})
    merged = [{f"{group_name('mc_maze_scaling', b)}_split": values} for b, values in scaling.items() if values]
    return results + merged
