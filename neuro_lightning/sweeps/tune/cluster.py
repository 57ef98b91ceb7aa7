"""A Ray to run on: one of the sweep's own on this machine, or a cluster that is there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from neuro_lightning.errors import ConfigError

KEY = "hydra.sweeper.ray.address"
PATIENCE_S = 5.0  # for the head of a cluster to answer
STARTS = 3  # attempts to start a Ray
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # a banner
    "RAY_enable_worker_prestart": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in configs refer to where the sweep was started
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "1000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # the sweep keeps a journal of its own
}
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # a greeting, and empty settings
SETTINGS = 4  # the kind of frame with which it is answered


def import_ray() -> Any:
    """Ray.

    Raises:
        ConfigError: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.tune
    except ImportError as error:
        raise ConfigError(f"hydra/sweeper=tune needs Ray Tune ({error}): pip install 'neuro_lightning[ray]'") from None
    return ray


@contextmanager
def cluster(
    address: str | None = None, num_cpus: int | None = None, num_gpus: int | None = None, object_store_mb: int = 100
) -> Iterator[dict[str, float]]:
    """Connect to a cluster, or start a Ray and stop it at the end. One that this process has is used as it is.

    Args:
        address: ``host:port`` of a cluster's head, or ``auto`` for one on this machine; None starts one.
        num_cpus: of a Ray that is started; None counts them.
        num_gpus: the same.
        object_store_mb: its shared memory in MB; trials need hardly any.

    Yields:
        Its resources by name, ``CPU`` and ``GPU`` among them.

    Raises:
        ConfigError: nobody answers at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        own = {"num_cpus": num_cpus, "num_gpus": num_gpus, "object_store_memory": object_store_mb * 2**20}
        _start(ray, address="local", include_dashboard=False, **own, **quiet)
    else:
        _reach(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _unreachable(address, str(error).splitlines()[0]) from None
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _start(ray: Any, **arguments: Any) -> None:
    """Ray gives its own daemons half a minute, which a busy machine may need more than once."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(**arguments)
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                why = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ConfigError(f"no Ray could be started on this machine: {why}") from error


def _reach(address: str) -> None:
    """Ray would wait for minutes."""
    if address == "auto":
        return
    if "://" in address:
        raise ConfigError(
            f"{KEY}={address}: give host:port of the cluster's head, and start the sweep on one of its machines"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{KEY}={address}: give host:port of the cluster's head, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S) as connection:
            connection.settimeout(PATIENCE_S)
            connection.sendall(HTTP2)
            if connection.recv(4)[3:] != bytes([SETTINGS]):
                raise OSError("whoever listens there is not Ray")
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _unreachable(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"{KEY}={address}: no Ray answers there ({why}); start one with `ray start --head`, set RAY_AUTH_MODE=token if "
        "it asks for a token, or leave the address out for a Ray on this machine"
    )


def share(asked: Mapping[str, float | None], there: Mapping[str, float], accelerator: str, devices: int) -> dict:
    """The resources of one trial.

    Args:
        asked: ``cpu`` and ``gpu``; a gpu of None means one for each device, where there are any.
        there: the cluster's, ``CPU`` and ``GPU``.
        accelerator: the trainer's; ``cpu`` needs no GPU.
        devices: the trainer's processes.

    Raises:
        ConfigError: the cluster has less than a trial needs: it would wait for ever.
    """
    gpus = there.get("GPU", 0.0)
    gpu = asked.get("gpu")
    if gpu is None:
        gpu = min(devices, gpus) if accelerator != "cpu" else 0
    needed = {"cpu": float(asked.get("cpu") or 1), "gpu": float(gpu)}
    for name, amount in needed.items():
        if amount < 0 or amount > there.get(name.upper(), 0.0):
            raise ConfigError(
                f"hydra.sweeper.resources.{name}={amount:g}: a trial cannot have as much, Ray has "
                f"{there.get(name.upper(), 0.0):g} in all"
            )
    return needed
