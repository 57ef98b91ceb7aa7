"""What a sweep on Ray Tune shows while it runs: a line for each generation, or for each trial that rests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuro_lightning.sweeps.tune.journal import Result
from neuro_lightning.sweeps.tune.population import Generations


@dataclass
class Display:
    """Lines on the terminal.

    Attributes:
        monitor: the monitored score.
        mode: whether more (``max``) or less (``min``) of it is better.
        trials: how many there are.
        epochs: of the whole training.
    """

    monitor: str
    mode: str
    trials: int
    epochs: int

    def begin(self, what: str) -> None:
        """The sweep begins, or goes on."""
        print(f"{what}; {self.monitor}", flush=True)

    def result(self, result: Result) -> None:
        """A trial has come to a milestone."""
        then = {"paused": "goes on", "finished": "done", "pruned": "stopped"}.get(result.status, result.status)
        error = f": {result.error.splitlines()[0]}" if result.error else ""
        where = f"trial {result.trial:>{len(str(self.trials - 1))}}  epoch {result.epochs:>{len(str(self.epochs))}}"
        print(f"{where}  {self._number(result.score)}  {then}{error}", flush=True)

    def generation(self, generations: Generations, results: Sequence[Result], taken: Mapping[int, int]) -> None:
        """A generation is done."""
        best = max(results, key=lambda result: result.score)
        scores = sorted(result.score for result in results)
        middle = scores[len(scores) // 2] if len(scores) % 2 else sum(scores[len(scores) // 2 - 1 :][:2]) / 2
        epoch = max(result.epochs for result in results)
        line = f"generation {len(generations.best):>2}  epoch {epoch:>{len(str(self.epochs))}}"
        line += f"  best {self._number(best.score)} (trial {best.trial})  median {self._number(middle)}"
        failed = [result for result in results if result.start is None]
        if failed:
            line += f"  failed {', '.join(str(result.trial) for result in failed)}"
        if taken:
            line += "  took over: " + ", ".join(f"{loser} from {winner}" for loser, winner in sorted(taken.items()))
        print(line, flush=True)
        for result in failed:
            print(f"  trial {result.trial}: {(result.error or result.status).splitlines()[0]}", flush=True)
        if generations.over:
            print(f"{generations.over}: the population rests", flush=True)

    def _number(self, score: float) -> str:
        return f"{score if self.mode == 'max' else -score:.4f}" if math.isfinite(score) else "   -  "
