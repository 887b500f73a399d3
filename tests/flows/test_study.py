"""A study is read whole or refused in one line, before Prefect or torch is imported."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import flows
from flows.settings import STRENGTHS
from flows.study import Study, load_study
from tasks.core.backbones import find_backbone
from tasks.core.errors import RequestError
from tasks.core.hyper import Centroid, Mlp, Neighbours, Ridge, Softmax
from tasks.core.manifest import FOLDER_TARGET
from tasks.core.splits import SplitSpec
from tasks.core.taps import Tap
from tasks.core.wishes import Wish

SHIPPED = sorted((Path(flows.__file__).parent / "studies").glob("*.toml"))

FULL = """
name = "full"

[data]
manifest = "table.csv"
target = "kind"
weight = "importance"
max_bad = 0.1

[backbones.small]
network = "lite0"
resize = 64
crop = 48
dtype = "float32"

[[splits]]
name = "random"
seeds = [3, 1]
stratify = ["site"]

[[splits]]
name = "by patient"
group = "patient"
note = "patients stay together"

[[experiments]]
name = "last layer"

[[experiments]]
name = "two depths"
taps = ["last:max", "blocks.4:mean+std"]
strengths = [1, 0.1, 1.0]

[[references]]
name = "them"
value = 0.9
"""

HEADER = "path,kind,importance,site,patient\n"

DATA_KEYS = (
    "manifest, folder, root, target, targets, target_weights, answer_weights, least_known, weight, max_bad"
)


@pytest.fixture(scope="module")
def server():
    """These tests need no Prefect server: this takes the place of the one in conftest.py."""


@pytest.fixture
def full(tmp_path):
    """A study file that uses every table, with its manifest beside it."""
    (tmp_path / "table.csv").write_text(HEADER + "a.png,x,1,s,p\n")
    return write(tmp_path, FULL)


@pytest.fixture
def folder(tmp_path):
    """A folder with one sub-folder per class; nobody looks at the pictures yet."""
    return make_folder(tmp_path / "leaves")


def make_folder(place):
    for name in ("oak/1.png", "oak/2.png", "elm/1.png", "elm/2.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return place


def write(folder, text, name="study.toml"):
    place = folder / name
    place.write_text(text)
    return place


def refusal(path, *changes):
    """The one line with which a study is refused."""
    with pytest.raises(RequestError) as told:
        load_study(path, changes)
    assert "\n" not in str(told.value)
    return str(told.value)


# What a study file says


def test_a_study_file_is_read_field_by_field(full):
    study = load_study(full)
    assert study.name == "full"
    source = study.source()
    assert (source.place, source.root, source.most_bad) == (full.parent / "table.csv", full.parent, 0.1)
    assert (source.columns.target, source.columns.weight) == ("kind", "importance")
    assert source.columns.others == ("site", "patient")
    assert study.split_specs() == (
        SplitSpec("random", seeds=(3, 1), stratify=("site",)),
        SplitSpec("by patient", seeds=(0, 1, 2, 3, 4), group="patient"),
    )
    assert study.used_backbones() == ["small"]
    assert study.backbone("small") == find_backbone("lite0", resize=64, crop=48)
    assert [(each.name, each.inputs.backbone) for each in study.grids()] == [
        ("last layer", "small"),
        ("two depths", "small"),
    ]


def test_last_becomes_the_backbones_own_name_and_strengths_are_sorted_once(full):
    last, depths = load_study(full).grids()
    assert last.inputs.taps == ("bn2:mean",)
    assert last.hypers == tuple(map(Softmax, sorted(STRENGTHS["softmax"])))
    assert depths.inputs.taps == ("bn2:max", "blocks.4:mean+std")
    assert depths.hypers == (Softmax(0.1), Softmax(1.0))


@pytest.mark.parametrize(
    ("changes", "hypers"),
    [
        (["head=softmax", "strengths=[1, 0.1]", 'class_weights=["none", "balanced"]'],
         [Softmax(0.1), Softmax(1.0), Softmax(0.1, "balanced"), Softmax(1.0, "balanced")]),
        (["head=ridge", "strengths=[10]"], [Ridge(10.0)]),
        (["head=knn", "k=[3, 1, 3]"], [Neighbours(3), Neighbours(1)]),
        (["head=centroid"], [Centroid()]),
        (["head=mlp", "hidden=[[8], [16, 8]]", "dropouts=[0.5]", "seeds=[0, 1]"],
         [Mlp((8,), dropout=0.5), Mlp((8,), dropout=0.5, seed=1),
          Mlp((16, 8), dropout=0.5), Mlp((16, 8), dropout=0.5, seed=1)]),
    ],
)  # fmt: skip
def test_an_experiment_is_a_grid_of_every_combination_once(folder, changes, hypers):
    study = load_study(folder, [f"experiments.0.{change}" for change in changes])
    assert list(study.grids()[0].hypers) == hypers


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["head=knn", "strengths=[1.0]"], "strengths does not go with head 'knn' (its own keys: k)"),
        (["hidden=[[8]]"], "hidden does not go with head 'softmax' (its own keys: strengths, class_weights)"),
        (["head=centroid", "k=[1]"], "k does not go with head 'centroid' (its own keys: none)"),
        (["head=mlp", "hidden=[[8, 8, 8]]"], "experiments.0.hidden.0"),
        (["head=mlp", "hidden=[[]]"], "experiments.0.hidden.0"),
        (["head=mlp", "dropouts=[1.0]"], "experiments.0.dropouts.0"),
        (["head=mlp", "seeds=[-1]"], "experiments.0.seeds.0"),
        (["head=knn", "k=[0]"], "experiments.0.k.0"),
        (['class_weights=["even"]'], "experiments.0.class_weights.0"),
        (["head=forest"], "experiments.0.head"),
    ],
)
def test_a_grid_that_does_not_fit_its_head_is_refused(folder, changes, told):
    with pytest.raises(RequestError) as refusal:
        load_study(folder, [f"experiments.0.{change}" for change in changes])
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_operating_points_want_a_recall_or_a_precision(folder):
    wished = load_study(folder, ['operating_points=[{recall=0.9}, {label="a", precision=0.5}]']).wishes()
    assert wished == (Wish(recall=0.9), Wish("a", precision=0.5))
    for wrong in ("{}", "{recall=0.9, precision=0.9}", "{recall=1.1}", "{recall=0.0}"):
        with pytest.raises(RequestError, match="operating_points"):
            load_study(folder, [f"operating_points=[{wrong}]"])


def test_each_tap_of_a_backbone_is_wanted_once(full):
    taps = (
        load_study(full, ['experiments.0.taps=["bn2:max", "last:mean", "bn2"]'])
        .recipe("small")
        .views["centre"]
    )
    assert taps == (Tap("blocks.4", "mean+std"), Tap("bn2", "max"), Tap("bn2", "mean"))


def test_a_python_study_has_the_same_fields_as_the_file(full):
    study = load_study(full)
    assert Study.model_validate(study.model_dump()) == study


def test_paths_start_at_the_study_file_wherever_one_stands(full, monkeypatch, tmp_path):
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    study = load_study(Path("..") / full.name)
    assert study.source().place == full.parent / "table.csv"
    rooted = load_study(Path("..") / full.name, ["data.root=pictures"])
    assert rooted.source().root == full.parent / "pictures"


def test_an_absolute_path_is_taken_as_it_stands(full, tmp_path):
    other = write(tmp_path, HEADER, "other.csv")
    assert load_study(full, [f"data.manifest={other}"]).source().place == other


def test_a_study_cannot_be_changed_once_it_is_made(full):
    study = load_study(full)
    with pytest.raises(ValidationError, match="frozen"):
        study.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        study.data.max_bad = 1.0


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_loads_and_says_how_it_is_run(path):
    study = load_study(path)
    assert study.name == path.stem
    first = path.read_text().splitlines()[0]
    assert first.startswith(f"# headstart run flows/studies/{path.name}")
    assert study.grids()
    assert all(study.recipe(name).views["centre"] for name in study.used_backbones())


def test_there_are_shipped_studies():
    assert SHIPPED


# Folders


def test_a_folder_is_a_study_with_sensible_defaults(folder):
    study = load_study(folder)
    assert study.name == "leaves"
    source = study.source()
    assert (source.place, source.root) == (folder, folder)
    assert (source.columns.names(), source.most_bad) == ([FOLDER_TARGET], 0.05)
    assert study.split_specs() == (SplitSpec("random", test=0.25, seeds=(0, 1, 2, 3, 4)),)
    assert study.used_backbones() == ["lite0"]
    assert study.backbone("lite0") == find_backbone("lite0")
    last, depths = study.grids()
    assert last.inputs.taps == ("bn2:mean",)
    assert len(depths.inputs.taps) == 3
    assert set(last.inputs.taps) < {tap.replace("mean+std", "mean") for tap in depths.inputs.taps}


def test_a_folder_is_found_from_where_one_stands(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_study(Path()) == load_study(folder)
    monkeypatch.chdir(folder.parent)
    assert load_study(Path("leaves")) == load_study(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b-c.d", "a b-c.d"),
        ("..x", "x"),
        ("a/../b", "b"),
        ("图片", "folder"),
        ("cats & dogs", "cats - dogs"),
    ],
)
def test_a_folders_name_becomes_one_that_a_study_may_have(tmp_path, name, expected):
    (tmp_path / "a").mkdir()
    assert load_study(make_folder(tmp_path / name)).name == expected


def test_a_folder_may_be_called_anything(tmp_path):
    load_study(make_folder(tmp_path / "_leaves"))


def test_a_folder_study_is_changed_like_any_other(folder):
    study = load_study(folder, ["name=other", "data.max_bad=0.5", "experiments.0.strengths=[2.0]"])
    assert (study.name, study.data.max_bad, study.grids()[0].hypers) == ("other", 0.5, (Softmax(2.0),))


def test_a_file_may_name_a_folder(folder):
    path = write(folder.parent, 'name = "s"\n[data]\nfolder = "leaves"\n')
    assert (load_study(path).source().place, load_study(path).source().root) == (folder, folder)


@pytest.mark.parametrize(
    "change",
    ["data.target=kind", "data.weight=importance"]
    + [
        f'splits=[{{name="s", {which}}}]'
        for which in ('group="patient"', 'stratify=["site"]', 'column="part"')
    ],
)
def test_columns_that_a_folder_does_not_have_are_refused(folder, change):
    refusal(folder, change)


def test_a_root_besides_a_folder_is_refused(folder):
    refusal(folder, f"data.root={folder.parent}")


def test_a_folder_given_as_manifest_is_refused(folder):
    refusal(write(folder.parent, 'name = "s"\n[data]\nmanifest = "leaves"\n'))


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "where", "near"),
    [
        ('name = "full"', 'name = "full"\nexperiment = 1', "", "experiments"),
        ("[data]", "[dat]", "", "data"),
        ("max_bad = 0.1", "maxbad = 0.1", "data: ", "max_bad"),
        ("resize = 64", "rezise = 64", "backbones.small: ", "resize"),
        ("stratify =", "stratified =", "splits.0: ", "stratify"),
        ('group = "patient"', 'groups = "patient"', "splits.1: ", "group"),
        ("taps =", "tap =", "experiments.1: ", "taps"),
        ("value = 0.9", "valeu = 0.9\nvalue = 0.9", "references.0: ", "value"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_near_one(full, old, new, where, near):
    assert old in FULL
    full.write_text(FULL.replace(old, new, 1))
    message = refusal(full)
    assert message.startswith(f"{full}: {where}unknown key ")
    assert f"did you mean {near!r}? (known: " in message


def test_a_key_like_none_is_answered_with_those_known(full):
    message = refusal(full, "data.zzz=1")
    assert message.endswith(f"unknown key 'zzz' (known: {DATA_KEYS})")


@pytest.mark.parametrize("data", ["", 'manifest = "table.csv"\nfolder = "."\n'], ids=["neither", "both"])
def test_either_a_manifest_or_a_folder_is_needed(full, data):
    full.write_text(f'name = "s"\n[data]\n{data}')
    assert refusal(full) == f"{full}: data: give either manifest or folder"


@pytest.mark.parametrize(("what", "number"), [("splits", 1), ("experiments", 1)])
def test_names_that_stand_twice_are_refused(full, what, number):
    first = load_study(full).model_dump()[what][0]["name"]
    assert refusal(full, f'{what}.{number}.name="{first}"') == (
        f"{full}: {what}: the name {first!r} stands twice; each needs its own"
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("name=", "name"),
        ("name=a/b", "name"),
        ("name=.hidden", "name"),
        ("name=3", "name"),
        ("data.max_bad=1.5", "data.max_bad"),
        ("data.max_bad=nan", "data.max_bad"),
        ("data.max_bad=much", "data.max_bad"),
        ("splits=[]", "splits"),
        ("splits.0.test=1", "splits.0.test"),
        ("splits.0.test=0", "splits.0.test"),
        ("splits.0.test=nan", "splits.0.test"),
        ("splits.0.seeds=[]", "splits.0.seeds"),
        ("splits.0.seeds=[0.5]", "splits.0.seeds.0"),
        ("splits.0.seeds=[-1]", "splits.0.seeds.0"),
        ("splits.0.name=", "splits.0.name"),
        ("experiments=[]", "experiments"),
        ("experiments.0.head=softmaxx", "experiments.0.head"),
        ("experiments.0.strengths=[0]", "experiments.0.strengths.0"),
        ("experiments.0.strengths=[1, inf]", "experiments.0.strengths.1"),
        ("experiments.0.taps=[]", "experiments.0.taps"),
        ("experiments.0.taps=last:mean", "experiments.0.taps"),
        ("backbones.small.crop=0", "backbones.small.crop"),
        ("backbones.small.dtype=float64", "backbones.small.dtype"),
        ("references.0.value=high", "references.0.value"),
        ("data=3", "data"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(full, change, where):
    assert refusal(full, change).startswith(f"{full}: {where}: ")


def test_an_unknown_network_names_the_near_one(full):
    assert "backbone 'lit0' is unknown; did you mean 'lite0'?" in refusal(
        full, "backbones.small.network=lit0"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("splits.0.seeds=2", "splits.0.seeds: Input should be a list"),
        ("name=" + "x" * 101, "name: String should have at most 100 characters"),
        ("experiments.0.strengths=[nan]", "Input should be a finite number"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(full, change, told):
    assert told in refusal(full, change)


def test_a_target_cannot_be_the_group(full):
    message = refusal(full, 'data.targets=["car", "day"]', "splits.0.group=day", "data.target=class")
    assert "group 'day' is also a target, and all samples with one answer would stay together" in message


def test_an_experiment_must_use_a_backbone_of_the_study(full):
    message = refusal(full, "experiments.0.backbone=big")
    assert message == f"{full}: experiment 'last layer': backbone 'big' is none of small"


def test_an_experiment_must_choose_between_two_backbones(full):
    assert refusal(full, "backbones.big={}") == (
        f"{full}: experiment or depth 'last layer': there are several backbones (small, big); "
        'name one, such as { name = "last layer", backbone = "small" }'
    )
    chosen = ["backbones.big={}", "experiments.0.backbone=big", "experiments.1.backbone=small"]
    study = load_study(full, chosen)
    assert [each.inputs.backbone for each in study.grids()] == ["big", "small"]
    assert study.used_backbones() == ["small", "big"]
    assert study.recipe("big").views == {"centre": (Tap("bn2", "mean"),)}


def test_a_crop_larger_than_the_picture_is_refused(full):
    assert "crop = 224 is larger than resize = 64" in refusal(full, "backbones.small.crop=224")


def test_a_wrong_tap_is_refused(full):
    assert "tap 'last:men': write cut:pooling" in refusal(full, 'experiments.0.taps=["last:men"]')


def test_a_missing_manifest_is_refused(full):
    (full.parent / "table.csv").unlink()
    assert refusal(full).startswith(f"{full.parent / 'table.csv'}: no such manifest")


@pytest.mark.parametrize("column", HEADER.strip().split(","))
def test_each_column_that_the_study_names_must_be_in_the_manifest(full, column):
    (full.parent / "table.csv").write_text(HEADER.replace(column, f"{column}s"))
    message = refusal(full)
    assert f"no column {column!r}; did you mean '{column}s'?" in message


def test_a_missing_folder_is_refused(full, tmp_path):
    full.write_text('name = "s"\n[data]\nfolder = "none"\n')
    assert refusal(full) == f"{tmp_path / 'none'}: no such folder; data.folder needs one sub-folder per class"


def test_a_missing_study_is_refused(tmp_path):
    assert refusal(tmp_path / "none.toml").startswith(
        f"{tmp_path / 'none.toml'}: no such file or folder; give a"
    )


@pytest.mark.parametrize(
    "content",
    [b'name = "s"\nname = "t"\n', b"name: s\n", b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n", b"name = "],
    ids=["key twice", "yaml", "utf-16", "png", "no value"],
)
def test_what_is_no_toml_is_refused(tmp_path, content):
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: not a TOML file (")


def test_an_empty_file_lacks_a_name(tmp_path):
    assert refusal(write(tmp_path, "")).endswith(": name: Field required")


# --set


def test_changes_reach_every_depth_and_list_items_by_number(full):
    changes = [
        "name=other",
        "data.max_bad=0.5",
        "backbones.small.crop=32",
        "splits.1.seeds=[7]",
        'experiments.1.taps=["blocks.2:max"]',
        "references.0.value=0.25",
    ]
    study = load_study(full, changes)
    assert (study.name, study.data.max_bad, study.backbones["small"].crop) == ("other", 0.5, 32)
    assert (study.splits[1].seeds, study.splits[0].seeds) == ((7,), (3, 1))
    assert (study.experiments[1].taps, study.references[0].value) == (("blocks.2:max",), 0.25)


def test_a_later_change_wins(full):
    assert load_study(full, ["data.max_bad=0.5", "data.max_bad=0.75"]).data.max_bad == 0.75


def test_a_change_may_add_a_table_that_the_file_lacks(folder):
    study = load_study(folder, ["backbones.lite0.resize=64", "backbones.lite0.crop=64"])
    assert study.backbone("lite0") == find_backbone("lite0", resize=64, crop=64)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"quoted"', "quoted"),
        ("plain", "plain"),
        ("a=b", "a=b"),
        ("two words", "two words"),
        ("last:mean", "last:mean"),
    ],
)
def test_a_value_is_toml_or_else_text(full, text, value):
    assert load_study(full, [f"references.0.name={text}"]).references[0].name == value


@settings(deadline=None)
@given(change=st.text(st.characters(codec="utf-8", exclude_characters="="), max_size=8))
def test_a_change_without_a_value_is_refused(tmp_path_factory, change):
    folder = make_folder(tmp_path_factory.getbasetemp() / "leaves")
    message = refusal(folder, change)
    assert message == f"--set {change!r}: write key=value, such as data.max_bad=0.1"


def test_a_change_without_a_key_is_refused(full):
    assert "write key=value" in refusal(full, "=3")


@pytest.mark.parametrize(
    "key",
    [
        "experiments.2.name",
        "experiments.x.name",
        "experiments.2",
        "experiments.x",
        "name.x",
        "name.x.y",
        "splits.0.test.x",
    ],
)
def test_a_place_that_the_study_lacks_is_refused(full, key):
    full.write_text(FULL.replace("seeds = [3, 1]", "seeds = [3, 1]\ntest = 0.5"))
    assert refusal(full, f"{key}=1") == f"--set '{key}=1': the study has no place {key!r}"


def test_a_mistyped_key_is_refused_like_one_in_the_file(full):
    assert "data: unknown key 'maxbad'; did you mean 'max_bad'?" in refusal(full, "data.maxbad=0.1")
    assert "unknown key 'dta'; did you mean 'data'?" in refusal(full, "dta.max_bad=0.1")


keys = st.lists(
    st.sampled_from(
        ["data", "splits", "experiments", "backbones", "name", "small", "0", "1", "-1", "taps", "max_bad", ""]
    ),
    min_size=1,
    max_size=4,
).map(".".join)
texts = st.sampled_from(
    ["1", "x", "", "[]", "{}", "[1]", '"', "true", "1979-05-27", "{a=1}", "-1", "[[]]", "nan"]
)


@settings(deadline=None)
@given(changes=st.lists(st.tuples(keys, texts).map("=".join), min_size=1, max_size=3))
def test_whatever_is_set_the_study_loads_or_is_refused(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp()
    (folder / "table.csv").write_text(HEADER)
    path = write(folder, FULL)
    try:
        load_study(path, changes)
    except RequestError as error:
        assert "\n" not in str(error)


def test_changing_one_study_does_not_change_the_next(folder, full):
    before = copy.deepcopy(load_study(folder))
    load_study(folder, ["experiments.0.name=changed", "backbones.lite0.crop=32"])
    assert load_study(folder) == before


# The command line


def headstart(*words, cwd, code=None):
    """Run the command line in a process of its own; with `code`, run that instead."""
    start = ["-m", "flows"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(flows.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


TELL_MODULES = """
import sys
from flows.__main__ import main
code = main(sys.argv[1:])
print(*sorted({"prefect", "torch", "torchvision", "timm", "h5py", "sklearn"} & set(sys.modules)))
sys.exit(code)
"""


def test_a_wrong_study_costs_one_line_and_code_2(full):
    full.write_text(FULL.replace("max_bad", "maxbad"))
    done = headstart("run", full, cwd=full.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"headstart: {full}: data: unknown key 'maxbad'; did you mean 'max_bad'? (known: {DATA_KEYS})\n"
    )
    assert not (full.parent / "artifacts").exists()


@pytest.mark.parametrize("change", ["data.maxbad=1", "data.weight=heavy"])
def test_a_wrong_study_imports_neither_prefect_nor_torch(full, change):
    done = headstart("run", full, "--set", change, cwd=full.parent, code=TELL_MODULES)
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_the_study_for_workers_is_the_shipped_one():
    root = Path(__file__).parents[2]
    [deployment] = yaml.safe_load((root / "prefect.yaml").read_text())["deployments"]
    theirs = Study.model_validate(deployment["parameters"]["study"])
    ours = load_study(root / "flows" / "studies" / "solar.toml")
    assert root / theirs.data.manifest == ours.data.manifest
    assert theirs.model_dump(exclude={"data": {"manifest"}}) == ours.model_dump(
        exclude={"data": {"manifest"}}
    )
