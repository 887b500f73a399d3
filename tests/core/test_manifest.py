"""Manifests and folders: read as they are written, or refused in one line that helps."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import RequestError
from tasks.core.manifest import FOLDER_TARGET, check_header, locate, read_manifest, scan_folder


def csv_file(folder, text, name="manifest.csv"):
    place = folder / name
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return place


def script(folder, body):
    """A .py manifest whose manifest() has the given body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return csv_file(folder, f"import pandas as pd\ndef manifest():\n{lines}\n", "manifest.py")


def refusal(action, *given):
    """The one line with which a request is refused."""
    with pytest.raises(RequestError) as told:
        action(*given)
    assert "\n" not in str(told.value)
    return str(told.value)


def rows(frame):
    return frame.to_dict("list")


def fill(folder, *names):
    """Make empty files."""
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


# Manifests


def test_every_column_is_text_as_it_was_written(tmp_path):
    place = csv_file(tmp_path, 'path,class,weight\na.png,01,1.50\n"b, c.png",NA,\nd.png,null,1e3\n')
    assert rows(read_manifest(place, ["class", "weight"])) == {
        "path": ["a.png", "b, c.png", "d.png"],
        "class": ["01", "NA", "null"],
        "weight": ["1.50", "", "1e3"],
    }


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"])).map(
    str.lstrip
)


@settings(deadline=None)
@given(table=st.lists(st.tuples(st.text("abc/.", min_size=1), cells), min_size=1, max_size=6))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, table):
    text = io.StringIO()
    csv.writer(text).writerows([("path", "class"), *table])
    place = csv_file(tmp_path_factory.getbasetemp(), text.getvalue())
    frame = read_manifest(place, ["class"])
    assert list(frame.itertuples(index=False, name=None)) == table


@pytest.mark.parametrize(
    "text",
    [
        "path,class\r\na.png,cat\r\n",
        "\ufeffpath,class\na.png,cat\n",
        "path, class\na.png, cat\n",
        '"path","class"\n"a.png","cat"\n',
        "class,path\ncat,a.png\n",
        "path,class\n\na.png,cat\n\n",
        "path,class\na.png,cat",
    ],
    ids=["crlf", "byte order mark", "spaces", "quotes", "other order", "blank lines", "no last newline"],
)
def test_what_spreadsheets_make_of_a_csv_file_is_read_alike(tmp_path, text):
    place = csv_file(tmp_path, text)
    check_header(place, ["class"])
    frame = read_manifest(place, ["class"])
    assert rows(frame[["path", "class"]]) == {"path": ["a.png"], "class": ["cat"]}


def test_a_short_row_has_blanks_at_its_end(tmp_path):
    place = csv_file(tmp_path, "path,class\na.png\nb.png,dog\n")
    assert rows(read_manifest(place, ["class"])) == {"path": ["a.png", "b.png"], "class": ["", "dog"]}


def test_a_comma_at_the_end_of_each_row_shifts_no_column(tmp_path):
    place = csv_file(tmp_path, "path,class\na.png,cat,\nb.png,dog,\n")
    try:
        frame = read_manifest(place, ["class"])
    except RequestError:
        return  # refused: just as good
    assert rows(frame) == {"path": ["a.png", "b.png"], "class": ["cat", "dog"]}


def test_a_missing_manifest_says_what_is_needed(tmp_path):
    place = tmp_path / "none.csv"
    for action in (check_header, read_manifest):
        assert refusal(action, place, ["class"]).startswith(f"{place}: no such manifest; give a CSV file")


def test_a_folder_is_no_manifest(tmp_path):
    assert "no such manifest" in refusal(read_manifest, tmp_path, ["class"])


@pytest.mark.parametrize(
    ("header", "needed", "line"),
    [
        ("path,clas", "class", "no column 'class'; did you mean 'clas'? (found: path, clas)"),
        ("Path,class", "class", "no column 'path'; did you mean 'Path'? (found: Path, class)"),
        ("path,x", "probability", "no column 'probability' (found: path, x)"),
        ("path;class", "class", "(found: path;class)"),
    ],
)
def test_a_missing_column_is_named_with_the_nearest_found(tmp_path, header, needed, line):
    place = csv_file(tmp_path, f"{header}\na.png,cat\n")
    for action in (check_header, read_manifest):
        message = refusal(action, place, [needed])
        assert message.startswith(f"{place}: no column ")
        assert message.endswith(line)


def test_the_header_alone_is_read_to_check_it(tmp_path):
    place = csv_file(tmp_path, b"path,class\n\xff\xfe not text,\n" + b'"open quote\n' * 3)
    check_header(place, ["class"])
    assert "not a CSV file" in refusal(read_manifest, place, ["class"])


