"""Time and memory to prepare a recording of mc_maze's size: from NWB file to trials, behavior, targets and PSTHs.

    python benchmarks/prepare.py                    # ours, on a simulated file of the full size (700 to 800 MB)
    python benchmarks/prepare.py --with-nlb-tools   # and both, side by side, on a smaller file

Everything heavy runs in a process of its own and this one stays small: Linux hands a parent's peak memory down to its
children. nlb_tools is not run at the full
size: it needs more than 24 GB there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATASET = "mc_maze"
# the published session's 2,295 trials, 182 units and 6,900 s; more spikes than there, to reach 700 MB
FULL_SIZE = {"n_trials": 2295, "n_units": (137, 45), "trial_ms": 3000, "mean_rate_hz": 15}
SMALL_TRIALS = 200


def ours(path: str, bin_ms: int) -> None:
    """Prepare the file with neuro_lightning."""
    from neuro_lightning.data.nlb.reader import load_nlb
    from neuro_lightning.data.nlb.targets import official_tensors

    official_tensors(load_nlb(DATASET, path, bin_ms=bin_ms))


def nlb_tools(path: str, bin_ms: int) -> None:
    """Make the same tensors with nlb_tools; its clock is sorted first, else it counts the wrong rows."""
    from nlb_tools import make_tensors
    from nlb_tools.nwb_interface import NWBDataset

    load = NWBDataset.load

    def sorted_load(self, *args, **kwargs):
        data, *rest = load(self, *args, **kwargs)
        return data.sort_index(), *rest

    NWBDataset.load = sorted_load
    dataset = NWBDataset(path)
    dataset.resample(bin_ms)
    make_tensors.make_train_input_tensors(
        dataset, DATASET, "train", save_file=False, include_behavior=True, include_forward_pred=True
    )
    make_tensors.make_eval_input_tensors(dataset, DATASET, "val", save_file=False)
    make_tensors.make_eval_target_tensors(dataset, DATASET, "train", "val", save_file=False, include_psth=True)


TOOLS = {"neuro_lightning": ours, "nlb_tools": nlb_tools}


def measure(tool: str, path: Path, bin_ms: int) -> dict[str, float]:
    """Run one preparation in a process of its own: wall time in s, start-up included, and peak memory in GB."""
    start = time.perf_counter()
    result = child("--run", tool, "--file", str(path), "--bin-ms", str(bin_ms))
    return {"seconds": time.perf_counter() - start, **result}


def simulate(folder: Path, n_trials: int) -> Path:
    """Write a simulated file of ``n_trials`` trials in a process of its own."""
    return Path(child("--simulate", str(n_trials), "--file", str(folder))["path"])


def child(*arguments: str) -> dict:
    """Run this script with hidden options; its last line is what it found."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed (exit {done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_gb() -> float:
    """The peak memory of this process and of its own children (nlb_tools smooths in a pool), the larger, in GB."""
    import resource

    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) / 1e6


def report(tool: str, path: Path, bin_ms: int) -> dict[str, float]:
    """Measure and print one line."""
    result = measure(tool, path, bin_ms)
    size = path.stat().st_size / 1e6
    print(f"{tool:<16} {size:7.0f} MB file  {result['seconds']:7.1f} s  {result['peak_gb']:6.2f} GB", flush=True)
    return result


def main() -> None:
    """Write the simulated files, prepare them, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with-nlb-tools", action="store_true", help="compare on a smaller file")
    parser.add_argument("--bin-ms", type=int, default=5)
    parser.add_argument("--small-trials", type=int, default=SMALL_TRIALS, help="trials of the smaller file")
    parser.add_argument("--file", type=Path, help="prepare this file of mc_maze instead of writing one")
    parser.add_argument("--run", choices=list(TOOLS), help=argparse.SUPPRESS)
    parser.add_argument("--simulate", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.simulate:
        from neuro_lightning.data.nlb.twin import write_twin

        path, _ = write_twin(DATASET, args.file, **{**FULL_SIZE, "n_trials": args.simulate})
        print(json.dumps({"path": str(path)}))
    elif args.run:
        TOOLS[args.run](str(args.file), args.bin_ms)
        print(json.dumps({"peak_gb": peak_gb()}))
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(args, Path(folder))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Measure ours at the full size, then both on a smaller file."""
    report("neuro_lightning", args.file or simulate(folder / "full", FULL_SIZE["n_trials"]), args.bin_ms)
    if args.with_nlb_tools:
        small = simulate(folder / "small", args.small_trials)
        mine, theirs = (report(tool, small, args.bin_ms) for tool in TOOLS)
        ratios = theirs["seconds"] / mine["seconds"], theirs["peak_gb"] / mine["peak_gb"]
        print(f"nlb_tools takes {ratios[0]:.1f} times the time and {ratios[1]:.1f} times the memory")


if __name__ == "__main__":
    main()
