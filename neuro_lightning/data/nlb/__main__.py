"""``python -m neuro_lightning.data.nlb``: export the benchmark's tensors under the field's key names."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from neuro_lightning.data.nlb.export import write_h5
from neuro_lightning.data.nlb.params import NLB_DATASETS, find_files
from neuro_lightning.data.nlb.reader import load_nlb
from neuro_lightning.data.nlb.targets import official_tensors
from neuro_lightning.data.nlb.twin import write_twin
from neuro_lightning.errors import errors_in_one_line


@errors_in_one_line
def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, read the NWB files, write the tensors."""
    parser = argparse.ArgumentParser(prog="python -m neuro_lightning.data.nlb", description=__doc__)
    parser.add_argument("--dataset", required=True, choices=list(NLB_DATASETS))
    parser.add_argument("--root", required=True, type=Path, help="folder with the NWB files")
    parser.add_argument("--phase", default="val", choices=["val", "test"])
    parser.add_argument("--bin-ms", default=5, type=int, help="bin width; the benchmark scores 5 and 20")
    parser.add_argument("--seed", default=0, type=int, help="seed of dmfc_rsg's jitter; the benchmark's is 0")
    parser.add_argument("--out", required=True, type=Path, help="HDF5 file to write")
    parser.add_argument("--simulate", action="store_true", help="write a simulated twin below --root and use it")
    args = parser.parse_args(arguments)
    print(export(args))


def export(args: argparse.Namespace) -> str:
    """Write the tensors and describe them.

    Raises:
        NeuroError: see :func:`~neuro_lightning.data.nlb.reader.load_nlb` and ``write_h5``.
    """
    if args.simulate:
        train, test = write_twin(args.dataset, args.root)
    else:
        train, test = find_files(args.dataset, args.root)
    tensors = official_tensors(
        load_nlb(args.dataset, train, test, phase=args.phase, bin_ms=args.bin_ms, seed=args.seed)
    )
    path = write_h5(args.out, tensors)
    lines = [f"{args.dataset}, phase {args.phase}, {args.bin_ms} ms" + (", SIMULATED" if args.simulate else "")]
    for name, value in tensors.items():
        members = value.items() if isinstance(value, dict) else [("", value)]
        for key, array in members:
            shape = f"{len(array)} lists" if isinstance(array, list) else "x".join(map(str, array.shape))
            lines.append(f"  {f'{name}/{key}'.rstrip('/'):<44} {shape}")
    return "\n".join([*lines, f"written to {path}"])


if __name__ == "__main__":
    sys.exit(main())
