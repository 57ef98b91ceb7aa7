"""Scores that others have published on the benchmark's hidden test trials, to see a number beside."""

from __future__ import annotations

from neuro_lightning.pages.parts import Table

CAVEAT = (
    "Published scores are of the benchmark's hidden test trials, in bins of 5 ms, of models that were trained on all "
    "other trials. Scores of this page are of other trials and perhaps other held-out neurons: the two say how far "
    "apart things are, not which is better."
)
DATASETS = ("mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg")
# Le and Shlizerman 2022 (STNDT, NeurIPS), tables 1 and 2; for RNNf and r-RoBERTa the entry of J. G. Makin
CO_BPS = {
    "smoothing": (0.2109, 0.1468, 0.1544, 0.1202),
    "GPFA": (0.1872, 0.1548, 0.1680, 0.1176),
    "SLDS": (0.2249, 0.1649, 0.1960, 0.1243),
    "MINT": (0.3304, 0.1676, 0.2735, 0.1821),
    "AutoLFADS": (0.3364, 0.1868, 0.2569, 0.1829),
    "AESMTE3, ensemble": (0.3676, 0.2053, 0.2860, 0.1886),
    "STNDT, single": (0.3691, 0.1865, 0.2818, 0.1859),
    "STNDT, ensemble": (0.3862, 0.2095, 0.2898, 0.1940),
    "RNNf, single": (None, 0.2119, None, None),
    "RNNf and r-RoBERTa, ensemble": (None, 0.2168, None, None),
}


def published_table(dataset: str) -> Table | None:
    """Published co-bps of a dataset, the best first; None where none are known."""
    if dataset not in DATASETS:
        return None
    place = DATASETS.index(dataset)
    rows = [[name, values[place]] for name, values in CO_BPS.items() if values[place] is not None]
    return Table(["published model", "co-bps"], sorted(rows, key=lambda row: -row[1]))
