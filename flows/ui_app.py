"""What `headstart ui` serves: Prefect's API and UI, and beside them the reports that its artifacts link to."""

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from prefect.server.api.server import create_app
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.server import ABOUT, HOST, REPORTS

LOADED = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:;"
"""What a page may be made of."""


async def about(request: Request) -> JSONResponse:
    """Say which process this is: whoever remembers the address may be wrong."""
    return JSONResponse({"pid": os.getpid(), "reports": os.environ["HEADSTART_REPORTS"]})


class OwnPagesAlone:
    """Refuses what pages of elsewhere ask for.

    Browsers let them open sockets and send what needs no body, and leave it to the server to look.

    Args:
        app: what is guarded.
        origins: of the pages that may.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI's
        has_origin = scope["type"] in ("http", "websocket")
        origin = Headers(scope=scope).get("origin") if has_origin else None
        if origin is None or origin in self.origins:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
        else:
            await PlainTextResponse("not from that page", 403)(scope, receive, send)


class OwnServerAlone:
    """Has the browser ask nobody but this server: Prefect's pages ask amplitude.com what they may report, always.

    Args:
        app: whose pages they are.
        origins: that they may ask.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        asked = " ".join([*origins, *(each.replace("http://", "ws://") for each in origins)])
        self.app, self.policy = (
            app,
            f"{LOADED} connect-src 'self' data: blob: {asked}; frame-ancestors 'self'",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI's
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = self.policy
            await send(message)

        await self.app(scope, receive, send_with_policy)


def create() -> Starlette:
    """Make the app. Names of other hosts are refused, so that no page of elsewhere reaches it by a name of its own."""
    reports = Path(os.environ["HEADSTART_REPORTS"])
    reports.mkdir(parents=True, exist_ok=True)
    prefect = create_app(final=True)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with prefect.router.lifespan_context(prefect):
            yield

    origins = os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    return Starlette(
        routes=[
            Route(ABOUT, about),
            Mount(REPORTS, StaticFiles(directory=reports)),
            Mount("/", prefect),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
            Middleware(OwnPagesAlone, origins=origins),
            Middleware(OwnServerAlone, origins=origins),
        ],
        lifespan=lifespan,
    )
