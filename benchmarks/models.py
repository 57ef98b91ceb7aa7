"""Every model on the same data and split: scores, and what they cost.

    python benchmarks/models.py                                               # lorenz: shares of the true rates' bits
    python benchmarks/models.py --epochs ndt=260,lfads=300 data=nwb data.path=FILE.nwb
    python benchmarks/models.py --only gru,ndt --repeat 3 trainer=cpu         # some of them, three seeds
    python benchmarks/models.py --splits 5 experiment=mc_maze_430 data.path=FILE.nwb 'data.train_on_inputs=[]'
    python benchmarks/models.py --kind traces data=stringer_spontaneous data.simulate=true

Each model is a ``python train.py model=MODEL OVERRIDES`` in a process of its own, one after another, so that memory
and processor time are its own. Runs that are finished already are taken as they lie in ``--out``: a table that was
interrupted goes on. The folder is that of a sweep, and ``predict.py ckpt=OUT ensemble=stack`` makes an ensemble of it.
With ``--splits`` each split is trained on by every model, and the table has means with standard errors, and how
far each model lies below the first one on the same splits: splits differ by far more than models do.

``CPU min`` counts the processor time of the whole process, data, baseline and validations included; ``ms a step`` is
the median training step by the wall clock, and means little on a busy machine. Memory is the largest resident set.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
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
    "model": "model", "score": "score", "below": "below the first, paired", "share": "of oracle",
    "rates_r2": "rates R2", "split": "split", "parameters": "parameters", "epochs": "epochs",
    "cpu_min": "CPU min", "ms_per_step": "ms a step", "peak_mb": "peak MB",
}  # fmt: skip


def run(model: str, draw: str, folder: Path, overrides: list[str], threads: int) -> dict[str, Any] | None:
    """Train one model, unless it has been; returns what is known of it, None if it failed.

    Args:
        model: its name.
        draw: the override that says which seed or split, ``seed=0``.
        folder: of the run.
        overrides: others.
        threads: of the process.
    """
    done = folder / "cost.json"
    words = [f"model={model}", draw, f"paths.output_dir={folder}", "logger=csv", "callbacks=minimal"]
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
    return row(model, draw, record, json.loads(done.read_text())["cpu_s"])


def settings(words: list[str]) -> dict[str, str]:
    """Overrides by key; the last one counts. Where a run lies is no setting."""
    given = dict(word.split("=", 1) for word in words)
    return {key: value for key, value in given.items() if key != "paths.output_dir"}


def row(model: str, draw: str, record: dict[str, Any], cpu_s: float) -> dict[str, Any]:
    """One row of the table, of the test split where there is one with labels."""
    metric = record["objective"]["name"].split("/", 1)[1]
    split = "test" if f"test/{metric}" in record["metrics"] else "val"
    score = record["metrics"][f"{split}/{metric}"]
    oracle = ((record["oracle"] or {}).get(split) or {}).get(metric)
    higher = record["objective"]["mode"] == "max"
    return {
        "model": model,
        "draw": draw,
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
        "score": "{:.4f}", "below": "{:.4f}", "share": "{:.1%}", "rates_r2": "{:.3f}", "parameters": "{:,}",
        "cpu_min": "{:.1f}", "ms_per_step": "{:.1f}", "peak_mb": "{:.0f}",
    }  # fmt: skip
    texts = {key: "-" if row[key] is None else forms.get(key, "{}").format(row[key]) for key in COLUMNS}
    for key in ("score", "below"):
        if row[f"{key}_error"] is not None:
            texts[key] += f" ({row[f'{key}_error']:.4f})"
    return list(texts.values())


def means_of_models(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a model, the means over its seeds or splits; best first.

    ``score_error`` is their standard error, ``below`` the mean difference to the best model over the seeds or splits
    that both have, and ``below_error`` the standard error of that.
    """
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
        means.append({**entries[0], **numbers, "score_error": standard_error([entry["score"] for entry in entries])})
    means.sort(key=lambda entry: -entry["better"])
    best = {entry["draw"]: entry["better"] for entry in models[means[0]["model"]]}
    for mean in means:
        below = [best[entry["draw"]] - entry["better"] for entry in models[mean["model"]] if entry["draw"] in best]
        itself = mean is means[0] or not below
        mean["below"] = None if itself else statistics.fmean(below)
        mean["below_error"] = None if itself else standard_error(below)
    return means


def standard_error(values: list[float]) -> float | None:
    """The standard error of the mean of the values, None of a single one."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def main() -> None:
    """Run what has not been run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kind", choices=MODELS, default="spikes", help="of the data, which says what models there are"
    )
    parser.add_argument("--only", help="models, with commas between, in place of all")
    parser.add_argument("--out", type=Path, default=Path("outputs/models"), help="folder of the runs")
    draws = parser.add_mutually_exclusive_group()
    draws.add_argument("--repeat", type=int, default=1, help="seeds 0, 1, ...")
    draws.add_argument("--splits", type=int, default=0, help="splits of the trials and neurons: data.seed=0,1,...")
    parser.add_argument("--epochs", default="", help="of models that need another number: ndt=260,lfads=300")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="of train.py, for all models")
    args = parser.parse_args()
    epochs = dict(words.split("=") for words in args.epochs.split(",") if words)
    rows = []
    key, number = ("data.seed", args.splits) if args.splits else ("seed", args.repeat)
    for draw in range(number):
        for model in args.only.split(",") if args.only else MODELS[args.kind]:
            overrides = args.overrides + ([f"trainer.max_epochs={epochs[model]}"] if model in epochs else [])
            folder = args.out / f"{model}-{'split' if args.splits else 'seed'}{draw}"
            found = run(model, f"{key}={draw}", folder.resolve(), overrides, args.threads)
            rows += [] if found is None else [found]
    if not rows:
        sys.exit("error: no model was trained")
    with open(args.out / "models.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = "simulated" if rows[0]["simulated"] else "recorded"
    print(f"\n{data} data, {number} {'split(s)' if args.splits else 'seed(s)'}, {args.threads} thread(s)")
    titles = COLUMNS | {"score": rows[0]["metric"]}
    print("| " + " | ".join(titles.values()) + " |\n|" + "---|" * len(titles))
    for entry in means_of_models(rows):
        print("| " + " | ".join(cells(entry)) + " |")


if __name__ == "__main__":
    main()
