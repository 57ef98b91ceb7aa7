"""What the Neural Latents Benchmark fixes for each of its seven datasets: files, windows, behavior.

The benchmark is described in Pei & Ye et al., NeurIPS 2021 (Datasets and Benchmarks),
https://neurallatents.github.io; the numbers are those of its evaluation code (nlb_tools 0.0.4) and of the
files' published versions on DANDI.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuro_lightning.errors import ConfigError

FORWARD_MS = 200
"""Length of the forward-prediction window, right after the observed one, in ms."""

MAX_JITTER_MS = 300
"""Largest shift of a dmfc_rsg window, in ms."""

BIN_WIDTHS = (5, 20)
"""The bin widths that the benchmark scores, in ms."""


@dataclass(frozen=True)
class Asset:
    """A published file: its path inside the dandiset, its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class NLBParams:
    """One dataset of the benchmark.

    Attributes:
        name: the dataset's name.
        dandiset: its number on DANDI.
        version: the published version that the sizes and checksums belong to.
        train: the file with the trials of ``train``, ``val`` and ``none``, all units and the behavior.
        test: the file with the held-in units of the test trials.
        n_in: held-in units in the published file.
        n_out: held-out units in the published file.
        align: the trial column (s) that windows are aligned to.
        window: start and stop of the observed window around ``align``, in ms, [start, stop).
        behavior: the continuous series that is decoded, or None where behavior is a row of the trial table.
        lag: by how many ms the behavior window comes after the spike window.
        behavior_columns: the trial columns that are the behavior, where there is no series.
        conditions: the trial columns that define a condition; empty where there are no PSTHs.
        psth_sd: standard deviation of the Gaussian that smooths the target PSTHs, in ms.
        decode_column: a boolean trial column; trials with False and True are decoded apart.
        scored_from: the trial column (s) from which on held-out spikes are scored, up to ``align``; None for
            all bins. Such a dataset also jitters its windows by up to 300 ms, the scored bins staying inside.
    """

    name: str
    dandiset: str
    version: str
    train: Asset
    test: Asset
    n_in: int
    n_out: int
    align: str
    window: tuple[int, int]
    behavior: str | None = None
    lag: int = 0
    behavior_columns: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    psth_sd: int = 0
    decode_column: str | None = None
    scored_from: str | None = None

    @property
    def window_ms(self) -> int:
        """Length of the observed window in ms."""
        return self.window[1] - self.window[0]

    @property
    def assets(self) -> tuple[Asset, Asset]:
        """The train and the test file."""
        return self.train, self.test

    @property
    def train_columns(self) -> tuple[str, ...]:
        """The trial columns that the train file must have."""
        of_intervals = (self.scored_from, "tp", "is_outlier") if self.scored_from else ()
        named = ("split", self.align, *self.behavior_columns, *self.conditions, self.decode_column, *of_intervals)
        return tuple(dict.fromkeys(filter(None, named)))

    @property
    def test_columns(self) -> tuple[str, ...]:
        """The trial columns that the test file must have."""
        return "split", self.align


def _files(
    stem: str, train: tuple[int, str], test: tuple[int, str], of_train: str = "behavior+ecephys"
) -> tuple[Asset, ...]:
    """The two files of a dataset, from their sizes and checksums."""
    stem = f"sub-{stem.split('_')[0]}/sub-{stem}_desc"
    return Asset(f"{stem}-train_{of_train}.nwb", *train), Asset(f"{stem}-test_ecephys.nwb", *test)


# the four maze datasets: the same task, monkey and windows
_MAZE = {"align": "move_onset_time", "window": (-250, 450), "behavior": "hand_vel",
         "conditions": ("trial_type", "trial_version")}  # fmt: skip

