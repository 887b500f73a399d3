"""Near copies that a split parts are told in the summary, in the report and in the terminal."""

import re

import pytest
from PIL import Image, ImageEnhance

from flows.console import show_summary
from flows.study import Study


@pytest.fixture
def study(pictures):
    """Twelve of 24 pictures have a brighter copy."""
    for number in range(0, 12, 2):
        for kind in ("upright", "lying"):
            with Image.open(pictures / kind / f"{number}.png") as image:
                ImageEnhance.Brightness(image).enhance(1.03).save(pictures / kind / f"{number}-brighter.png")
    return Study.model_validate(
        {
            "name": "copies",
            "data": {"folder": pictures},
            "backbones": {"small": {"network": "lite0", "resize": 64, "crop": 64}},
            "splits": [{"name": "random", "seeds": [0, 1], "test": 0.5}],
            "experiments": [{"name": "last layer", "strengths": [1.0]}],
        }
    )


def test_near_copies_are_told_everywhere_and_looked_for_once(study, run, capsys):
    done = run(study)
    [found] = done.summary["near_copies"]
    assert found["split"] == "random"
    assert 0 < found["share"] <= 1
    for pair in found["pairs"]:
        names = [
            re.sub(r"-brighter", "", pair[side].rpartition("/stripes/")[2]) for side in ("test", "train")
        ]
        assert names[0] == names[1]
        assert pair["test"] != pair["train"]
    page = (done.folder / "report.html").read_text()
    assert page.count("<img", page.index("<h2>Near copies")) >= 2 * len(found["pairs"])
    show_summary(done.summary, done.folder)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "near cop" in line]
    assert line.startswith("random: ")
    assert run(study).state("near copies") == "Cached"


def test_where_there_are_none_nothing_is_said(study, run, capsys, pictures):
    for copy in pictures.rglob("*-brighter.png"):
        copy.unlink()
    done = run(study)
    assert done.summary["near_copies"] == [{"split": "random", "count": 0.0, "share": 0.0, "pairs": []}]
    assert "Near copies" not in (done.folder / "report.html").read_text()
    show_summary(done.summary, done.folder)
    assert "near cop" not in capsys.readouterr().out