def test_every_needed_column_is_asked_for(tmp_path):
    place = csv_file(tmp_path, "path,class,weight\na.png,cat,1\n")
    assert "'group'" in refusal(read_manifest, place, ["class", "weight", "group"])


@pytest.mark.parametrize("twice", ["path", "class", "weight", "group"])
def test_a_needed_column_that_stands_twice_is_refused(tmp_path, twice):
    line = f"column {twice!r} stands twice; rename or remove one"
    place = csv_file(tmp_path, f"path, class,weight,group, {twice}\na.png,cat,1,g,x\n")
    for action in (check_header, read_manifest):
        assert refusal(action, place, ["class", "weight", "group"]) == f"{place}: {line}"
    columns = ["path", "class", "weight", "group", twice]
    place = script(tmp_path, f"return pd.DataFrame([['a.png', 'cat', 1, 'g', 'x']], columns={columns})")
    assert refusal(read_manifest, place, ["class", "weight", "group"]) == f"{place}: {line}"


def test_a_column_that_nobody_needs_may_stand_twice(tmp_path):
    place = csv_file(tmp_path, "path,class,note,note,,\na.png,cat,x,y,,\n")
    check_header(place, ["class"])
    assert list(read_manifest(place, ["class"])["class"]) == ["cat"]
    columns = ["path", "class", "note", "note"]
    place = script(tmp_path, f"return pd.DataFrame([['a.png', 'cat', None, 2]], columns={columns})")
    frame = read_manifest(place, ["class"])
    assert frame.to_numpy().tolist() == [["a.png", "cat", "", "2"]]


@pytest.mark.parametrize("text", ["path,class\n", "path,class", "path,class\n\n\n"])
def test_a_manifest_without_rows_is_refused(tmp_path, text):
    place = csv_file(tmp_path, text)
    assert refusal(read_manifest, place, ["class"]) == f"{place}: no rows; one line per sample is needed"


def test_an_empty_file_is_refused(tmp_path):
    assert "no column 'path'" in refusal(read_manifest, csv_file(tmp_path, ""), ["class"])


@pytest.mark.parametrize(
    "text",
    [
        'path,class\n"a.png,cat\n',
        b"path,class\na.png,caf\xe9\n",
        b"path,class,caf\xe9\na.png,cat,x\n",
        b"path,class\n\xe9.png,caf\xe9\n",
    ],
    ids=["open quote", "latin-1 label", "latin-1 column", "latin-1 label and path"],
)
def test_what_is_no_csv_file_is_refused(tmp_path, text):
    place = csv_file(tmp_path, text)
    assert refusal(read_manifest, place, ["class"]).startswith(
        f"{place}: not a CSV file with a header line ("
    )


def test_a_path_may_hold_any_bytes_that_a_name_can(tmp_path):
    place = csv_file(tmp_path, "path,class\ncafé.png,café\n".encode() + b"caf\xe9.png,cat\n")
    frame = read_manifest(place, ["class"])
    assert [os.fsencode(path) for path in frame.path] == ["café.png".encode(), b"caf\xe9.png"]
    assert list(frame["class"]) == ["café", "cat"]


@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
def test_a_spreadsheets_other_unicode_is_refused(tmp_path, codec):
    place = csv_file(tmp_path, "path,class\na.png,cat\n".encode(codec))
    refusal(read_manifest, place, ["class"])


def test_a_row_that_is_too_long_is_refused_in_one_line(tmp_path):
    place = csv_file(tmp_path, "path,class\na.png,cat\nb.png,dog,3,4\n")
    assert "line 3" in refusal(read_manifest, place, ["class"])


def test_a_blank_line_before_the_header_is_passed_over(tmp_path):
    place = csv_file(tmp_path, "\npath,class\na.png,cat\n")
    assert rows(read_manifest(place, ["class"])) == {"path": ["a.png"], "class": ["cat"]}


# Python manifests


def test_a_python_manifest_is_read_as_text_that_reads_back(tmp_path):
    place = script(
        tmp_path,
        "return pd.DataFrame({'path': ['a', 'b'], 'class': [1, 0], 'weight': [0.1, 1 / 3],\n"
        "                     'note': ['x', None], 'some': [1.5, float('nan')]})",
    )
    frame = read_manifest(place, ["class", "weight"])
    assert rows(frame) == {
        "path": ["a", "b"],
        "class": ["1", "0"],
        "weight": ["0.1", "0.3333333333333333"],
        "note": ["x", ""],
        "some": ["1.5", ""],
    }
    assert [float(text) for text in frame.weight] == [0.1, 1 / 3]


def test_a_python_manifest_is_not_run_to_check_its_header(tmp_path):
    check_header(script(tmp_path, "raise AssertionError('was run')"), ["class"])
    check_header(csv_file(tmp_path, "raise AssertionError('was run')", "other.py"), ["class"])


