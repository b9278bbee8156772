"""What the page asks: models, the crop of a photograph, pictures with their progress, saving them, the Python for them.

Only pages that this server gave out can post: each holds a token of its own, by which it is remembered as long as it is
open (see `iy.play.pages`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from jinja2 import Environment

from iy.errors import UserError
from iy.play.asked import LONGEST, MOST_MODELS, MOST_PEOPLE, MOST_SEEDS, Drawing, Key, Sent, sentence
from iy.play.easel import Easel
from iy.play.events import lines
from iy.play.models import Choice
from iy.play.pages import Page, Pages

LARGEST = 64 * 2**20  # bytes of a photograph, the largest thing that is sent
SWEEP = 60.0  # seconds between two looks for pages that fell silent
HERE = Path(__file__).parent
PARTS = {path.name for kind in ("css", "js") for path in HERE.glob(f"*.{kind}")}  # of the page
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; script-src 'self'; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Keys = Annotated[list[Key], Query(min_length=1, max_length=MOST_MODELS)]


class Picture(Sent):
    id: Key


def application(easel: Easel, pages: Pages) -> FastAPI:
    """The page without its guard; see `iy.web.Guard`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweep(pages))
        yield
        sweeping.cancel()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_exception_handler(UserError, said)
    app.add_exception_handler(RequestValidationError, misstated)
    app.include_router(shown(easel, pages))
    app.include_router(done(easel, pages))
    return app


async def sweep(pages: Pages) -> None:
    while True:
        await asyncio.sleep(SWEEP)
        pages.sweep()


def said(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


def misstated(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "it is named for those alone"
    return JSONResponse({"detail": sentence(error.errors())}, 422)


def shown(easel: Easel, pages: Pages) -> APIRouter:
    """What is looked at: the page with its script and style, and the models."""
    router = APIRouter()

    @router.get("/")
    def page() -> HTMLResponse:
        return html(easel, pages.open())

    @router.get("/favicon.ico")
    def icon() -> Response:
        """None: browsers ask for one."""
        return Response(status_code=204)

    @router.get("/{name}.{kind}")
    def file(name: str, kind: str) -> FileResponse:
        if f"{name}.{kind}" not in PARTS:
            raise HTTPException(404, "there is no such file")
        return FileResponse(HERE / f"{name}.{kind}")

    @router.get("/models")
    def models() -> list[dict[str, Any]]:
        """Those on disk and those that the registry names, which takes seconds."""
        return titles(easel.models.look())

    @router.get("/model")
    def model(key: Key) -> dict[str, Any]:
        return easel.describe(key)

    return router


def done(easel: Easel, pages: Pages) -> APIRouter:
    """What is done for a page, and forgotten with it."""
    router = APIRouter()

    def asking(x_page: Annotated[str, Header()] = "") -> Page:
        if (page := pages.get(x_page)) is None:
            raise HTTPException(403, "this page was closed or is from an earlier start: load it again")
        return page

    async def sent(request: Request) -> bytes:
        return await request.body()

    @router.post("/faces")
    def look(
        page: Annotated[Page, Depends(asking)], photo: Annotated[bytes, Depends(sent)], name: str, model: Keys
    ) -> dict[str, Any]:
        return easel.look(page, photo, name, model)

    @router.post("/draw")
    async def draw(page: Annotated[Page, Depends(asking)], asked: Drawing) -> StreamingResponse:
        return StreamingResponse(lines(partial(easel.draw, page, asked)), media_type="application/x-ndjson")

    @router.post("/code")
    def code(page: Annotated[Page, Depends(asking)], asked: Drawing) -> dict[str, str]:
        return {"python": easel.code(page, asked)}

    @router.post("/save")
    def save(page: Annotated[Page, Depends(asking)], picture: Picture) -> dict[str, str]:
        return {"saved": str(easel.save(page, picture.id))}

    @router.post("/beat", dependencies=[Depends(asking)])
    def beat() -> dict:
        """The page is still open."""
        return {}

    @router.post("/close")
    def close(x_page: Annotated[str, Header()]) -> dict:
        pages.close(x_page)
        return {}

    return router


def titles(choices: list[Choice]) -> list[dict[str, Any]]:
    return [{"id": one.id, "title": one.title, "champion": one.champion} for one in choices]


def html(easel: Easel, token: str) -> HTMLResponse:
    """The page, which runs its own script and style and nothing else."""
    draws = easel.settings.draw
    given = {
        "token": token,
        "models": titles(list(easel.models.choices.values())),
        "champion": easel.models.champion,
        "styles": list(easel.styles),
        "draw": {"steps": draws.steps, "guidance": draws.guidance, "identity_guidance": draws.identity_guidance},
        "largest": LARGEST,
        "people": MOST_PEOPLE,
        "seeds": MOST_SEEDS,
    }
    text = (HERE / "page.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(text).render(given=given, longest=LONGEST)
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})
