"""Starts Python programs from a process that has imported the package already, which saves the seconds of the imports.

``start`` is used like ``subprocess.Popen``, with the arguments of ``python``. Its server is one process for each pytest
process: it imports the package once, has one thread, and forks for each program. The fork gets the arguments, folder,
environment and files of the program, leaves the server's loop and runs it as ``__main__`` until the interpreter ends as
usual.

``executable`` is a file to use as ``sys.executable``: processes that the package or a launcher starts with it are
forked from the server, too. It waits for the fork, passes signals on to it, and ends as it has ended. A fork whose
starter is gone is killed.
"""

import array
import contextlib
import fcntl
import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# the programs that `executable` forks for; others, which need no torch, are started as ever
HEAVY = (
    "neuro_lightning.runs.worker", "neuro_lightning.live", "submitit.core._submit",
    "joblib.externals.loky.backend.popen_loky_posix",
)  # fmt: skip
# what commands and workers import
IMPORTED = (
    "runs", "tiny", "launched", "joblib", "optuna", "pandas", "submitit", "neuro_lightning.models.gru",
    "neuro_lightning.runs.worker", "neuro_lightning.sweeps.base", "neuro_lightning.sweeps.launchers",
)  # fmt: skip
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Forked:
    """A program that runs, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, args: list[str], status: int, stdout: int, stderr: int) -> None:
        self.args, self.pid, self.returncode, self._status = args, int(os.read(status, 16)), None, status
        self.stdout, self.stderr = (os.fdopen(file, errors="replace") for file in (stdout, stderr))

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()  # closing the pipes would wait for what still holds them, such as workers that live on

    def poll(self) -> int | None:
        """The exit status, the negative signal, or None while it runs."""
        return self.wait(0) if self.returncode is not None or select.select([self._status], [], [], 0)[0] else None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            _send(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs until it and all that hold them have ended."""
        said = {}
        pipes = {name: getattr(self, name) for name in ("stdout", "stderr")}
        readers = [
            threading.Thread(target=lambda n=name, p=pipe: said.update({n: p.read()}), daemon=True)
            for name, pipe in pipes.items()
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        for pipe in pipes.values():
            pipe.close()
        return said["stdout"], said["stderr"]


@functools.cache
def _server() -> tuple[Path, subprocess.Popen]:
    """The server's folder and the server, which the first program starts and which ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    listener = _listen(folder)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" client "{folder}" "$@"\n')
    (folder / "python").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    words = [sys.executable, __file__, "server", str(listener.fileno()), str(folder)]
    process = subprocess.Popen(
        words, env=environment, pass_fds=[listener.fileno()], cwd=TESTS.parent, stdin=subprocess.PIPE
    )
    listener.close()
    return folder, process


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen(64)
    return listener


def executable() -> str:
    """A file to use as ``sys.executable``."""
    return str(_server()[0] / "python")


def start(arguments: Sequence[str], folder: Path, environment: dict[str, str], python: str | None = None) -> Forked:
    """Run ``python *arguments`` in ``folder`` and do not wait for it.

    Args:
        arguments: a file or ``-m`` and a module, and its arguments.
        folder: where it runs.
        environment: its environment.
        python: its ``sys.executable``; None leaves it as it is.
    """
    (out, out_end), (error, error_end) = os.pipe(), os.pipe()
    with open(os.devnull) as nothing:
        files = {0: nothing.fileno(), 1: out_end, 2: error_end}
        status = _request(_server()[0], list(arguments), str(folder), environment, files, python)
    os.close(out_end), os.close(error_end)
    return Forked(list(arguments), status, out, error)


def _request(
    server: Path, arguments: list[str], folder: str, environment: dict[str, str], files: dict[int, int],
    python: str | None = None,
) -> int:  # fmt: skip
    """Ask for a fork.

    Args:
        server: the server's folder.
        arguments: of ``python``.
        folder: where it runs.
        environment: its environment.
        files: the files that it has, by their numbers there.
        python: its ``sys.executable``.

    Returns:
        A file from which its process number is read, and later how it has ended; each takes 16 characters.
    """
    asked = {"arguments": arguments, "folder": folder, "environment": environment, "python": python}
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(server / "socket"))
        request = json.dumps({**asked, "files": list(files)}).encode()
        passed = array.array("i", [write, *files.values()])
        connection.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        os.close(write)
    return read


# ---- the file that is used as sys.executable


def client(server: Path, arguments: list[str]) -> None:
    """Have ``python *arguments`` forked and end as it has ended; programs that are not heavy replace this process."""
    plain = [word for word in arguments if word != "-u"]
    if plain[:1] != ["-m"] or plain[1] not in HEAVY:
        os.execv(sys.executable, [sys.executable, *arguments])
    files = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    status = _request(server, plain, os.getcwd(), dict(os.environ), {file: file for file in files})
    for file in set(files) - {0, 1, 2}:  # others wait until nobody holds them
        os.close(file)
    pid = int(os.read(status, 16))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: _send(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    ended = int(os.read(status, 16))
    if ended >= 0:
        os._exit(ended)
    if -ended != signal.SIGKILL:
        signal.signal(-ended, signal.SIG_DFL)
    os.kill(os.getpid(), -ended)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# ---- the server


def serve(listener: socket.socket) -> list[str]:
    """Fork for each request until the process that has started this one is gone.

    Returns:
        The arguments of ``python``, in the forks only.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            sys.exit()
        connection, _ = listener.accept()
        with connection:
            request, (status, *files), *_ = socket.recv_fds(connection, 1 << 20, 250)
        # a process between the server and the program waits for it: the server does not have to
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            if not (pid := os.fork()):
                os.close(status)
                return _become(json.loads(request), files)
            _wait(pid, status, files)
        for file in (status, *files):
            os.close(file)


def _wait(pid: int, status: int, files: list[int]) -> None:
    """Say how the process ends; kill it if nobody listens any more. Does not return."""
    for file in files:
        os.close(file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(status, f"{pid}".encode().ljust(16))
    poll = select.poll()
    poll.register(status, 0)  # an error, when its other end is closed
    poll.register(ended := os.pidfd_open(pid), select.POLLIN)
    if ended not in dict(poll.poll()):
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}".encode())
    os._exit(0)


def _become(asked: dict, files: list[int]) -> list[str]:
    """Take on the files, folder and environment of a program; its arguments."""
    free = max([*asked["files"], *files]) + 1
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, free) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(high, asked["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ.clear()
    os.environ.update(asked["environment"])
    if os.environ.get("OMP_NUM_THREADS", threads) != threads:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    sys.executable = asked["python"] or sys.executable
    return asked["arguments"]


if __name__ == "__main__" and sys.argv[1] == "client":
    client(Path(sys.argv[2]), sys.argv[3:])
elif __name__ == "__main__":
    import gc
    import shutil
    from importlib import import_module

    for name in IMPORTED:
        import_module(name)
    gc.collect()
    gc.freeze()  # a fork whose garbage collector visits all of this would copy all of it
    try:
        sys.argv[:] = serve(socket.socket(fileno=int(sys.argv[2])))
    except SystemExit:
        shutil.rmtree(sys.argv[3])
        raise
    if sys.argv[0] == "-m":
        # it may have been imported already
        warnings.filterwarnings("ignore", "found in sys.modules", RuntimeWarning)
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
