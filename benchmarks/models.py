"""Every model on the same data and split: scores, and what they cost.

    python benchmarks/models.py                                               # lorenz: shares of the true rates' bits
    python benchmarks/models.py --epochs ndt=260,lfads=300 experiment=mc_maze_430 data.path=FILE.nwb
    python benchmarks/models.py --only gru,ndt --repeat 3 trainer=cpu         # some of them, three seeds
    python benchmarks/models.py --kind traces data=stringer_spontaneous data.simulate=true

Each model is a ``python train.py model=MODEL OVERRIDES`` in a process of its own, one after another, so that memory
and processor time are its own. Runs that are finished already are taken as they lie in ``--out``: a table that was
interrupted goes on. The folder is that of a sweep, and ``predict.py ckpt=OUT ensemble=stack`` makes an ensemble of it.

``CPU min`` counts the processor time of the whole process, data, baseline and validations included; ``ms a step`` is
the median training step by the wall clock, and means little on a busy machine. Memory is the largest resident set.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    "spikes": ["smoothing", "fa", "gpfa", "plds", "gru", "gru_smoothed", "neural_roberta", "ndt", "stndt", "lfads"],
    "traces": [
        "mean", "pca", "fa", "gpfa", "lstm_autoencoder", "gru", "gru_smoothed", "neural_roberta", "ndt", "stndt",
        "lfads",
    ],
}  # fmt: skip
COLUMNS = {
    "model": "model", "score": "score", "share": "of oracle", "rates_r2": "rates R2", "split": "split",
    "parameters": "parameters", "epochs": "epochs", "cpu_min": "CPU min", "ms_per_step": "ms a step",
    "peak_mb": "peak MB",
}  # fmt: skip


def run(model: str, seed: int, folder: Path, overrides: list[str], threads: int) -> dict[str, Any] | None:
    """Train one model, unless it has been; returns what is known of it, None if it failed."""
    done = folder / "cost.json"
    words = [f"model={model}", f"seed={seed}", f"paths.output_dir={folder}", "logger=csv", "callbacks=minimal"]
    words += ["baselines=null", *overrides]
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{time.strftime('%H:%M:%S')} train.py {' '.join(words)}", flush=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with open(folder / "output.txt", "w") as output:
            child = subprocess.Popen(
                [sys.executable, ROOT / "train.py", *words], stdout=output, stderr=output, env=environment
            )
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            lines = (folder / "output.txt").read_text().strip().splitlines()
            print("  failed:", next((line for line in lines if line.startswith("error")), lines[-1]), flush=True)
            return None
        done.write_text(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime}))
    record = json.loads((folder / "run.json").read_text())
    if settings(record["overrides"]) != settings(words):
        sys.exit(f"error: {folder} holds a run with other settings; give another --out")
    return row(model, seed, record, json.loads(done.read_text())["cpu_s"])


def settings(words: list[str]) -> dict[str, str]:
    """Overrides by key; the last one counts. Where a run lies is no setting."""
    given = dict(word.split("=", 1) for word in words)
    return {key: value for key, value in given.items() if key != "paths.output_dir"}


def row(model: str, seed: int, record: dict[str, Any], cpu_s: float) -> dict[str, Any]:
    """One row of the table, of the test split where there is one with labels."""
    metric = record["objective"]["name"].split("/", 1)[1]
    split = "test" if f"test/{metric}" in record["metrics"] else "val"
    score = record["metrics"][f"{split}/{metric}"]
    oracle = ((record["oracle"] or {}).get(split) or {}).get(metric)
    higher = record["objective"]["mode"] == "max"
    return {
        "model": model,
        "seed": seed,
        "split": split,
        "simulated": record["data"]["simulated"],
        "metric": metric,
        "better": score if higher else -score,
        "score": score,
        "share": score / oracle if oracle and higher else None,
        "rates_r2": record["metrics"].get(f"{split}/rates_r2"),
        "parameters": record["parameters"],
        "epochs": record["checkpoints"]["epochs"],
        "cpu_min": cpu_s / 60,
        "ms_per_step": record["ms_per_step"] or None,
        "peak_mb": record["peak_memory"]["rss_mb"],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text."""
    forms = {
        "score": "{:.4f}", "share": "{:.1%}", "rates_r2": "{:.3f}", "parameters": "{:,}", "cpu_min": "{:.1f}",
        "ms_per_step": "{:.1f}", "peak_mb": "{:.0f}",
    }  # fmt: skip
    return ["-" if row[key] is None else forms.get(key, "{}").format(row[key]) for key in COLUMNS]


def mean_over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a model, the means over its seeds; best first."""
    models = {}
    for entry in rows:
        models.setdefault(entry["model"], []).append(entry)
    means = []
    for entries in models.values():
        numbers = {
            key: sum(entry[key] for entry in entries) / len(entries)
            for key, value in entries[0].items()
            if isinstance(value, float)
        }
        means.append({**entries[0], **numbers})
    return sorted(means, key=lambda entry: -entry["better"])


def main() -> None:
    """Run what has not been run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kind", choices=MODELS, default="spikes", help="of the data, which says what models there are"
    )
    parser.add_argument("--only", help="models, with commas between, in place of all")
    parser.add_argument("--out", type=Path, default=Path("outputs/models"), help="folder of the runs")
    parser.add_argument("--repeat", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--epochs", default="", help="of models that need another number: ndt=260,lfads=300")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="of train.py, for all models")
    args = parser.parse_args()
    epochs = dict(words.split("=") for words in args.epochs.split(",") if words)
    rows = []
    for seed in range(args.repeat):
        for model in args.only.split(",") if args.only else MODELS[args.kind]:
            overrides = args.overrides + ([f"trainer.max_epochs={epochs[model]}"] if model in epochs else [])
            found = run(model, seed, (args.out / f"{model}-seed{seed}").resolve(), overrides, args.threads)
            rows += [] if found is None else [found]
    if not rows:
        sys.exit("error: no model was trained")
    with open(args.out / "models.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(
        f"\n{'simulated' if rows[0]['simulated'] else 'recorded'} data, {args.repeat} seed(s), {args.threads} thread(s)"
    )
    titles = COLUMNS | {"score": rows[0]["metric"]}
    print("| " + " | ".join(titles.values()) + " |\n|" + "---|" * len(titles))
    for entry in mean_over_seeds(rows):
        print("| " + " | ".join(cells(entry)) + " |")


if __name__ == "__main__":
    main()
