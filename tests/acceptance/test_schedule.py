"""A study that is served: its schedule fires, files that change start it, and a run does only what is new."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Api, Place, until, write_study

pytestmark = [pytest.mark.slow, pytest.mark.acceptance, pytest.mark.timeout(1200)]

SMALL = "resize = 48\ncrop = 48"

Painter = Callable[[Path, int, float], None]


def finished(api: Api, least: int) -> list[dict[str, Any]] | None:
    """The runs that came to a good end, once there are so many."""
    found = api.runs("stripes", "COMPLETED")
    return found if len(found) >= least else None


def extracted(place: Place) -> list[int]:
    """How many samples each run put through the network."""
    return [run["extracted"] for run in place.summary("stripes")["history"]]


def is_watched(folder: Path, process: int) -> bool:
    """Whether a process has the kernel tell it what changes in a folder."""
    mark = f"ino:{folder.stat().st_ino:x} "
    return any(mark in each.read_text() for each in Path(f"/proc/{process}/fdinfo").iterdir())


def test_a_second_firing_forwards_nothing_and_a_file_added_costs_one_pass(
    place: Place, pictures: Path, painter: Painter
):
    served = write_study(place.folder, "stripes", f"folder = '{pictures}'", backbone=SMALL)
    with place.ui() as api, place.served(served, "--interval", "15s"):
        first, second, *_ = until("two firings", lambda: finished(api, 2))
        assert [first["state_name"], second["state_name"]] == ["Completed", "Unchanged"]
        assert "samples: 24 run through the network" in first["state"]["message"]
        assert "everything was reused: 24 samples" in second["state"]["message"]
        assert extracted(place)[:2] == [24, 0]
        assert set(api.stages(second["id"]).values()) == {"Cached", "Completed"}

        painter(pictures / "upright" / "new.png", 999, 0.0)
        until("a firing with the new file", lambda: sum(extracted(place)) == 25)
        known = len(extracted(place))
        until("one more firing", lambda: len(extracted(place)) > known)
        assert [some for some in extracted(place) if some] == [24, 1]


def test_watching_starts_a_run_at_once_and_one_for_a_file_that_is_copied(
    place: Place, pictures: Path, painter: Painter
):
    served = write_study(place.folder, "stripes", f"folder = '{pictures}'", backbone=SMALL)
    with place.ui() as api, place.served(served, "--watch") as serving:
        until("a run of what is there", lambda: finished(api, 1))
        assert is_watched(pictures / "lying", serving.process.pid)
        painter(pictures / "lying" / "new.png", 998, 1.57)
        _, second = until("a run with the new file", lambda: finished(api, 2))
        assert "1 files are new, changed or gone" in serving.said()
        assert "samples: 1 run through the network, 24 reused" in second["state"]["message"]
        assert extracted(place) == [24, 1]


def test_without_a_server_there_is_no_schedule(place: Place, pictures: Path):
    told = place.headstart("serve", pictures, "--interval", "15s", "--artifacts", place.artifacts)
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].endswith("start one with: headstart ui")
    place.check_left_nothing()
