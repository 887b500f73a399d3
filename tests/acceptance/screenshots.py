"""The pictures in docs/: python tests/acceptance/screenshots.py [FOLDER]

Runs the solar study twice, with the outputs in FOLDER (/tmp/headstart if not given), and photographs what a
browser shows of it.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from served import Api, Place  # noqa: E402

STUDY = ROOT / "flows" / "studies" / "solar.toml"
DOCS = ROOT / "docs"
WIDTH = 1000
COLOURS = 128
SETTLED = 4_000.0
"""Milliseconds until a page has drawn everything."""


def main(outputs: Path) -> None:
    """Take them all."""
    DOCS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="headstart-") as folder, sync_playwright() as browsers:
        place = Place(Path(folder), elsewhere=outputs)
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with place.ui() as api:
            for _ in range(2):
                place.run(STUDY)
            _take_all(browser.new_page(viewport={"width": WIDTH, "height": 800}), api)
        browser.close()


def _take_all(page: Any, api: Api) -> None:
    run = api.runs("solar")[-1]["id"]
    page.goto(f"{api.address}/v2/runs/flow-run/{run}?tab=TaskRuns")
    _take(page, "ui-run", 1300, zoom=0.8)
    [artifact] = api.artifacts(run, "markdown")
    page.goto(f"{api.address}/v2/artifacts/artifact/{artifact['id']}")
    _take(page, "ui-report", 1050)
    page.goto(f"{api.address}/headstart/reports/solar/report.html")
    _take(page, "report", 1150)


def _take(page: Any, name: str, height: int, zoom: float = 1.0) -> None:
    """Photograph the top of a page, in few colours, so that the file is small."""
    page.set_viewport_size({"width": round(WIDTH / zoom), "height": height})
    page.wait_for_timeout(SETTLED)
    file = DOCS / f"{name}.png"
    page.screenshot(path=file)
    whole = Image.open(file).convert("RGB")
    small = whole.resize((WIDTH, round(height * zoom)), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1000} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/headstart"))  # noqa: S108
