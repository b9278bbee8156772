"""The page and what it asks: things to judge, their pictures, and a place for each judgement.

Only this machine is answered, only under its own names (a foreign name that is made to point here is refused), and
only the page itself can post: it holds a token that is drawn anew at every start. What others wrote is sent as data,
never as markup.
"""

import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment
from pydantic import BaseModel, ConfigDict, Field

from iy.review.log import Judgement, Log
from iy.review.things import KINDS, Thing, Things
from iy.review.verdicts import agreement, settled
from iy.web import Guard

AHEAD = 20  # things that the page is told of at once
REASONS = ("wrong person", "blurred", "eyes closed", "face hidden", "broken picture", "not as captioned")
TEMPLATES = Environment(autoescape=True)
LARGEST = 65536  # bytes that the page may post at once
NAME = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")

Kind = Literal["pairs", "photos"]
Verdict = Literal["accepted", "rejected"]


class Posted(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    reviewer: str = NAME


class Decided(Posted):
    id: str
    verdict: Verdict
    reason: str = Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")


def application(things: Things, log: Log, hosts: set[str]) -> FastAPI:
    """hosts: the names with port under which the page may be asked for."""
    app = FastAPI(openapi_url=None)
    token = secrets.token_urlsafe(32)
    app.add_middleware(Guard, hosts=hosts, largest=LARGEST)
    app.include_router(shown(things, log, token))
    app.include_router(judged(things, log), dependencies=[Depends(of_this_start(token))])
    return app


def of_this_start(token: str) -> Callable[[str], None]:
    """A check that a request comes from the page, which alone was told the token."""

    def check(x_review_token: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(x_review_token.encode(), token.encode()):
            raise HTTPException(403, "this page is from an earlier start: load it again")

    return check


def shown(things: Things, log: Log, token: str) -> APIRouter:
    """What is looked at: the page, what there is to judge, and how far the reviewers agree."""
    router = APIRouter()

    @router.get("/")
    def page() -> HTMLResponse:
        return html(token)

    @router.get("/favicon.ico")
    def icon() -> Response:
        """None: browsers ask for one."""
        return Response(status_code=204)

    @router.get("/things")
    def ask(kind: Kind, reviewer: Annotated[str, NAME], verdict: Verdict | None = None, skip: int = 0) -> dict:
        """The next things that the reviewer has not judged, `skip` of them passed over; how many there are."""
        log.refresh()
        picked, done = things.pick(kind, verdict), log.of(reviewer)
        left = [one for one in picked if one.row["id"] not in done]
        return {"things": [one.shown() for one in left[skip : skip + AHEAD]], "left": len(left), "total": len(picked)}

    @router.get("/picture/{key}/{which}")
    def picture(key: str, which: Literal["own", "beside"]) -> Response:
        found = thing(things, key)
        if which == "beside" and found.beside is None:
            raise HTTPException(404, "nothing stands beside it")
        kept = {"Cache-Control": "private, max-age=3600"}
        return Response(things.image(found, which == "beside"), media_type="image/png", headers=kept)

    @router.get("/agreement")
    def agree() -> dict:
        log.refresh()
        own = {who: judged for who, judged in log.judged.items() if judged}
        decided, tied = settled(log.judged)
        counts = {who: len(judged) for who, judged in own.items()}
        return {"reviewers": counts, "decided": len(decided), "tied": len(tied), "pairs": agreement(own)}

    return router


def judged(things: Things, log: Log) -> APIRouter:
    """What is decided: a judgement, or the last one taken back."""
    router = APIRouter()

    @router.post("/judgements")
    def decide(body: Decided) -> dict:
        thing(things, body.id)
        log.add(Judgement(body.id, body.verdict, body.reviewer, re.sub(r"\s+", " ", body.reason)))
        return {"saved": body.id}

    @router.post("/undo")
    def undo(body: Posted) -> dict:
        taken = log.undo(body.reviewer)
        return {"thing": None if taken is None or taken.id not in things.by_id else things.by_id[taken.id].shown()}

    return router


def thing(things: Things, key: str) -> Thing:
    if key not in things.by_id:
        raise HTTPException(404, "there is no such photo or pair")
    return things.by_id[key]


def html(token: str) -> HTMLResponse:
    """The page, which runs its own script and style and nothing else."""
    nonce = secrets.token_urlsafe(16)
    template = TEMPLATES.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    policy = (
        f"default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'nonce-{nonce}'; "
        f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    text = template.render(nonce=nonce, token=token, kinds=KINDS, reasons=REASONS)
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})
