"""Several targets in one manifest: what is read as yes, no and unknown, and what becomes of copies and of nonsense."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import RequestError
from tasks.core.samples import Columns, Examined, assemble, check_enough
from tasks.core.targets import Target, about, answered, answers_of, targets_of

COLUMNS = Columns("", targets=(Target("car"), Target("kind", "classes")))
NONE = pd.DataFrame({"path": [], "reason": []})


def assembled(rows: list[tuple[str, str, str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of (digest, car, kind)."""
    frame = pd.DataFrame(rows, columns=["path", "car", "kind"], dtype=str)
    frame["path"] = [f"p{n}" for n in range(len(rows))]
    return assemble(frame, frame.path.tolist(), [Examined(digest, "") for digest, _, _ in rows], COLUMNS)


@pytest.mark.parametrize(
    ("text", "read"),
    [("1", "1"), (" 0 ", "0"), ("1.0", "1"), ("0.0", "0"), ("", ""), (" ? ", ""), ("NaN", ""), ("nan", "")]
    + [(text, None) for text in ("yes", "2", "-1", "0.5", "true", "1 0", "01")],
)
def test_yes_no_and_unknown(text: str, read: str | None) -> None:
    assert Target("car").read(text) == read


@given(st.text(max_size=6))
def test_a_target_of_classes_takes_any_text(text: str) -> None:
    unknown = text.strip().lower() in ("", "?", "nan")
    assert Target("kind", "classes").read(text) == ("" if unknown else text.strip())


@pytest.mark.parametrize("text", ["NaN", "nan", " ?", ""])
def test_unknown_is_written_the_same_for_a_target_of_classes(text: str) -> None:
    assert Target("kind", "classes").read(text) == ""


def test_each_target_has_a_column_and_an_answer_that_is_none_sets_its_row_aside() -> None:
    table, quarantine = assembled([("d1", "1", "x"), ("d2", "?", "y"), ("d3", "maybe", "x")])
    assert targets_of(table) == ["car", "kind"]
    assert table[["answer.car", "answer.kind"]].to_numpy().tolist() == [["1", "x"], ["", "y"]]
    assert quarantine.to_dict("records") == [
        {
            "path": "p2",
            "reason": "car: 'maybe' is none of 0, 1 and ? (unknown); other answers need kind = 'classes'",
        }
    ]


def test_copies_tell_together_what_each_knows() -> None:
    table, quarantine = assembled([("d1", "1", ""), ("d1", "", "x"), ("d2", "0", "y")])
    assert quarantine.empty
    assert table["answer.car"].tolist() == ["1", "0"]
    assert table["answer.kind"].tolist() == ["x", "y"]
    assert table.path.tolist() == ["p0", "p2"]


def test_copies_that_contradict_each_other_in_one_answer_are_set_aside() -> None:
    table, quarantine = assembled([("d1", "1", "x"), ("d1", "1", "y"), ("d2", "0", "y")])
    assert table.digest.tolist() == ["d2"]
    assert set(quarantine.reason) == {"the same picture stands in the table with another answer to kind"}
    assert len(quarantine) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_copy_with_an_answer_that_is_none_still_contradicts_in_another(order: int) -> None:
    frame = pd.DataFrame(
        [("a", "1", "1"), ("b", "0", "yes"), ("c", "1", "0"), ("d", "1", "yes")][::order],
        columns=["path", "car", "sign"],
    )
    examined = [Examined({"a": "d1", "b": "d1"}.get(path, "d2"), "") for path in frame.path]
    columns = Columns("", targets=(Target("car"), Target("sign")))
    table, quarantine = assemble(frame, frame.path.tolist(), examined, columns)
    assert table.path.tolist() == ["c"]  # d agrees as far as it can be read
    reasons = dict(zip(quarantine.path, quarantine.reason, strict=True))
    assert reasons.pop("a") == "the same picture stands in the table with another answer to car"
    assert sorted(reasons) == ["b", "d"]
    assert all(reason.startswith("sign: 'yes' is none of 0, 1 and ?") for reason in reasons.values())


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["0", "1", "?"]), st.sampled_from("xy?")),
        max_size=8,
    )
)
def test_no_row_is_lost_and_no_answer_is_made_up(rows: list[tuple[str, str, str]]) -> None:
    table, quarantine = assembled(rows) if rows else (pd.DataFrame(columns=["digest"]), NONE)
    said: dict[str, list[set[str]]] = {}
    for digest, *answers in rows:
        for known, answer in zip(said.setdefault(digest, [set(), set()]), answers, strict=True):
            known |= {answer} - {"?"}
    sound = {digest: known for digest, known in said.items() if all(len(each) < 2 for each in known)}
    assert sorted(sound) == table.digest.tolist()
    for row in table.itertuples(index=False):
        known = sound[row[0]]
        assert [row[2], row[3]] == ["".join(each) for each in known]
    assert len(quarantine) == sum(digest not in sound for digest, _, _ in rows)


def test_rows_of_which_nothing_is_known_serve_extraction_only() -> None:
    table, _ = assembled([("d1", "1", ""), ("d2", "", ""), ("d3", "", "x")])
    assert len(table) == 3
    assert answered(table).digest.tolist() == ["d1", "d3"]


def test_one_target_as_labels() -> None:
    table, _ = assembled([("d1", "1", ""), ("d2", "0", "x")])
    one = about(table, "kind")
    assert list(one) == ["digest", "path", "label", "weight"]
    assert one.label.tolist() == ["", "x"]
    assert answers_of(table, ["kind"]).counts()[0]["unknown"] == 1


def test_a_target_of_which_one_answer_is_known_is_no_reason_to_stop() -> None:
    table, _ = assembled([("d1", "1", "x"), ("d2", "1", "y")])
    check_enough(table, NONE, 2, most_bad=0)


def test_where_no_target_has_two_answers_one_line_says_so() -> None:
    table, _ = assembled([("d1", "1", ""), ("d2", "1", "")])
    with pytest.raises(RequestError, match=r"no target has two answers.*of 'car' is known: 1"):
        check_enough(table, NONE, 2, most_bad=0)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (
            [0.0, 0.0, 0.0],
            "no target has two answers among the usable samples with a weight above 0, 0 of 3 (of 'car' is known: "
            "nothing); weigh more of them above 0, or leave data.weight out",
        ),
        (
            [1.0, 0.0, 1.0],
            "no target has two answers among the usable samples with a weight above 0, 2 of 3 (of 'car' is known: 1); "
            "weigh more of them above 0, or leave data.weight out",
        ),
    ],
)
def test_where_weights_leave_no_target_two_answers_the_line_names_them(
    weights: list[float], line: str
) -> None:
    table, _ = assembled([("d1", "1", "x"), ("d2", "0", "x"), ("d3", "1", "x")])
    with pytest.raises(RequestError) as told:
        check_enough(table.assign(weight=weights), NONE, 3, most_bad=0)
    assert str(told.value) == line


def test_where_weights_are_not_to_blame_the_line_asks_for_answers() -> None:
    table, _ = assembled([("d1", "1", "x"), ("d2", "1", "x")])
    with pytest.raises(
        RequestError, match=r"of 'car' is known: 1\); at least one needs two, such as 0 and 1$"
    ):
        check_enough(table.assign(weight=[1.0, 0.0]), NONE, 2, most_bad=0)
