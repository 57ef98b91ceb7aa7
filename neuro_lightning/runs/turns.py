"""Several jobs in one process, one at a time: each runs until it asks for something, and goes on with the answer.

A job is ordinary code on a thread of its own. Threads never run at the same time, so that nothing has to be guarded;
what a process has once only (standard output, log files, random generators, the default type of tensors, Hydra's
config) is put back for each when its turn comes.
"""

from __future__ import annotations

import contextvars
import logging
import random
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig

NOT_YET = object()
"""In place of an answer: the job waits on."""

_here = threading.local()


class Turn:
    """A job that runs in turns with others.

    Args:
        job: what is done.
        answer: answers it, see :func:`take_turns`.

    Attributes:
        asked: what the job asks for; None once it has ended.
        result: what the job returned, or the error that it raised.
    """

    def __init__(self, job: Callable[[], Any], answer: Any) -> None:
        self.job, self.answer = job, answer
        self.asked: Any = None
        self.result: Any = None
        self._answer: Any = None
        self._go, self._pause = threading.Semaphore(0), threading.Semaphore(0)
        self._process = _Process()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), daemon=True)

    def go(self, answer: Any = None) -> None:
        """Let the job run until it asks for something or ends.

        Args:
            answer: to what it has asked for; an exception is raised where it asked.

        Raises:
            KeyboardInterrupt: the user has pressed Ctrl-C meanwhile.
        """
        before, interrupted = _Process(), False
        self._answer = answer
        self._process.restore()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        while True:  # a job is not left in the middle
            try:
                self._pause.acquire()
                break
            except KeyboardInterrupt:
                interrupted = True
        self._process = _Process()
        before.restore()
        if interrupted:
            raise KeyboardInterrupt

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self._thread.ident is not None and self.asked is None

    def _run(self) -> None:
        _here.turn = self
        try:
            self.result = self.job()
        except BaseException as error:
            self.result = error
        finally:
            self.asked = None
            self._pause.release()

    def ask(self, question: Any) -> Any:
        """The answer to a question, once it is this job's turn again. Called by the job."""
        self.asked = question
        self._pause.release()
        self._go.acquire()
        self.asked = None
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


def this_turn() -> Turn | None:
    """The job that asks, None outside of :func:`take_turns`."""
    return getattr(_here, "turn", None)


def take_turns(jobs: Sequence[Callable[[], Any]], answer: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """Run jobs in turns; what each returned, or the error that it raised.

    Args:
        jobs: what is done.
        answer: called with what all jobs that have not ended ask for; gives the answer to each, ``NOT_YET`` where it
            waits on. An exception is raised where the job asked.

    Raises:
        KeyboardInterrupt: the user has pressed Ctrl-C; every job was ended by a ``SystemExit`` before.
    """
    turns = [Turn(job, answer) for job in jobs]
    try:
        for turn in turns:
            turn.go()
        while asking := [turn for turn in turns if not turn.ended]:
            for turn, given in zip(asking, answer([turn.asked for turn in asking]), strict=True):
                if given is not NOT_YET:
                    turn.go(given)
    except BaseException:
        for turn in turns:
            while not turn.ended and turn.asked is not None:  # Lightning lets its own answer to Ctrl-C run nowhere else
                turn.go(SystemExit(130))
        raise
    return [turn.result for turn in turns]


class _Process:
    """What the process has once only, as it is now."""

    def __init__(self) -> None:
        self.stdout, self.dtype = sys.stdout, torch.get_default_dtype()
        self.hydra = HydraConfig.instance().cfg
        self.handlers = list(logging.getLogger().handlers)
        self.python, self.numpy, self.torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore(self) -> None:
        """Put it back."""
        sys.stdout = self.stdout
        torch.set_default_dtype(self.dtype)
        logging.getLogger().handlers[:] = self.handlers
        HydraConfig.instance().cfg = self.hydra
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
