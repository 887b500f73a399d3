"""What `headstart ui` serves: Prefect's API and UI, and beside them the reports that its artifacts link to."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prefect.server.api.server import create_app
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flows.server import ABOUT, HOST, REPORTS


async def about(request: Request) -> JSONResponse:
    """Say which process this is: whoever remembers the address may be wrong."""
    return JSONResponse({"pid": os.getpid(), "reports": os.environ["HEADSTART_REPORTS"]})


def create() -> Starlette:
    """Make the app. Names of other hosts are refused, so that no page of elsewhere reaches it by a name of its own."""
    reports = Path(os.environ["HEADSTART_REPORTS"])
    reports.mkdir(parents=True, exist_ok=True)
    prefect = create_app(final=True)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with prefect.router.lifespan_context(prefect):
            yield

    return Starlette(
        routes=[
            Route(ABOUT, about),
            Mount(REPORTS, StaticFiles(directory=reports)),
            Mount("/", prefect),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        lifespan=lifespan,
    )
