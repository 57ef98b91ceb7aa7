"""Builds loggers for tests, and reads the files that W&B writes offline."""

import json
import os
import struct
import time
from pathlib import Path

import pytest
import wandb

from neuro_lightning.loggers.building import (
    build_loggers,
)


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path, tmp_path_factory):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.getbasetemp()))  # of artifacts before their upload
    wandb.teardown()  # it keeps the settings of the first run in this process, which may have been disabled


def build(folder, options=None, **settings):
    options = {"csv": {}, "wandb": {"project": "p", "entity": None, "mode": "auto"}} if options is None else options
    settings = {"config": {"model": {"hidden": 8}}, "name": "gru-lorenz-0", "run_id": "abc"} | settings
    return build_loggers(options, output_dir=folder, **settings)


def read_wandb(folder, seconds=60):
    """The records of every .wandb file under ``folder``, oldest first; W&B's service may still be writing them."""
    paths = sorted(Path(folder).rglob("*.wandb"), key=lambda path: path.parent.name)
    end = time.monotonic() + seconds
    while True:
        runs = [parse_wandb(path.read_bytes()) for path in paths]
        if all(records and any(r.HasField("exit") for r in records) for records in runs) or time.monotonic() > end:
            return runs
        time.sleep(0.05)


def parse_wandb(data):
    """A log of blocks of 32 KiB after a header of 7 bytes; chunks with 7 bytes of header, of which 3 say how long."""
    from wandb.proto import wandb_internal_pb2

    at, parts, records = 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + length > len(data):
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def history(records):
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return rows


def summary(records):
    found = {}
    for record in records:
        for item in record.summary.update:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def artifacts(records):
    """What a run keeps, without the tables that it has logged, which W&B keeps as artifacts, too."""
    found = [record.artifact for record in records if record.HasField("artifact")]
    return [artifact for artifact in found if artifact.type != "run_table"]


def run_record(records):
    return next(record.run for record in records if record.WhichOneof("record_type") == "run")
