"""Writes a function of tensors as a file for torch or for ONNX, and a description beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.records import write_json
from neuro_lightning.contracts import DataSpec
from neuro_lightning.data.identity import checksum
from neuro_lightning.errors import ConfigError
from neuro_lightning.export.function import Function, Tensors
from neuro_lightning.version import VERSION

SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
UNITS = {
    "counts": "spikes of each neuron in the bin", "observed": "true where the count was recorded",
    "rates": "expected spikes of each neuron in the bin", "latents": "none",
    "behavior": "as in the recording that trained the model",
}  # fmt: skip
BINS = 25
"""So many random bins, or a trial, must come out of the file as they come out of the network."""


def write(function: Function, target: str, path: Path, longest: int | None = None) -> Path:
    """Write the file, and check that it computes what the network does.

    Args:
        function: what it is to compute.
        target: ``torch`` or ``onnx``.
        path: without a suffix.
        longest: bins of a trial that the network knows; None has no end.

    Returns:
        The file.

    Raises:
        ConfigError: the optional packages for ONNX are not installed, or ONNX cannot hold this network.
    """
    file = path.with_name(path.name + SUFFIX[target])
    with _quiet(), atomic_path(file) as part:
        (_write_onnx if target == "onnx" else _write_torch)(function, part)
        run = _open_onnx(part) if target == "onnx" else _open_torch(part, function)
        check(function, run, min(BINS, longest or BINS))
    return file


def describe(function: Function, spec: DataSpec, file: Path, checkpoint: Path, **more: Any) -> Path:
    """Write what one must know of a file that was exported, as JSON beside it.

    Args:
        function: what the file computes.
        spec: the description of the data.
        file: the file.
        checkpoint: that holds the network.
        more: further values.
    """
    path = file.with_suffix(".json")
    names, values = list(function.outputs), function(function.inputs).values()
    outputs = dict(zip(names, values, strict=True))
    write_json(path, {
        "neuro_lightning": VERSION, "torch": torch.__version__, "dataset": spec.dataset, **more,
        "bin_ms": spec.bin_ms, "n_in": spec.n_in, "unit_ids": list(spec.unit_ids),
        "inputs": _shapes({k: v for k, v in function.inputs.items() if not k.startswith("state.")}),
        "outputs": _shapes({k: v for k, v in outputs.items() if not k.startswith("next.")}),
        "state": {
            name.removeprefix("state."): {**_shape(value), "start": value.tolist() if value.any() else 0}
            for name, value in function.inputs.items() if name.startswith("state.")
        },
        "sha256": {each.name: checksum(each) for each in (file, checkpoint)},
    })  # fmt: skip
    return path


def check(function: Function, run: Callable[[Tensors], Sequence[Any]], bins: int) -> None:
    """Compare a file with the network on random bins, some of whose counts are missing.

    Args:
        function: the network's own.
        run: inputs by name -> the file's outputs, in their order.
        bins: how many; of a function of whole trials, so many trials.

    Raises:
        ConfigError: they differ.
    """
    draw = torch.Generator().manual_seed(0)
    inputs = dict(function.inputs)
    for _ in range(bins):
        inputs["counts"] = torch.poisson(torch.full_like(inputs["counts"], 0.5), generator=draw)
        if "observed" in inputs:
            inputs["observed"] = torch.rand(inputs["observed"].shape, generator=draw) < 0.9
        expected, found = function(inputs), dict(zip(function.outputs, run(inputs), strict=True))
        for name, value in expected.items():
            rounding = 1e-4 if name == "behavior" else 1e-5  # the weights of a decoder may be large
            if not np.allclose(value.numpy(), found[name], rtol=1e-4, atol=rounding):
                raise ConfigError(f"the file's {name} are not the network's: export it from another version of torch")
        inputs |= {f"state.{name[5:]}": value for name, value in expected.items() if name.startswith("next.")}


def _write_torch(function: Function, path: Path) -> None:
    with torch.no_grad(), open(path, "wb") as file:
        torch.export.save(torch.export.export(function.module, tuple(function.inputs.values())), file)


def _open_torch(path: Path, function: Function) -> Callable[[Tensors], Sequence[Any]]:
    with open(path, "rb") as file:
        module = torch.export.load(file).module()
    return lambda inputs: [value.numpy() for value in module(*(inputs[name] for name in function.inputs))]


def _write_onnx(function: Function, path: Path) -> None:
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ConfigError(f"--to onnx needs {', '.join(missing)}: pip install 'neuro_lightning[onnx]'")
    try:
        program = torch.onnx.export(
            function.module, tuple(function.inputs.values()), input_names=list(function.inputs),
            output_names=list(function.outputs), dynamo=True, verbose=False,
        )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError:
        name = type(function.module.net).__name__
        raise ConfigError(f"--to onnx: {name} computes what ONNX has no operators for; take --to torch") from None
    program.save(str(path))


def _open_onnx(path: Path) -> Callable[[Tensors], Sequence[Any]]:
    session = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    known = [given.name for given in session.get_inputs()]  # what a network does not read is not among them
    return lambda inputs: session.run(None, {name: inputs[name].numpy() for name in known})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks, which are about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _shapes(tensors: Tensors) -> dict[str, Any]:
    return {name: {**_shape(value), "unit": UNITS[name]} for name, value in tensors.items()}


def _shape(value: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.numpy().dtype)}