def test_a_python_manifest_lacks_columns_and_rows_like_any_other(tmp_path):
    place = script(tmp_path, "return pd.DataFrame({'path': ['a'], 'clas': ['x']})")
    assert "no column 'class'; did you mean 'clas'?" in refusal(read_manifest, place, ["class"])
    place = script(tmp_path, "return pd.DataFrame({'path': [], 'class': []})")
    assert refusal(read_manifest, place, ["class"]).endswith("no rows; one line per sample is needed")


def test_a_python_file_without_manifest_is_refused(tmp_path):
    place = csv_file(tmp_path, "table = 3\n", "manifest.py")
    assert "needs a function manifest()" in refusal(read_manifest, place, ["class"])


def test_what_a_python_manifest_refuses_is_told_as_it_stands(tmp_path):
    place = script(
        tmp_path,
        "from tasks.core.errors import RequestError\nraise RequestError('run: pip install pictures')",
    )
    assert refusal(read_manifest, place, ["class"]) == "run: pip install pictures"


def test_a_missing_python_manifest_is_refused(tmp_path):
    assert "no such manifest" in refusal(check_header, tmp_path / "none.py", ["class"])


def test_a_python_manifest_that_fails_is_refused_with_the_error(tmp_path):
    place = script(tmp_path, "return {}['none']")
    assert refusal(read_manifest, place, ["class"]) == f"{place}: cannot be run (KeyError: 'none')"


def test_an_error_of_several_lines_is_told_in_one(tmp_path):
    refusal(read_manifest, script(tmp_path, "raise ValueError('first line\\nsecond line')"), ["class"])


@pytest.mark.parametrize("text", ["def manifest(:\n", "import no_such_package\ndef manifest(): ...\n"])
def test_a_python_file_that_cannot_be_run_is_refused(tmp_path, text):
    refusal(read_manifest, csv_file(tmp_path, text, "manifest.py"), ["class"])


def test_a_python_manifest_that_returns_no_table_is_refused(tmp_path):
    refusal(read_manifest, script(tmp_path, "return [{'path': 'a', 'class': 'x'}]"), ["class"])


# Places


def test_a_relative_path_starts_at_the_data_folder(tmp_path):
    written = [
        "a.png",
        "sub/b.png",
        "./c.png",
        "sub/../d.png",
        f"../{tmp_path.name}/e.png",
        "..f.png",
        " g.png ",
    ]
    places, problems = locate(written, tmp_path)
    assert problems == [""] * len(written)
    assert [os.path.relpath(place, tmp_path) for place in places] == [
        "a.png",
        "sub/b.png",
        "c.png",
        "d.png",
        "e.png",
        "..f.png",
        " g.png ",
    ]


def test_an_absolute_path_is_taken_as_it_stands(tmp_path):
    written = ["/elsewhere/a.png", str(tmp_path / "b.png"), "/x/../y.png"]
    assert locate(written, tmp_path) == (
        ["/elsewhere/a.png", str(tmp_path / "b.png"), "/y.png"],
        [""] * 3,
    )


@pytest.mark.parametrize("path", ["../a.png", "../../etc/passwd", "sub/../../a.png", "..", "../data-2/a.png"])
def test_a_relative_path_does_not_leave_the_data_folder(tmp_path, path):
    folder = tmp_path / "data"
    _, [problem] = locate([path], folder)
    assert problem == f"outside the data folder {folder}; write an absolute path if that is meant"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "no path given"),
        ("a\0b.png", "the path holds a zero byte"),
        ("a\ud800.png", "the path holds what no file name can"),
    ],
)
def test_what_is_no_path_is_called_so(tmp_path, path, problem):
    assert locate([path], tmp_path)[1] == [problem]


parts = st.sampled_from(["..", ".", "a", "b.png", "...", "a b"])


@settings(deadline=None)
@given(paths=st.lists(st.lists(parts, min_size=1, max_size=6).map("/".join)))
def test_a_place_is_outside_exactly_when_walking_there_leaves_the_folder(paths):
    places, problems = locate(paths, Path("/top/data"))
    for path, place, problem in zip(paths, places, problems, strict=True):
        end = []
        for part in ["top", "data", *path.split("/")]:
            end = end[:-1] if part == ".." else end if part == "." else [*end, part]
        assert place == str(Path("/", *end))
        assert bool(problem) == (end[:2] != ["top", "data"])


def test_a_relative_data_folder_gives_absolute_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(["a.png"], Path("data"))[0] == [str(tmp_path / "data" / "a.png")]


