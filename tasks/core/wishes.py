"""What is wanted of a class: a recall or a precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tasks.core.errors import RequestError

SHOWN = 10
"""Classes that a refusal names, if none is near to what was asked for."""


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


def check_wishes(wishes: Sequence[Wish], classes: Sequence[str]) -> None:
    """Refuse wishes of classes that do not exist.

    Args:
        wishes: the operating points.
        classes: sorted names.

    Raises:
        RequestError: if an operating point is wanted of a class that is not among them.
    """
    for wish in wishes:
        if wish.column(classes) < 0:
            known = get_close_matches(str(wish.label), classes) or classes[:SHOWN]
            more = f" and {len(classes) - len(known)} more" if len(known) < len(classes) else ""
            raise RequestError(
                f"operating point: no sample is labelled {wish.label!r}; the classes are "
                f"{', '.join(map(repr, known))}{more}; give one of them as its label, or none for the last by name"
            )
