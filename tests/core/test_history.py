"""The history of a study: one row a run, and no file of that name, whatever is in it, stops a run."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.history import BAD, COLUMNS, alike, append_run, read_history

ROW = {
    "ended": "2026-01-02T03:04:05+00:00",
    "run": "",
    "experiment": "e",
    "split": "s",
    "metric": "accuracy",
    "value": 0.75,
    "low": 0.7,
    "high": 0.8,
    "samples": 10,
    "extracted": 4,
    "trained": 2,
    "quarantined": 0,
    "targets": "",
}


def test_each_run_adds_a_row_and_all_are_read_back(tmp_path):
    place = tmp_path / "history.csv"
    rows = [ROW | {"value": number / 7, "run": str(number)} for number in range(3)]
    for number, row in enumerate(rows):
        assert append_run(place, row) == rows[: number + 1]
    assert read_history(place) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    assert place.read_text().splitlines()[0] == ",".join(f'"{name}"' for name in COLUMNS)


def test_runs_that_end_at_once_all_have_their_row(tmp_path):
    def add(number: int) -> None:
        append_run(tmp_path / "of" / "history.csv", ROW | {"run": str(number)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    kept = {row["run"] for row in read_history(tmp_path / "of" / "history.csv")}
    assert kept == {str(number) for number in range(40)}


def test_a_score_that_is_not_known_is_read_back_as_such(tmp_path):
    lost = ROW | dict.fromkeys(("value", "low", "high"))
    append_run(tmp_path / "h.csv", lost)
    assert append_run(tmp_path / "h.csv", ROW) == [lost, ROW]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs",))), st.floats(0, 1))
def test_any_name_and_any_score_are_read_back(tmp_path, name, value):
    place = tmp_path / "h.csv"
    place.unlink(missing_ok=True)
    row = ROW | {"experiment": name, "split": name, "run": name, "value": value, "targets": name}
    assert append_run(place, row) == [row]
    assert read_history(place) == [row]


def test_bytes_of_names_are_kept(tmp_path):
    row = ROW | {"experiment": "d\udcf6g"}
    append_run(tmp_path / "h.csv", row)
    assert read_history(tmp_path / "h.csv") == [row]
    assert b"d\xf6g" in (tmp_path / "h.csv").read_bytes()


HEAD = ",".join(COLUMNS)
OLD_HEAD = HEAD.removesuffix(",targets")
OLD = "2026-01-02T03:04:05+00:00,,e,s,accuracy,0.7,0.6,0.8,1,1,1,0"
GOOD = f'{OLD},"bar, car"'


def test_a_file_without_targets_is_read_and_goes_on_with_them(tmp_path):
    place = tmp_path / "history.csv"
    place.write_text(f"{OLD_HEAD}\n{OLD}\n")
    [old] = read_history(place)
    assert (old["targets"], old["value"], old["quarantined"]) == ("", 0.7, 0)
    row = ROW | {"targets": "bar, car"}
    assert append_run(place, row) == read_history(place) == [old, row]
    assert place.read_text().splitlines()[0] == ",".join(f'"{name}"' for name in COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\x00\xff\x89PNG\r\n",
        b"a,b\n1,2\n",
        f"{HEAD},more\n{GOOD},1\n".encode(),
        f"{OLD_HEAD},more\n{OLD},1\n".encode(),
        f"{OLD_HEAD}\n{GOOD},1\n".encode(),
        f"{HEAD}\n{GOOD},1,2,3\n".encode(),
        f"{HEAD}\n{GOOD.replace('0.7', 'much')}\n".encode(),
        f"{HEAD}\n{GOOD.replace('0.7', 'nan')}\n".encode(),
        f"{HEAD}\n{GOOD.replace('0.7', 'inf')}\n".encode(),
        f"{HEAD}\n{GOOD.replace('1,1,1', '1,1.5,1')}\n".encode(),
        f"{HEAD}\n{GOOD.replace('2026-01', 'yesterday')}\n".encode(),
        f"{HEAD}\n{GOOD[:30]}".encode(),
        f'{HEAD}\n"{GOOD}'.encode(),
    ],
)
def test_a_file_that_is_no_history_is_kept_aside_and_begun_anew(content, tmp_path):
    place = tmp_path / "history.csv"
    place.write_bytes(content)
    assert append_run(place, ROW) == [ROW]
    assert read_history(place) == [ROW]
    assert place.with_name(f"history.csv{BAD}").read_bytes() == content
    assert append_run(place, ROW) == [ROW, ROW]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["", f"{HEAD}\n{GOOD}\n", f"{HEAD}\n{OLD}", f"{OLD_HEAD}\n{OLD}\n"]), st.binary())
def test_no_content_stops_a_run(tmp_path, begun, rest):
    place = tmp_path / "history.csv"
    place.write_bytes(begun.encode() + rest)
    assert append_run(place, ROW)[-1] == ROW
    assert read_history(place)[-1] == ROW


def test_a_folder_in_its_place_is_moved_aside(tmp_path):
    place = tmp_path / "history.csv"
    place.mkdir()
    (place / "mine.txt").write_text("kept")
    assert append_run(place, ROW) == [ROW]
    assert (tmp_path / f"history.csv{BAD}" / "mine.txt").read_text() == "kept"


def test_only_runs_of_the_same_split_and_metric_are_alike():
    rows = [
        ROW | {"split": "other"},
        ROW | {"value": 0.1},
        ROW | {"metric": "weighted accuracy"},
        ROW | dict.fromkeys(("value", "low", "high")),
        ROW | {"experiment": "another"},
    ]
    assert alike(rows) == [rows[1], rows[4]]
    assert alike([]) == []


def test_only_means_over_the_same_targets_are_alike():
    rows = [ROW | {"targets": targets} for targets in ("", "bar", "bar, car", "bar", "bar, car")]
    assert alike(rows) == [rows[2], rows[4]]
    assert alike(rows[:1]) == rows[:1]
