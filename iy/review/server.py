"""The page and what it asks: things to judge, their pictures, and a place for each judgement.

Only this machine is answered, only under its own names (a foreign name that is made to point here is refused), and only
the page itself can post: it holds a token that is drawn anew at every start. What others wrote is sent as data, never as
markup.
"""

import re
import secrets
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment
from pydantic import BaseModel, ConfigDict, Field

from iy.review.log import Judgement, Log
from iy.review.things import KINDS, Thing, Things
from iy.review.verdicts import agreement, settled

AHEAD = 20  # things that the page is told of at once
REASONS = ("wrong person", "blurred", "eyes closed", "face hidden", "broken picture", "not as captioned")
TEMPLATES = Environment(autoescape=True)
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
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

    def posted_by_the_page(x_review_token: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(x_review_token.encode(), token.encode()):
            raise HTTPException(403, "this page is from an earlier start: load it again")

    @app.middleware("http")
    async def guarded(request: Request, answer):
        if request.headers.get("host") not in hosts:
            return JSONResponse({"detail": "asked for under a foreign name"}, 403, HEADERS)
        response = await answer(request)
        response.headers.update({name: value for name, value in HEADERS.items() if name not in response.headers})
        return response

    def thing(key: str) -> Thing:
        if key not in things.by_id:
            raise HTTPException(404, "there is no such photo or pair")
        return things.by_id[key]

    @app.get("/")
    def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        text = TEMPLATES.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8")).render(
            nonce=nonce, token=token, kinds=KINDS, reasons=REASONS
        )
        policy = (
            f"default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'nonce-{nonce}'; "
            f"style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(text, headers=HEADERS | {"Content-Security-Policy": policy})

    @app.get("/favicon.ico")
    def icon() -> Response:
        """None: browsers ask for one."""
        return Response(status_code=204)

    @app.get("/things")
    def ask(kind: Kind, reviewer: Annotated[str, NAME], verdict: Verdict | None = None, skip: int = 0) -> dict:
        """The next things that the reviewer has not judged, `skip` of them passed over; how many there are and are done."""
        log.refresh()
        picked, done = things.pick(kind, verdict), log.judged.get(reviewer.strip(), {})
        left = [one for one in picked if one.row["id"] not in done]
        return {"things": [one.shown() for one in left[skip : skip + AHEAD]], "left": len(left), "total": len(picked)}

    @app.get("/picture/{key}/{which}")
    def picture(key: str, which: Literal["own", "beside"]) -> Response:
        found = thing(key)
        if which == "beside" and found.beside is None:
            raise HTTPException(404, "nothing stands beside it")
        return Response(
            things.image(found, which == "beside"),
            media_type="image/png",
            headers={"Cache-Control": "private, max-age=3600"},
        )

    @app.post("/judgements", dependencies=[Depends(posted_by_the_page)])
    def decide(body: Decided) -> dict:
        thing(body.id)
        log.add(Judgement(body.id, body.verdict, body.reviewer, re.sub(r"\s+", " ", body.reason)))
        return {"saved": body.id}

    @app.post("/undo", dependencies=[Depends(posted_by_the_page)])
    def undo(body: Posted) -> dict:
        taken = log.undo(body.reviewer)
        return {"thing": None if taken is None or taken.id not in things.by_id else things.by_id[taken.id].shown()}

    @app.get("/agreement")
    def agree() -> dict:
        log.refresh()
        decided, tied = settled(log.judged)
        return {
            "reviewers": {who: len(own) for who, own in log.judged.items() if own},
            "decided": len(decided),
            "tied": len(tied),
            "pairs": agreement({who: own for who, own in log.judged.items() if own}),
        }

    return app
