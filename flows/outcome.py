"""What a run came to, whatever its server answered."""

import json
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State


def summary_of(state: State[Any], folder: Path) -> dict[str, Any]:
    """Tell the summary of a run that ended.

    A server that is slow is asked a second time, finds the run ended already, and answers with the state that it keeps,
    which is without the run's data. The run is done all the same, and what it told lies in its folder.

    Args:
        state: what the run ended in.
        folder: what the study's last run left for people.

    Returns:
        What `summary.json` holds.

    Raises:
        CancelledRun: if somebody cancelled the run.
        Exception: whatever ended the run.
    """
    if state.is_completed() and state.data is None:
        told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        return told
    result: dict[str, Any] = state.result()
    return result