NLB_DATASETS: dict[str, NLBParams] = {
    p.name: p
    for p in (
        NLBParams(
            "mc_maze", "000128", "0.220113.0400", *_files(
                "Jenkins_ses-full",
                (690_612_247, "a27f84f9c31f077011062fd99a6ced199fdf19e656151f056c3c6244a408a3c4"),
                (3_392_688, "ad802feb85beb41660550ee9820ad42e9e591dd61c10d401d1cf2eab3ab5de10"),
            ), 137, 45, lag=100, psth_sd=70, **_MAZE,
        ),
        NLBParams(
            "mc_maze_large", "000138", "0.220113.0407", *_files(
                "Jenkins_ses-large",
                (148_590_536, "1188ddf5b822dd9ac49afb8916f4b42a85867613cf7f169d0b04a1d1aeecd700"),
                (802_352, "c65e12e9f484653ec8d85b265fc7e0e93789fd5f760c6adddd54759ac48974f1"),
            ), 122, 40, lag=120, psth_sd=50, **_MAZE,
        ),
        NLBParams(
            "mc_maze_medium", "000139", "0.220113.0408", *_files(
                "Jenkins_ses-medium",
                (76_604_764, "3852799f85f662f1cacadb0d758ba8fa0dc6cca318f46c9b131978adf1baffb6"),
                (695_928, "4021be45ae55f3a8278d1dd6c1237a13d0f3972bed9bc2e543360403118a4a99"),
            ), 114, 38, lag=120, psth_sd=50, **_MAZE,
        ),
        NLBParams(
            "mc_maze_small", "000140", "0.220113.0408", *_files(
                "Jenkins_ses-small",
                (29_207_528, "dcaf3a524e2b2f65f163ee3b07789b8474bdfc6ca66098bc542ab93dff489884"),
                (689_312, "ca8a0bef5f189eafb9db1961d617e065cb461360718fde1c16a538922a6fa5fe"),
            ), 107, 35, lag=120, psth_sd=50, **_MAZE,
        ),
        NLBParams(
            "mc_rtt", "000129", "0.241017.1444", *_files(
                "Indy",
                (49_764_168, "2f78db62bd4d68b9bc737444f72bc2dfe475d7390dd7a54848aaf6a6a6ba8da5"),
                (1_201_344, "7d5e2125fa3afc0fc170b0c867a920f85fabe0f1a751da5dcb49351ccd943add"),
            ), 98, 32, align="start_time", window=(0, 600), behavior="finger_vel", lag=140,
        ),
        NLBParams(
            "area2_bump", "000127", "0.220113.0359", *_files(
                "Han",
                (1_822_876_234, "639b1a03ab813f96fec76681110a1634942476badc0fd4c93d406c24701f5db2"),
                (492_576, "adde1de7bb83d36d93d0a524ccf4ac77cdf370ec826c3acc1d2fc16a21237617"),
            ), 49, 16, align="move_onset_time", window=(-100, 500), behavior="hand_vel", lag=-20,
            conditions=("cond_dir", "ctr_hold_bump"), psth_sd=40, decode_column="ctr_hold_bump",
        ),
        NLBParams(
            "dmfc_rsg", "000130", "0.241017.1448", *_files(
                "Haydn",
                (14_119_912, "6212aaee2c978d1cd53fbfb433d11f418ed27cd83017b8b2befa4a1d7add5198"),
                (1_553_584, "4b4e9118d833876a9643dd38df1d3d0c53737811720705e5cfad50d6de0bec3a"), "ecephys",
            ), 40, 14, align="go_time", window=(-1500, 0),
            behavior_columns=("is_eye", "theta", "is_short", "ts", "tp"),
            conditions=("is_eye", "theta", "is_short", "ts"), psth_sd=70, scored_from="set_time",
        ),
    )
}  # fmt: skip


def get_params(dataset: str) -> NLBParams:
    """The parameters of one dataset.

    Raises:
        ConfigError: the benchmark has no dataset of that name.
    """
    if dataset not in NLB_DATASETS:
        known = ", ".join(NLB_DATASETS)
        raise ConfigError(f"the Neural Latents Benchmark has no dataset {dataset!r}; it has {known}")
    return NLB_DATASETS[dataset]


def group_name(dataset: str, bin_ms: int) -> str:
    """A dataset's name in target and submission files: plain at 5 ms, else as in ``mc_rtt_20``."""
    return dataset if bin_ms == 5 else f"{dataset}_{bin_ms}"


def find_files(dataset: str, root: str | Path) -> tuple[Path, Path]:
    """Where a dataset's two files lie under ``root``, or ``root/<dataset>``, as ``dandi download`` leaves them.

    Args:
        dataset: the dataset's name.
        root: the folder to look in.

    Returns:
        The train and the test path; a file that is nowhere gets the path ``dandi download`` would give it.
    """
    params = get_params(dataset)
    return _find(params, params.train, Path(root)), _find(params, params.test, Path(root))


def _find(params: NLBParams, asset: Asset, root: Path) -> Path:
    inside = params.dandiset + "/" + asset.path, asset.path, asset.name
    candidates = [folder / name for name in inside for folder in (root / params.name, root)]
    return next((path for path in candidates if path.is_file()), root / inside[0])
