"""Wishes find their class by name, and one that has none is refused in one line."""

import pytest

from tasks.core.errors import RequestError
from tasks.core.wishes import Wish, check_wishes

CLASSES = ["cat", "dog", "emu"]


@pytest.mark.parametrize(("label", "column"), [("cat", 0), ("emu", 2), (None, 2), ("yak", -1), ("", -1)])
def test_a_wish_is_of_the_class_that_it_names_or_of_the_last(label, column):
    assert Wish(label, recall=0.9).column(CLASSES) == column


def test_wishes_of_classes_that_exist_are_taken():
    check_wishes([], CLASSES)
    check_wishes([Wish(precision=0.5), *(Wish(label, recall=0.5) for label in CLASSES)], CLASSES)


@pytest.mark.parametrize(
    ("label", "classes", "told"),
    [
        ("dgo", CLASSES, "no sample is labelled 'dgo'; the classes are 'dog' and 2 more; give"),
        ("yak", CLASSES, "no sample is labelled 'yak'; the classes are 'cat', 'dog', 'emu'; give"),
        ("", CLASSES, "no sample is labelled ''; the classes are 'cat', 'dog', 'emu'; give"),
        ("x", [f"{n:03}" for n in range(99)], "'008', '009' and 89 more; give one of them as its label"),
        ("a\nb", ["caf\udce9", "line\nfeed"], "'a\\nb'; the classes are 'caf\\udce9', 'line\\nfeed'; give"),
    ],
)
def test_a_wish_of_no_class_is_refused_in_one_line(label, classes, told):
    with pytest.raises(RequestError) as refused:
        check_wishes([Wish(recall=0.9), Wish(label, recall=0.9)], classes)
    assert told in str(refused.value)
    assert str(refused.value).startswith("operating point: ")
    assert str(refused.value).isprintable()
