"""Stage 7: what the Prefect UI shows of a run, keyed per study, so that it keeps their history. Never cached."""

from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.caching import stage
from tasks.core.markdown import leaderboard, page
from tasks.core.plots import plots


@stage("publish")
def publish(study: str, summary: dict[str, Any], link: str) -> None:
    """Make the study's artifacts: the leaderboard as a table, and a page with the verdict and a link to the report.

    Args:
        study: its name.
        summary: as `summary.json` holds it.
        link: where the report is to be had.
    """
    create_table_artifact(leaderboard(summary), key=f"scores-{_slug(study)}", description=f"{study}: scores")
    create_markdown_artifact(
        page(summary, link, plots(summary)), key=f"report-{_slug(study)}", description=f"{study}: report"
    )


def _slug(study: str) -> str:
    """Prefect's artifact keys are lower-case letters, digits and dashes."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in study.lower())
