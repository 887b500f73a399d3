"""Running the flow from a terminal: a user's mistake is one line, not a traceback."""

import logging
from pathlib import Path
from typing import Any

from flows.study import Study
from flows.transfer import transfer
from tasks.core.errors import HeadstartError


class _OwnErrorsAreTold(logging.Filter):
    """Keeps Prefect from printing what the command line says in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], HeadstartError))


def run_transfer(study: Study, artifacts: Path) -> dict[str, Any]:
    """Run the flow and return its summary.

    Raises:
        HeadstartError: what the flow raised, without Prefect's telling of it.
    """
    for handler in logging.getLogger("prefect").handlers:
        handler.addFilter(_OwnErrorsAreTold())
    return transfer(study, artifacts)
