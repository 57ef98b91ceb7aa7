"""Starts ``train.py`` from a process that has imported the package already, which saves the seconds of the imports.

``start`` is used like ``subprocess.Popen``. Its server is one process for each pytest process: it imports the package
once, has one thread, and forks for each command. The fork gets the arguments, folder, environment and pipes of the
command, leaves the server's loop and runs the program as ``__main__`` until the interpreter ends as usual.
"""

import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent


class Forked:
    """A command that runs, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, args: list[str], pid: int, stdout: int, stderr: int, status: int) -> None:
        self.args, self.pid, self.returncode, self._status = args, pid, None, status
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
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

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
def _server() -> tuple[socket.socket, subprocess.Popen]:
    """The connection to the server and the server, which the first command starts and which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    words = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(words, env=environment, pass_fds=[theirs.fileno()], cwd=TESTS.parent)
    theirs.close()
    return ours, process


def start(program: Path, arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> Forked:
    """Run ``python program *arguments`` in ``folder`` and do not wait for it."""
    words = [str(program), *arguments]
    pipes = [os.pipe() for _ in range(3)]
    request = json.dumps({"words": words, "folder": str(folder), "environment": environment}).encode()
    socket.send_fds(_server()[0], [request], [write for _, write in pipes])
    for _, write in pipes:
        os.close(write)
    reads = [read for read, _ in pipes]
    return Forked(words, int(os.read(reads[2], 16)), *reads)


def serve(connection: socket.socket) -> list[str]:
    """Fork for each request; only the forks return, with the words of their command."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            sys.exit()
        stdout, stderr, status = files
        # a process between the server and the command waits for it: the server does not have to
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            if not (pid := os.fork()):
                break
            os.close(stdout), os.close(stderr)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.write(status, f"{pid}".encode().ljust(16))
            os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}".encode())
            os._exit(0)
        for file in files:
            os.close(file)
    os.close(status)
    for file, number in ((stdout, 1), (stderr, 2)):
        os.dup2(file, number)
        os.close(file)
    asked = json.loads(request)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    return asked["words"]


if __name__ == "__main__":
    import runs  # noqa: F401 - imports what the commands import

    sys.argv[:] = serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(sys.argv[0], run_name="__main__")
