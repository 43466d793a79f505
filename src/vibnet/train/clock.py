"""When a run saves, and when it stops."""

import math
import time
from collections.abc import Sequence


class Clock:
    """When to save, and when to stop: before the next epoch would be too late."""

    def __init__(self, seconds: float, save_every: float) -> None:
        self.begin = self.last = time.monotonic()
        self.at_save = -math.inf  # the first epoch is saved
        self.limit, self.save_every, self.longest = seconds, save_every, 0.0
        self._cpu, self._before = time.process_time(), (0.0, 0.0)

    @property
    def took(self) -> tuple[float, float]:
        """Seconds so far: of wall time, and of the processor."""
        wall, cpu = self._before
        return wall + time.monotonic() - self.begin, cpu + time.process_time() - self._cpu

    def go_on(self, took: Sequence[float]) -> None:
        """Seconds that were spent before."""
        self._before = took[0], took[1]

    def tick(self) -> None:
        """An epoch is over."""
        now = time.monotonic()
        self.longest, self.last = max(self.longest, now - self.last), now

    def saved(self) -> None:
        """A checkpoint has been written."""
        self.at_save = self.last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.last - self.at_save >= self.save_every

    @property
    def over(self) -> bool:
        """Whether one more epoch might end after the limit."""
        return self.last - self.begin + 1.5 * self.longest > self.limit
