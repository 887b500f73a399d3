"""What a run takes of the machine, held against what the machine has."""

import pytest

from tasks.core import stored
from tasks.core.checks import NOTE, OK, WRONG
from tasks.core.resources import (
    Need,
    Step,
    free_bytes,
    of_memory,
    of_space,
    of_steps,
    of_versions,
)


def states(checks: list) -> list[str]:
    return [check.state for check in checks]


@pytest.mark.parametrize(
    ("features", "layers", "unknown", "state"),
    [
        (50, 0, [], OK),
        (50, 40, [], OK),
        (91, 0, [], NOTE),
        (50, 41, [], NOTE),
        (101, 0, [], WRONG),
        (50, 51, [], WRONG),
        (50, 0, ["net"], NOTE),
    ],
)
def test_features_and_layers_must_fit_on_the_disk(features, layers, unknown, state):
    assert of_space(features * 10**6, layers * 10**6, 100 * 10**6, unknown).state == state


def test_room_is_told_of_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.1)


def test_memory_is_asked_for_as_training_asks_itself(monkeypatch):
    monkeypatch.setattr(stored, "machine_memory", lambda: 3 * 24 * 100_000)
    monkeypatch.setattr("tasks.core.resources.machine_memory", lambda: 3 * 24 * 100_000)
    fits, wide = Need("fits", frozenset({"ridge"}), 1000, 100), Need("wide", frozenset({"ridge"}), 999, 1000)
    streamed, held = (
        Need(name, frozenset(kinds), 1001, 100)
        for name, kinds in (("a", ["softmax"]), ("b", ["softmax", "knn"]))
    )
    assert [need.fits() for need in (fits, wide, streamed)] == [True, True, False]
    assert states(of_memory([fits, wide])) == [OK]
    note, wrong = of_memory([fits, streamed, held])
    assert (note.state, wrong.state) == (NOTE, WRONG)
    assert note.found.startswith("a: ")
    assert "head knn needs that" in wrong.found
    assert states(of_memory([])) == [NOTE]


def test_from_a_stream_only_questions_of_two_answers_are_learnt(monkeypatch):
    monkeypatch.setattr(stored, "machine_memory", lambda: 3 * 24 * 100_000)
    monkeypatch.setattr("tasks.core.resources.machine_memory", lambda: 3 * 24 * 100_000)

    def told(rows: int, *kinds: str) -> list:
        return of_memory([Need("a", frozenset(kinds), rows, 100, ("weather", "ground"))])

    assert states(told(1000, "softmax")) == [OK]
    [wrong] = told(1001, "softmax")
    assert wrong.state == WRONG
    assert "head softmax needs that for weather, ground" in wrong.found
    assert "only questions of two answers are learnt from a stream" in wrong.todo
    [other] = told(1001, "shared")
    assert "head shared needs that" in other.found
    assert states(told(1001, "softmax", "shared")) == [WRONG, WRONG]


def test_a_step_that_needs_more_memory_than_there_is_is_noted(monkeypatch):
    monkeypatch.setattr("tasks.core.resources.machine_memory", lambda: 10**9)
    [fine] = of_steps([Step("late", 32, 10**8), Step("all", 32, 8 * 10**8)])
    assert (fine.state, "800.0 MB at most" in fine.found) == (OK, True)
    [large] = of_steps([Step("late", 32, 10**8), Step("all", 32, 2 * 10**9)])
    assert large.state == NOTE
    assert large.found.startswith("all: a step of 32 samples takes about 2.0 GB; this machine has 1.0 GB")
    assert "smaller batch" in large.todo
    assert states(of_steps([])) == [NOTE]


def test_versions_that_do_not_go_together_are_wrong():
    installed = {"fastapi": "0.151.0", "torch": "2.9.1+cpu", "rich": "14.0"}
    needed = {
        "headstart": [
            "fastapi<0.151",
            "rich>=13",
            'openvino>=2025; extra == "cpu"',
            "not a requirement at all!",
        ],
        "torchvision": ["torch==2.9.0", "absent>1"],
    }
    found = of_versions(needed, lambda package: installed.get(package, ""))
    assert [(check.state, check.found) for check in found] == [
        (WRONG, "headstart needs fastapi<0.151, 0.151.0 is installed"),
        (WRONG, "torchvision needs torch==2.9.0, 2.9.1+cpu is installed"),
        (WRONG, "torchvision needs absent>1, none is installed"),
    ]
    assert found[0].todo == "pip install 'fastapi<0.151'"
    installed |= {"fastapi": "0.150.0", "torch": "2.9.0+cpu", "absent": "2"}
    assert of_versions(needed, lambda package: installed.get(package, "")) == []
