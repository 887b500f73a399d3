"""The street scenes that a script draws: the truth is all there, and erased where it is said to be."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def streets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, drawing few scenes into a folder of the test."""
    spec = importlib.util.spec_from_file_location("streets", ROOT / "data" / "streets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "streets-0")
    monkeypatch.setattr(module, "SCENES", 60)
    monkeypatch.setattr(module, "TESTED", 20)
    return module


def test_answers_are_erased_in_scenes_to_train_on_alone(streets: ModuleType) -> None:
    table = streets.manifest()
    tested = (table.side == "test").to_numpy()
    assert tested.sum() == 20
    for target in streets.CHANCES:
        known, no, truth = table[f"{target}_known"], table[f"{target}_no"], table[target]
        assert set(truth) == {"0", "1"}
        assert (known[tested] == truth[tested]).all()
        erased = (known == "?").to_numpy()
        assert 0.3 < erased[~tested].mean() < 0.9
        assert (known[~erased] == truth[~erased]).all()
        assert (no[erased] == "0").all()
        assert (no[~erased] == truth[~erased]).all()


def test_more_scenes_leave_the_first_as_they_are(
    streets: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = streets.manifest()
    drawn = [Path(streets.FOLDER.parent / path).read_bytes() for path in few.path]
    monkeypatch.setattr(streets, "SCENES", 80)
    more = streets.manifest()
    assert more.head(60).equals(few)
    assert [Path(streets.FOLDER.parent / path).read_bytes() for path in few.path] == drawn


def test_a_scene_is_drawn_the_same_each_time_and_shows_what_it_holds(streets: ModuleType) -> None:
    holds = dict.fromkeys(streets.CHANCES, False)
    empty = np.asarray(streets.draw_scene(holds, 7))
    assert (np.asarray(streets.draw_scene(holds, 7)) == empty).all()
    for target in holds:
        other = np.asarray(streets.draw_scene(holds | {target: True}, 7))
        assert (other != empty).any()


def test_a_scene_that_is_gone_is_drawn_again(streets: ModuleType) -> None:
    table = streets.manifest()
    path = streets.FOLDER.parent / table.path[3]
    whole = path.read_bytes()
    path.unlink()
    streets.manifest()
    assert path.read_bytes() == whole
    assert len(list(streets.FOLDER.iterdir())) == streets.SCENES  # nothing unfinished is left
    with Image.open(path) as image:
        assert image.size == (streets.SIDE, streets.SIDE)
