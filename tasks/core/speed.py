"""How fast work goes just now; what a cache answered in a moment says nothing about what is left."""

from collections import deque

RECENT = 60.0
"""Seconds that count."""

MOMENT = 1.0
"""Seconds between two marks; and what is done in the first is taken to have been there before."""


class Speed:
    """Items done by the clock.

    Args:
        now: the clock, in seconds.
    """

    def __init__(self, now: float) -> None:
        self.started = now
        self.marks: deque[tuple[float, int]] = deque([(now, 0)])

    def note(self, now: float, done: int) -> None:
        """Say how many items are done by now."""
        if now - self.started < MOMENT:
            self.marks[0] = (now, done)
        elif done != self.marks[-1][1] and now - self.marks[-1][0] >= MOMENT:
            self.marks.append((now, done))
            while len(self.marks) > 2 and self.marks[1][0] <= now - RECENT:
                self.marks.popleft()

    def rate(self, now: float, done: int) -> float:
        """Items a second, since the last mark that is old enough; 0 while nothing was done since."""
        first, before = self.marks[0]
        return (done - before) / max(now - first, 1e-9)
