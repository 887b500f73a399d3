"""What a study of several targets leaves for people, from the first run to the next."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tasks.answer_report
import tasks.report
from flows.study import Study
from tasks.core.heads import HeadFile
from tasks.core.markdown import page

SAMPLES = 60
Run = Callable[[Study], Any]


@pytest.fixture
def manifest(tmp_path: Path, painter: Callable[[Path, int, float], None]) -> Path:
    """Stripes that stand or lie; a target that tells which, one that tells often, and one that says nothing."""
    random, rows = np.random.default_rng(0), []
    for number in range(SAMPLES):
        upright, hard = (bool(each) for each in random.random(2) < 0.5)
        painter(tmp_path / "stripes" / f"{number}.png", number, 0.0 if upright else 1.57)
        often = upright != (number % 10 == 0)
        rows.append({"path": f"{number}.png", "upright": upright, "often": often, "hard": hard})
    place = tmp_path / "stripes" / "stripes.csv"
    pd.DataFrame(rows).astype(dict.fromkeys(("upright", "often", "hard"), int)).to_csv(place, index=False)
    return place


def study_of(manifest: Path, *targets: str, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "stripes",
        "data": {"manifest": manifest, "targets": list(targets)},
        "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
        "splits": [{"name": "random", "seeds": [0], "test": 0.4}],
        "experiments": [{"name": "linear", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
    }
    return Study.model_validate(fields | changes)


def test_a_target_that_comes_to_be_learnt_is_no_drift(run: Run, manifest: Path) -> None:
    """A third, hard target passes `least_known`: the mean falls, and is not held against that over two."""
    table = pd.read_csv(manifest, dtype=str)
    few = table.assign(hard=table.hard.where(table.index < 4, "?"))
    data = {"manifest": manifest, "targets": ["upright", "often", "hard"], "least_known": 2}
    few.to_csv(manifest, index=False)
    first = run(study_of(manifest, data=data))
    assert list(first.summary["targets"]["left_out"]) == ["hard"]
    table.to_csv(manifest, index=False)
    second = run(study_of(manifest, data=data))
    html = (second.folder / "report.html").read_text()
    assert "outside that run" not in html
    assert "The targets changed since the last run" in html
    told = [each["targets"] for each in second.summary["history"]]
    assert told == ["often, upright", "hard, often, upright"]
    shown = page(second.summary, "", {})
    assert "The targets changed since the last run" in shown
    assert "Since the last run: **" not in shown
    third = run(study_of(manifest, data=data))
    assert "Unchanged since the last run" in (third.folder / "report.html").read_text()


def test_the_page_names_every_table_beside_it(run: Run, manifest: Path) -> None:
    done = run(study_of(manifest, "upright", "often"))
    html = (done.folder / "report.html").read_text()
    [beside] = re.findall(r"Beside this page: .*", html)
    told = set(re.findall(r"\w+\.csv", beside))
    assert told == {path.name for path in done.folder.glob("*.csv")}


LAYERS = {"name": "late", "depth": "suffix", "cut": "blocks.5", "epochs": [1], "learning_rates": [1e-3]}
LAYERS |= {"folds": 2, "batch": 16}


def test_no_network_is_held_where_pages_are_made(
    run: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[HeadFile] = []
    looks_of, of_unseen_rows = tasks.answer_report.looks_of, tasks.report.of_unseen_rows

    def look(heads: Mapping[str, Sequence[HeadFile]], *rest: Any) -> Any:
        held.extend(file for files in heads.values() for file in files)
        return looks_of(heads, *rest)

    def of_rows(files: Sequence[HeadFile], table: pd.DataFrame) -> Any:
        held.extend(files)
        return of_unseen_rows(files, table)

    monkeypatch.setattr(tasks.answer_report, "looks_of", look)
    monkeypatch.setattr(tasks.report, "of_unseen_rows", of_rows)
    run(study_of(manifest, "upright", "often", experiments=[LAYERS]))
    assert len(held) == 2
    one = {"manifest": manifest, "target": "upright"}
    run(study_of(manifest, name="one", data=one, experiments=[LAYERS]))
    assert len(held) == 3
    assert [set(file.predictor.arrays()) for file in held] == [{"temperature"}] * 3
