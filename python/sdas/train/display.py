"""What a person sees of a run while it trains: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from sdas.train.state import Progress
from sdas.train.until import Until

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """Progress towards a point of the run, by steps, wall time or FLOPs, with loss, validation error and speed.

    On a terminal a bar; otherwise, in a log file say, a line at most every 15 seconds. Both go to standard error.
    """

    def __init__(self, until: Until, progress: Progress, visible: bool) -> None:
        terminal = sys.stderr.isatty()
        self._until = until
        layout = "{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(
            total=until.total,
            initial=self._done(progress),
            disable=not (visible and terminal),
            mininterval=0.5,
            bar_format=layout,
        )
        self._lines = visible and not terminal
        self._last_line = time.monotonic()

    def step(self, progress: Progress) -> None:
        """Show the state after a step; text is made only when it will be seen."""
        bar, now = self._bar, time.monotonic()
        if not bar.disable:
            if time.time() - bar.last_print_t >= bar.mininterval:
                bar.set_postfix({"step": str(progress.step)} | progress.shown(), refresh=False)
            bar.update(self._done(progress) - bar.n)
        elif self._lines and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            shown = ", ".join(f"{name} {value}" for name, value in progress.shown().items())
            print(f"step {progress.step}, {progress.wall_s:.0f} s: {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _done(self, progress: Progress) -> float:
        return min(self._until.passed(progress), self._until.total)
