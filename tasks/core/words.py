"""Numbers as people say them."""

import math

UNKNOWN = "–"
"""Stands for a number that nobody knows."""


def size(bytes_: float) -> str:
    """Spell a number of bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} TB"


def points(difference: float) -> str:
    """Spell a difference of two shares in points: "+1.2"; what rounds to nought has no sign of its own."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def about(seconds: float) -> str:
    """Spell a time so roughly as an estimate is: "about 2 minutes"."""
    if seconds < 1.5:
        return "about a second"
    for unit, length, most in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 48)):
        if seconds < most * length:
            return f"about {_rounded(seconds / length)} {unit}{'s' * (_rounded(seconds / length) > 1)}"
    return f"about {_rounded(seconds / 86400)} days"


def lasted(seconds: float | None) -> str:
    """Spell a time in its own unit: "12 s", "1.5 min", "3 h"."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    unit, length = next(
        (unit, length)
        for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, math.inf))
        if seconds < most * length
    )
    number = seconds / length
    return f"{number:.2g} {unit}" if number < 10 else f"{number:,.0f} {unit}"


def _rounded(number: float) -> int:
    """Leave one digit of what is above 10, and half of the next: 13 -> 15, 42 -> 40, 87 -> 85."""
    step = 1 if number < 10 else 5 * 10 ** (math.floor(math.log10(number)) - 1)
    return max(1, round(number / step) * step)