def test_links_are_left_as_the_user_made_them(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")
    assert locate(["a.png"], tmp_path / "data") == ([str(tmp_path / "data" / "a.png")], [""])


# Folders


def test_each_sub_folder_is_a_class_and_rows_are_sorted(tmp_path):
    fill(tmp_path, "dog/2.png", "dog/1.jpg", "cat/x.PNG", "cat/y.webp")
    frame = scan_folder(tmp_path)
    assert rows(frame) == {
        "path": ["cat/x.PNG", "cat/y.webp", "dog/1.jpg", "dog/2.png"],
        FOLDER_TARGET: ["cat", "cat", "dog", "dog"],
    }


def test_rows_are_sorted_whatever_order_the_disk_tells_them_in(tmp_path, monkeypatch):
    fill(tmp_path, *(f"{kind}/{number}/x.png" for kind in "ab" for number in range(9)), "a/0.png", "b/z.png")
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top, **named: list(walk(top, **named))[::-1])
    paths = list(scan_folder(tmp_path).path)
    assert paths == sorted(paths)
    assert len(paths) == 20


def test_pictures_deeper_down_belong_to_the_upper_folder(tmp_path):
    fill(tmp_path, "cat/2024/may/1.png", "cat/2.png", "dog/a/b/c/3.png")
    frame = scan_folder(tmp_path)
    assert dict(zip(frame.path, frame[FOLDER_TARGET], strict=True)) == {
        "cat/2.png": "cat",
        "cat/2024/may/1.png": "cat",
        "dog/a/b/c/3.png": "dog",
    }


def test_hidden_and_other_files_are_passed_over(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    fill(
        tmp_path,
        "cat/.hidden.png",
        "cat/notes.txt",
        "dog/Thumbs.db",
        "dog/._1.png",
        "cat/png",
        "cat/x.png.txt",
    )
    fill(tmp_path, "loose.png", ".git/1.png", "empty/readme.md")
    assert list(scan_folder(tmp_path).path) == ["cat/1.png", "dog/1.png"]


def test_pictures_in_hidden_folders_are_passed_over_at_any_depth(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png", "cat/.ipynb_checkpoints/1.png", "dog/.thumbnails/deeper/1.png")
    assert list(scan_folder(tmp_path).path) == ["cat/1.png", "dog/1.png"]


def test_a_folder_named_like_a_picture_is_listed_so_that_it_is_told(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png", "dog/odd.jpg/inside.png")
    assert list(scan_folder(tmp_path).path) == [
        "cat/1.png",
        "dog/1.png",
        "dog/odd.jpg",
        "dog/odd.jpg/inside.png",
    ]


def test_links_to_pictures_are_listed_even_where_they_lead_nowhere(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "cat" / "dangling.png").symlink_to(tmp_path / "none.png")
    (tmp_path / "dog" / "loop").symlink_to(tmp_path)
    assert list(scan_folder(tmp_path).path) == ["cat/1.png", "cat/dangling.png", "dog/1.png"]


def test_names_that_are_no_utf8_are_listed(tmp_path):
    fill(tmp_path, b"cat/caf\xe9.png", b"d\xf6g/1.png")
    frame = scan_folder(tmp_path)
    places, problems = locate(frame.path, tmp_path)
    assert problems == ["", ""]
    assert all(Path(place).is_file() for place in places)
    assert [os.fsencode(name) for name in frame[FOLDER_TARGET]] == [b"cat", b"d\xf6g"]


@pytest.mark.parametrize(
    ("names", "found"),
    [(["cat/1.png", "cat/2.png"], 1), (["cat/1.png", "dog/notes.txt"], 1), (["1.png", "2.png"], 0), ([], 0)],
    ids=["one class", "the other without pictures", "loose pictures", "nothing"],
)
def test_fewer_than_two_classes_are_refused(tmp_path, names, found):
    message = refusal(scan_folder, fill(tmp_path, *names))
    assert message.startswith(f"{tmp_path}: pictures in {found} sub-folder(s); at least two are needed")


@pytest.mark.parametrize("place", ["", "dog", "dog/deeper"])
def test_a_folder_that_cannot_be_listed_is_refused_not_passed_over(tmp_path, monkeypatch, place):
    fill(tmp_path, "cat/1.png", "dog/1.png", "dog/deeper/2.png")
    closed = os.path.normpath(tmp_path / place)

    def lister(real):
        def listed(folder):
            if os.path.normpath(folder) == closed:
                raise PermissionError(13, "Permission denied", str(folder))
            return real(folder)

        return listed

    monkeypatch.setattr(os, "listdir", lister(os.listdir))
    monkeypatch.setattr(os, "scandir", lister(os.scandir))
    assert refusal(scan_folder, tmp_path).startswith(
        f"{closed}: the folder cannot be listed (Permission denied)"
    )


def test_a_missing_folder_is_refused(tmp_path):
    assert "no such folder" in refusal(scan_folder, tmp_path / "none")
