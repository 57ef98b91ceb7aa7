"""How trials are cut out of a recording."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = "trial"
"""What ``window_ms`` is called where each trial is taken whole."""


@dataclass(frozen=True)
class WindowSettings:
    """How trials are cut out of a recording.

    Attributes:
        align: the trial column (s) that windows are aligned to.
        window_ms: start and stop of the observed window around ``align``, in ms, [start, stop).
        bin_ms: bin width in ms.
        forward_ms: length of the window to predict right after the observed one, in ms.
        behavior: the continuous series that is decoded, or several, side by side; None for none.
        lag_ms: by how many ms the behavior window comes after the spike window.
        conditions: the trial columns whose combinations are the conditions.
        labels: the trial columns that heads may decode.
        trials: the table whose rows are the trials, or ``continuous``.
        to_stop: each trial ends with the last whole bin before its stop; ``window_ms`` is that of the longest.
        partial_units: keep trials in which some units were not recorded all the time.
    """

    align: str
    window_ms: tuple[int, int]
    bin_ms: int
    forward_ms: int = 0
    behavior: str | tuple[str, ...] | None = None
    lag_ms: int = 0
    conditions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    trials: str = "trials"
    to_stop: bool = False
    partial_units: bool = False

    @property
    def n_bins(self) -> int:
        """Observed bins T."""
        return (self.window_ms[1] - self.window_ms[0]) // self.bin_ms

    @property
    def n_forward(self) -> int:
        """Forward bins F."""
        return self.forward_ms // self.bin_ms

    @property
    def behaviors(self) -> tuple[str, ...]:
        """The names of all series that are decoded."""
        return (self.behavior,) if isinstance(self.behavior, str) else tuple(self.behavior or ())
