"""Streams counts through an exported network. It needs onnxruntime and NumPy, not neuro_lightning.

python stream_onnx.py export/step.onnx counts.npy      # (T, N_in) counts of a trial -> rates.npy, (T, N)
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

path, counts = Path(sys.argv[1]), np.load(sys.argv[2]).astype(np.float32)
about = json.loads(path.with_suffix(".json").read_text())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # a network this small is no faster with more
session = onnxruntime.InferenceSession(path, options)
outputs = [output.name for output in session.get_outputs()]


def first_state():
    """The state before a trial's first bin."""
    parts = about["state"].items()
    return {f"state.{name}": np.full(part["shape"], part["start"], part["dtype"]) for name, part in parts}


state, rates = first_state(), []
present = np.ones((1, about["n_in"]), dtype=bool)  # False for a neuron that is not there
for bin_counts in counts:
    said = dict(
        zip(outputs, session.run(None, {"counts": bin_counts[None], "observed": present, **state}), strict=True)
    )
    state = {name: said[name.replace("state.", "next.", 1)] for name in state}
    rates.append(said["rates"][0])
np.save("rates.npy", rates)
