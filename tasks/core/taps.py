"""What one row of features is: a cut and a pooling, written `cut:pooling`."""

from dataclasses import dataclass

from tasks.core.errors import RequestError

POOLINGS = ("none", "mean", "mean+std", "max", "cls")
LAST = "last"
"""Stands for the backbone's own last cut."""

CENTRE = "centre"
"""The view that is taken when none is named: the picture as its preprocessing crops it."""


@dataclass(frozen=True, order=True)
class Tap:
    """A place in the network and how its activations become a row."""

    cut: str
    pooling: str = "mean"

    def __str__(self) -> str:
        return f"{self.cut}:{self.pooling}"

    def at(self, last: str) -> "Tap":
        """Put the backbone's own name where the tap says "last"."""
        return Tap(last, self.pooling) if self.cut == LAST else self


def spell(tap: Tap, view: str) -> str:
    """Name a tap of a view, as a study's results do."""
    return str(tap) if view == CENTRE else f"{tap} {view}"


def parse_tap(text: str) -> Tap:
    """Read `cut` or `cut:pooling`.

    Raises:
        RequestError: if the cut is empty or the pooling unknown.
    """
    cut, _, pooling = text.partition(":")
    if not cut or (pooling or "mean") not in POOLINGS:
        raise RequestError(
            f"tap {text!r}: write cut:pooling with a pooling of {', '.join(POOLINGS)}, such as last:mean"
        )
    return Tap(cut, pooling or "mean")
