"""What is wanted of a class: a recall or a precision."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """A recall or a precision that is wanted of one class.

    Attributes:
        label: the class to find; the last one, in the order of their names, if not given.
        recall: the least recall wanted, or None.
        precision: the least precision wanted, or None; one of the two is given.
    """

    label: str | None = None
    recall: float | None = None
    precision: float | None = None

    def column(self, classes: Sequence[str]) -> int:
        """Number of the class among the sorted names; -1 where there is no such class."""
        if self.label is None:
            return len(classes) - 1
        return list(classes).index(self.label) if self.label in classes else -1
