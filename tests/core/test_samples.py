"""Samples are known by their bytes; what cannot be used is set aside with the reason."""

import io
import os
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.core import samples as module
from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError
from tasks.core.samples import Columns, Examined, assemble, check_enough, examine


@pytest.fixture
def artifacts(tmp_path):
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture
def settled(monkeypatch):
    """Files are remembered however lately they changed."""
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**15))


@pytest.fixture
def opened(monkeypatch):
    """The paths that were read, in no order."""
    paths, read_bytes = [], Path.read_bytes

    def note(self):
        paths.append(self)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", note)
    return paths


def picture(seed=0):
    """The bytes of a small PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def look(paths, artifacts):
    return examine([str(path) for path in paths], [""] * len(paths), artifacts)


# Examine


def test_each_path_is_told_its_digest_in_the_order_given(tmp_path, artifacts):
    data = [picture(seed) for seed in range(9)]
    paths = [put(tmp_path / f"{seed}.png", each) for seed, each in enumerate(data)]
    told, read = look(paths[::-1], artifacts)
    assert told == [Examined(digest_bytes(each), "") for each in data[::-1]]
    assert read == 9


def test_unchanged_files_are_not_read_again(tmp_path, artifacts, settled, opened):
    good = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(4)]
    bad = [put(tmp_path / "text.png", b"text"), put(tmp_path / "empty.png", b"")]
    first = look([*good, *bad], artifacts)
    assert sorted(opened) == sorted([*good, *bad])
    opened.clear()
    assert look([*bad, *good], artifacts) == ([*first[0][4:], *first[0][:4]], 0)
    assert opened == []


def test_only_changed_and_new_files_are_read(tmp_path, artifacts, settled, opened):
    paths = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(4)]
    look(paths, artifacts)
    opened.clear()
    put(paths[2], picture(7) + b"trailing")
    paths.append(put(tmp_path / "new.png", picture(9)))
    told, read = look(paths, artifacts)
    assert (sorted(opened), read) == (sorted([paths[2], paths[4]]), 2)
    assert told[2] == Examined(digest_bytes(picture(7) + b"trailing"), "")


def test_another_version_of_decoding_reads_all_again(tmp_path, artifacts, settled, opened, monkeypatch):
    paths = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(3)]
    look(paths, artifacts)
    monkeypatch.setattr("tasks.core.versions.MEDIA", 10**6)
    assert look(paths, artifacts)[1] == 3


def test_a_file_named_twice_is_read_once(tmp_path, artifacts, opened):
    path = put(tmp_path / "a.png", picture())
    told, read = look([path, path, path], artifacts)
    assert told == [Examined(digest_bytes(picture()), "")] * 3
    assert (opened, read) == ([path], 1)


def test_the_same_bytes_under_many_names_have_one_digest(tmp_path, artifacts):
    paths = [put(tmp_path / name, picture()) for name in ("a.png", "b.jpg", "sub/c.txt")]
    (tmp_path / "link.png").symlink_to(paths[0])
    (tmp_path / "hard.png").hardlink_to(paths[0])
    told, _ = look([*paths, tmp_path / "link.png", tmp_path / "hard.png"], artifacts)
    assert set(told) == {Examined(digest_bytes(picture()), "")}


def odd_places(folder):
    """Places that are no readable picture, each with the start of what should be said of it."""
    (folder / "folder.jpg").mkdir(parents=True)
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "pool.png")
    (folder / "pool.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    return {
        folder / "folder.jpg": "a folder, not a file",
        folder / "dangling.png": "no such file",
        folder / "loop.png": "no such file",
        folder / "none.png": "no such file",
        folder / f"{'long' * 100}.png": "no such file",
        folder / "pipe.png": "neither a file nor a folder",
        Path("/dev/zero"): "neither a file nor a folder",
        put(folder / "empty.png", b""): "empty file",
        put(folder / "text.png", b"words and words"): "not a picture: starts with b'words and wo'",
        put(folder / "half.png", picture()[:80]): "cannot be decoded",
    }


def test_odd_places_are_told_apart_and_none_is_waited_for(tmp_path, artifacts):
    expected = odd_places(tmp_path / "odd")
    good = put(tmp_path / "good.png", picture())
    ended = []
    worker = threading.Thread(target=lambda: ended.append(look([*expected, good], artifacts)), daemon=True)
    worker.start()
    worker.join(20)
    if worker.is_alive():  # someone reads the pipe: let go, then fail
        os.close(os.open(tmp_path / "odd" / "pipe.png", os.O_WRONLY | os.O_NONBLOCK))
    [(told, _)] = ended
    assert told[-1] == Examined(digest_bytes(picture()), "")
    for (place, start), item in zip(expected.items(), told[:-1], strict=True):
        assert item.problem.startswith(start), place
        assert "\n" not in item.problem


def test_what_was_read_of_a_bad_file_has_a_digest_and_what_was_not_has_none(tmp_path, artifacts):
    expected = odd_places(tmp_path)
    told, read = look(list(expected), artifacts)
    files = [str(place) if os.path.isfile(place) else "" for place in expected]  # noqa: PTH113 - long names
    digests = [digest_bytes(Path(place).read_bytes()) if place else "" for place in files]
    assert [item.digest for item in told] == digests
    assert read == sum(map(bool, files)) == 3


def test_a_file_that_cannot_be_read_is_told_so_and_tried_again(tmp_path, artifacts, settled, monkeypatch):
    path = put(tmp_path / "a.png", picture())
    with monkeypatch.context() as patch:

        def refuse(self):
            raise PermissionError(13, "Permission denied")

        patch.setattr(Path, "read_bytes", refuse)
        assert look([path], artifacts) == ([Examined("", "cannot be read (Permission denied)")], 1)
    assert look([path], artifacts) == ([Examined(digest_bytes(picture()), "")], 1)


def test_a_mended_file_is_good_the_next_time(tmp_path, artifacts, settled):
    path = put(tmp_path / "a.png", picture()[:50])
    assert look([path], artifacts)[0][0].problem
    put(path, picture())
    assert look([path], artifacts)[0] == [Examined(digest_bytes(picture()), "")]


def test_a_path_that_was_written_wrong_is_not_touched(tmp_path, artifacts, opened):
    path = put(tmp_path / "a.png", picture())
    told, read = examine([str(path), str(tmp_path / "b\0.png")], ["outside", "zero byte"], artifacts)
    assert told == [Examined("", "outside"), Examined("", "zero byte")]
    assert (opened, read) == ([], 0)


@pytest.mark.parametrize("raw", [b"caf\xe9.png", "猫.png".encode(), b"new\nline.png", b" .png"])
def test_any_file_name_will_do(tmp_path, artifacts, settled, raw):
    path = put(tmp_path / os.fsdecode(raw), picture())
    for read in (1, 0):
        assert look([path], artifacts) == ([Examined(digest_bytes(picture()), "")], read)


def test_no_paths_are_no_work(artifacts):
    assert examine([], [], artifacts) == ([], 0)


def test_progress_counts_up_to_the_files_read(tmp_path, artifacts):
    paths = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(5)]
    counted = []
    examine([*map(str, paths), str(tmp_path / "none.png")], [""] * 6, artifacts, counted.append)
    assert counted == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("gone_after", ["the stamp", "the look"])
def test_a_file_that_goes_away_meanwhile_is_told_as_missing(tmp_path, artifacts, monkeypatch, gone_after):
    path, not_a_file = put(tmp_path / "a.png", picture()), module._not_a_file

    def look_and_lose(place):
        if gone_after == "the stamp":
            path.unlink()
        problem = not_a_file(place)
        path.unlink(missing_ok=True)
        return problem

    monkeypatch.setattr(module, "_not_a_file", look_and_lose)
    [item], _ = look([path], artifacts)
    assert item.digest == ""
    assert "No such file" in item.problem


def test_what_was_read_is_remembered_though_the_run_is_stopped(tmp_path, artifacts, settled, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 4)
    paths = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(10)]

    def stop(done):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine([str(path) for path in paths], [""] * 10, artifacts, stop)
    assert look(paths, artifacts)[1] == 6


def test_who_stops_a_run_does_not_wait_for_the_files_in_line(tmp_path, artifacts, monkeypatch):
    paths = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(500)]
    begun, read = [], module._read

    def slowly(path):
        begun.append(path)
        time.sleep(0.002)
        return read(path)

    def stop(done):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_read", slowly)
    with pytest.raises(KeyboardInterrupt):
        examine([str(path) for path in paths], [""] * 500, artifacts, stop)
    assert len(begun) < 400


def test_files_are_told_apart_without_opening_any(tmp_path, artifacts, settled, opened):
    paths = [put(tmp_path / f"{seed}.png", picture(seed)) for seed in range(3)]
    look(paths, artifacts)
    opened.clear()
    changed, new = put(paths[1], picture(7)), put(tmp_path / "new.png", picture(8))
    os.mkfifo(tmp_path / "pipe.png")
    places = [str(place) for place in (*paths, new, tmp_path / "pipe.png", tmp_path / "none.png")]
    known, unread = module.look(places, [""] * 5 + ["written wrong"], artifacts)
    assert opened == []
    assert set(unread) == {str(changed), str(new)}
    assert known == {
        places[0]: Examined(digest_bytes(picture(0)), ""),
        places[2]: Examined(digest_bytes(picture(2)), ""),
        places[4]: Examined("", "neither a file nor a folder"),
    }


def test_a_file_beyond_all_reason_is_not_read(tmp_path, artifacts, opened):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(10**12)
    [item], read = look([path], artifacts)
    assert (item, read, opened) == (Examined("", "more than 2,147,483,648 bytes"), 0, [])


# Assemble

GOOD = Columns("label")


def manifest(*rows, columns=("path", "label")):
    return pd.DataFrame(rows, columns=list(columns), dtype=str)


def told(*digests):
    return [Examined(digest, "") for digest in digests]


def assembled(frame, examined, columns=GOOD):
    places = [f"/data/{path}" for path in frame.path]
    return assemble(frame, places, examined, columns)


def test_there_is_one_row_a_digest_in_the_order_of_digests():
    frame = manifest(("z", "cat"), ("b", "dog"), ("a", "dog"), ("c", "cat"))
    table, quarantine = assembled(frame, told("d3", "d1", "d1", "d2"))
    assert table.to_dict("list") == {
        "digest": ["d1", "d2", "d3"],
        "path": ["/data/a", "/data/c", "/data/z"],
        "label": ["dog", "cat", "cat"],
        "weight": [1.0, 1.0, 1.0],
    }
    assert quarantine.empty
    assert list(quarantine.columns) == ["path", "reason"]


pictures = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from(["cat", "dog"]), st.booleans()),
    min_size=1,
    max_size=14,
)


@settings(deadline=None)
@given(rows=pictures, seed=st.randoms(use_true_random=False))
def test_every_row_is_used_is_a_copy_or_is_quarantined_whatever_the_order(rows, seed):
    def outcome(rows):
        frame = manifest(*((path, label) for path, (_, label, _) in rows))
        examined = [Examined(digest, "" if good else "bad") for _, (digest, _, good) in rows]
        return assembled(frame, examined)

    named = [(f"p{number:02}", row) for number, row in enumerate(rows)]
    table, quarantine = outcome(named)
    usable, said = {}, {}
    for path, (digest, label, good) in named:
        said.setdefault(digest, set()).add(label)  # by whatever copy
        if good:
            usable.setdefault(digest, []).append((path, label))
    sound = {digest: each for digest, each in usable.items() if len(said[digest]) == 1}
    assert list(table.digest) == sorted(sound)
    assert list(table.path) == [f"/data/{min(sound[digest])[0]}" for digest in table.digest]
    assert list(table.label) == [sound[digest][0][1] for digest in table.digest]
    assert len(quarantine) + sum(map(len, sound.values())) == len(rows)
    seed.shuffle(named)
    again, also = outcome(named)
    assert again.equals(table)
    assert sorted(also.path) == sorted(quarantine.path)


def test_copies_that_contradict_each_other_are_all_set_aside():
    frame = manifest(("a", "cat"), ("b", "dog"), ("c", "cat"), ("d", "dog"))
    table, quarantine = assembled(frame, told("same", "same", "same", "other"))
    assert list(table.digest) == ["other"]
    assert list(quarantine.path) == ["a", "b", "c"]
    assert set(quarantine.reason) == {"the same picture stands in the table with another label"}


def test_a_copy_that_cannot_be_used_contradicts_all_the_same():
    frame = manifest(("a", "cat", "1"), ("b", "dog", "-1"), columns=("path", "label", "weight"))
    table, quarantine = assembled(frame, told("same", "same"), Columns("label", "weight"))
    assert table.empty
    assert quarantine.to_dict("list") == {
        "path": ["a", "b"],
        "reason": [
            "the same picture stands in the table with another label",
            "weight is no number of at least 0",
        ],
    }


def test_a_copy_that_cannot_be_used_and_agrees_takes_nothing_away():
    rows = [("a", "cat", "1"), ("b", "cat", "-1"), ("c", "dog", "1"), ("d", "?", "-1")]
    frame = manifest(*rows, columns=("path", "label", "weight"))
    table, quarantine = assembled(frame, told("d1", "d1", "d2", "d2"), Columns("label", "weight"))
    assert (list(table.path), list(quarantine.path)) == (["/data/a", "/data/c"], ["b", "d"])


def test_files_that_were_not_read_are_no_copies_of_each_other():
    frame = manifest(("a", "cat"), ("b", "dog"), ("c", "cat"))
    unread = Examined("", "no such file")
    table, quarantine = assembled(frame, [unread, unread, *told("d1")])
    assert list(table.path) == ["/data/c"]
    assert set(quarantine.reason) == {"no such file"}


@pytest.mark.parametrize("blank", ["", "?"])
@pytest.mark.parametrize("order", [1, -1])
def test_an_unknown_label_contradicts_no_known_one(blank, order):
    frame = manifest(*[("a", "cat"), ("b", blank)][::order])
    table, quarantine = assembled(frame, told("same", "same"))
    assert quarantine.empty
    assert list(table.label) == ["cat"]


@pytest.mark.parametrize("text", ["", "?", " ", " ? ", "\t"])
def test_unknown_labels_are_blank_and_kept(text):
    table, quarantine = assembled(manifest(("a", text), ("b", "cat")), told("d1", "d2"))
    assert list(table.label) == ["", "cat"]
    assert quarantine.empty


@pytest.mark.parametrize("text", ["0", "??", "nan", "None", "-", "unknown"])
def test_nothing_else_is_taken_for_unknown(text):
    assert list(assembled(manifest(("a", text)), told("d1"))[0].label) == [text]


def test_spaces_around_a_label_do_not_matter():
    table, quarantine = assembled(manifest(("a", "cat "), ("b", " cat"), ("c", "a cat")), told("d", "d", "e"))
    assert list(table.label) == ["cat", "a cat"]
    assert quarantine.empty


def weighted(*weights):
    rows = [(f"p{number}", "cat", weight) for number, weight in enumerate(weights)]
    frame = manifest(*rows, columns=("path", "label", "importance"))
    return assembled(
        frame, told(*(f"d{number}" for number in range(len(rows)))), Columns("label", "importance")
    )


@pytest.mark.parametrize("text", ["", "heavy", "-1", "-0.001", "nan", "inf", "-inf", "1,5", "1e999", "?"])
def test_bad_weights_are_quarantined_with_the_columns_name(text):
    table, quarantine = weighted("1", text)
    assert list(table.weight) == [1.0]
    assert quarantine.to_dict("list") == {"path": ["p1"], "reason": ["importance is no number of at least 0"]}


@settings(deadline=None)
@given(weights=st.lists(st.floats(0, 1e300), min_size=1, max_size=5))
def test_good_weights_are_kept_to_the_bit(weights):
    assert list(weighted(*map(repr, weights))[0].weight) == weights


def test_the_first_problem_of_a_row_is_told():
    frame = manifest(("a", "cat", "-1"), columns=("path", "label", "weight"))
    _, quarantine = assembled(frame, [Examined("", "no such file")], Columns("label", "weight"))
    assert list(quarantine.reason) == ["no such file"]


def test_the_quarantine_names_paths_as_they_were_written():
    _, quarantine = assembled(manifest(("../x.png", "cat")), [Examined("", "outside")])
    assert quarantine.to_dict("list") == {"path": ["../x.png"], "reason": ["outside"]}


def test_further_columns_travel_with_their_rows():
    frame = manifest(("a", "cat", "s1"), ("b", "dog", ""), columns=("path", "label", "site"))
    table, _ = assembled(frame, told("d2", "d1"), Columns("label", None, ("site",)))
    assert dict(zip(table.digest, table["manifest.site"], strict=True)) == {"d2": "s1", "d1": ""}


def test_splitting_by_the_target_itself_leaves_unknown_labels_unknown():
    frame = manifest(("a", "?"), ("b", " cat "))
    table, _ = assembled(frame, told("d1", "d2"), Columns("label", None, ("label",)))
    assert list(table.label) == ["", "cat"]


@pytest.mark.parametrize("name", ["label", "digest", "weight"])
def test_a_further_column_of_any_name_leaves_the_samples_own_columns_alone(name):
    frame = manifest(("a", "1", "x"), ("b", "0", "y"), columns=("path", "defective", name))
    try:
        table, _ = assembled(frame, told("d1", "d2"), Columns("defective", None, (name,)))
    except RequestError:
        return  # refused: just as good
    assert list(table.digest) == ["d1", "d2"]
    assert list(table.label) == ["1", "0"]
    assert list(table.weight) == [1.0, 1.0]


@pytest.mark.parametrize("name", ["written", "reason"])
def test_a_further_column_named_like_a_passing_one_is_kept(name):
    frame = manifest(("a", "1", "x"), ("b", "0", "y"), columns=("path", "defective", name))
    table, _ = assembled(frame, told("d1", "d2"), Columns("defective", None, (name,)))
    assert list(table[f"manifest.{name}"]) == ["x", "y"]


# Enough


def labelled(*labels, weights=None):
    return pd.DataFrame({"label": list(labels), "weight": weights or [1.0] * len(labels)})


def bad(n):
    return pd.DataFrame({"path": [f"p{i}" for i in range(n)], "reason": ["empty file"] * n})


def refused(*given, **named):
    with pytest.raises(RequestError) as told:
        check_enough(*given, **named)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("rows", "most"), [(20, 0.05), (100, 0.07), (8, 0.25), (10, 0.0), (4, 1.0), (3, 0.5)]
)
def test_as_many_bad_samples_pass_as_max_bad_allows_and_not_one_more(rows, most):
    allowed = int(most * rows + 1e-9)
    check_enough(labelled("a", "a", "b", "b"), bad(allowed), rows, most_bad=most)
    message = refused(labelled("a", "a", "b", "b"), bad(allowed + 1), rows, most_bad=most)
    assert message.startswith(
        f"{allowed + 1} of {rows} samples cannot be used, more than max_bad = {most:g} allows"
    )
    assert "first: p0: empty file" in message


def test_a_share_that_equals_max_bad_passes_whatever_the_numbers():
    for rows in range(1, 101):
        for n in range(rows + 1):
            check_enough(labelled("a", "a", "b", "b"), bad(n), rows, most_bad=n / rows)


@pytest.mark.parametrize(("labels", "n"), [(["a"] * 5, 1), (["a", "a", "", ""], 1), ([], 0), (["", ""], 0)])
def test_fewer_than_two_classes_are_refused(labels, n):
    assert refused(labelled(*labels), bad(0), 5, most_bad=0.05).startswith(
        f"{n} class(es) with usable samples"
    )


def test_a_class_with_one_sample_is_refused_by_name():
    message = refused(labelled("a", "a", "b", "c", "c"), bad(0), 5, most_bad=0.05)
    assert message.startswith("class 'b' has one usable sample; at least two are needed")


def test_two_samples_of_two_classes_are_enough_and_unknown_is_no_class():
    check_enough(labelled("a", "a", "b", "b", ""), bad(0), 5, most_bad=0.0)


def test_a_sample_that_weighs_nothing_counts_for_no_class():
    two_of_each = ["a", "a", "b", "b"]
    check_enough(labelled(*two_of_each, weights=[1e-9, 1.0, 1.0, 5.0]), bad(0), 4, most_bad=0.0)
    one_left = refused(labelled(*two_of_each, weights=[1.0, 1.0, 1.0, 0.0]), bad(0), 4, most_bad=0.0)
    assert one_left.startswith("class 'b' has one usable sample")
    none_left = refused(labelled(*two_of_each, weights=[1.0, 1.0, 0.0, 0.0]), bad(0), 4, most_bad=0.0)
    assert none_left.startswith("1 class(es) with usable samples (a)")
