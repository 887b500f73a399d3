"""What a user sees in a browser: runs, stages, scores, reports, progress and the form of a served study."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Api, Place, make_cells, until, write_study

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.acceptance,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

CELLS = 120
MANY = 2000
SEEN_WITHIN = 60_000.0
"""Milliseconds that the browser waits for something to show."""
PAGES = (
    "/v2/dashboard",
    "/v2/runs",
    "/v2/artifacts",
    "/v2/deployments",
    "/v2/settings",
    "/runs",
    "/artifacts",
)
"""Of the UI and of the older one, which has no place of its own."""
SETTLED = 2_000.0
"""Milliseconds in which a page asks for what it wants beside what it shows."""
CANCELLED_WITHIN = 30.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def cells(place: Place) -> Path:
    """A study of few pictures."""
    return write_study(
        place.folder, "cells", f"manifest = '{make_cells(CELLS, place.folder)}'\ntarget = 'defective'"
    )


@pytest.fixture(scope="module")
def many(place: Place) -> Path:
    """A study that runs for a while."""
    manifest = make_cells(MANY, place.folder)
    return write_study(
        place.folder, "many", f"manifest = '{manifest}'\ntarget = 'defective'", backbone="engine = 'eager'"
    )


@pytest.fixture(scope="module")
def api(place: Place, cells: Path) -> Iterator[Api]:
    """The server, with two runs of the small study."""
    with place.ui() as api:
        place.run(cells)
        place.run(cells)
        yield api


@pytest.fixture(scope="module")
def runs(api: Api) -> tuple[str, str]:
    first, second = api.runs("cells")[:2]
    return first["id"], second["id"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as all_browsers:
        browser = all_browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    playwright.expect.set_options(timeout=SEEN_WITHIN)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SEEN_WITHIN)
    yield page
    page.close()


def shows(page: Any, *texts: str) -> None:
    """Wait until the page shows all of some texts."""
    for text in texts:
        playwright.expect(page.get_by_text(text, exact=True).first).to_be_visible()


def test_runs_are_listed_by_their_study_with_what_became_of_them(page, api):
    page.goto(f"{api.address}/v2/runs")
    shows(page, "cells", "Completed", "Unchanged")


def test_a_repeated_run_shows_what_was_reused(page, api, runs):
    page.goto(f"{api.address}/v2/runs/flow-run/{runs[1]}")
    shows(page, "cells", "Unchanged")
    page.get_by_role("tab", name="Details").click()
    shows(page, f"everything was reused: {CELLS} samples, 14 heads")
    page.get_by_role("tab", name="Task Runs").click()
    shows(page, "Cached")
    assert list(api.stages(runs[0]).values()).count("Cached") == 0
    cached = list(api.stages(runs[1]).values()).count("Cached")
    assert cached >= 5
    playwright.expect(page.get_by_text("Cached", exact=True)).to_have_count(cached)


def test_the_scores_are_a_table(page, api, runs):
    [table] = api.artifacts(runs[1], "table")
    page.goto(f"{api.address}/v2/artifacts/artifact/{table['id']}")
    shows(page, "experiment", "last layer", "two depths", "by chance", "accuracy")


def test_the_page_of_a_run_leads_to_its_report(page, api, runs):
    page.goto(f"{api.address}/v2/runs/flow-run/{runs[1]}")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report-cells", exact=True).last.click()  # leads to all that have this key
    page.get_by_text(api.artifacts(runs[1], "markdown")[0]["id"][:8]).click()
    link = page.get_by_role("link", name="The whole report")
    playwright.expect(link).to_be_visible()
    assert link.get_attribute("href") == f"{api.address}/headstart/reports/cells/report.html"
    page.goto(link.get_attribute("href"))
    playwright.expect(page.get_by_role("heading", name="cells", exact=True)).to_be_visible()
    playwright.expect(page.get_by_role("row", name="two depths").first).to_be_visible()
    assert all(page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth > 0)"))


def test_the_artifacts_keep_a_history(page, api, runs):
    page.goto(f"{api.address}/v2/artifacts/key/scores-cells")
    playwright.expect(page.get_by_text("Flow run:")).to_have_count(2)


def test_the_older_ui_shows_a_run_too(page, api, runs):
    page.goto(f"{api.address}/runs/flow-run/{runs[1]}")
    shows(page, "cells", "Unchanged")


def test_no_page_asks_anybody_but_its_server(page, api, runs):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in (*PAGES, f"/v2/runs/flow-run/{runs[1]}", "/headstart/reports/cells/report.html"):
        page.goto(api.address + path)
        page.wait_for_timeout(SETTLED)
    own = (api.address, "data:", "blob:")
    assert {url for url in asked if not url.startswith(own)} == set()


def test_a_served_study_is_started_by_its_form(page, api, place, cells):
    with place.served(cells, "--cron", "0 3 * * *"):
        deployment = api.deployment("cells")["id"]
        page.goto(f"{api.address}/v2/deployments/deployment/{deployment}")
        shows(page, "At 03:00 AM")
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Custom run").click()
        for label in ("Target (Optional)", "Max Bad (Optional)", "Test (Optional)", "artifacts"):
            playwright.expect(page.get_by_label(label, exact=True)).to_be_visible()
        sent(page, {"Test (Optional)": "0.5"})
        run = until(
            "the run", lambda: [run for run in api.runs("cells", "COMPLETED") if run["deployment_id"]]
        )[0]
        assert run["parameters"]["study"]["splits"][0]["test"] == 0.5
        assert "0 run through the network" in run["state"]["message"]
        page.goto(f"{api.address}/v2/runs/flow-run/{run['id']}")
        shows(page, "cells", "Completed")


def test_a_served_run_shows_its_progress_and_is_cancelled_by_its_button(page, api, place, many):
    with place.served(many):
        deployment = api.deployment("many")["id"]
        page.goto(f"{api.address}/v2/deployments/deployment/{deployment}/run")
        sent(page, {})
        run = until("a running run", lambda: api.runs("many", "RUNNING"))[-1]["id"]
        until("its progress", lambda: api.artifacts(run, "progress"))
        page.goto(f"{api.address}/v2/runs/flow-run/{run}")
        shows(page, "Running")
        page.get_by_role("tab", name="Artifacts").click()
        playwright.expect(page.get_by_text(f" of {MANY:,} ").first).to_be_visible()
        page.get_by_role("button", name="Open menu").first.click()
        page.get_by_role("menuitem", name="Cancel").click()
        page.get_by_role("dialog").or_(page.get_by_role("alertdialog")).get_by_role("button").last.click()
        check_cancelled(page, api, run)


def sent(page: Any, values: dict[str, str]) -> None:
    """Fill a form and send it. A form that is still being built loses what is done to it, so it is tried again."""

    def is_sent() -> bool:
        for label, value in values.items():
            page.get_by_label(label, exact=True).fill(value)
        page.get_by_role("button", name="Submit").click()
        page.wait_for_timeout(SETTLED)
        return not page.get_by_role("button", name="Submit").is_visible()

    until("a form that is sent", is_sent, 60)


def check_cancelled(page: Any, api: Api, run: str) -> None:
    """Assert that a run is cancelled within seconds, and that the page says so."""
    begun = time.monotonic()
    until("its end", lambda: api.state(run) == "Cancelled", CANCELLED_WITHIN)
    print(f"cancelled after {time.monotonic() - begun:.1f} s")
    page.goto(f"{api.address}/v2/runs/flow-run/{run}")
    shows(page, "Cancelled")
    assert "Running" not in api.stages(run).values()
