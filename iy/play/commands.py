"""`iy play`: the page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iy.errors import UserError

if TYPE_CHECKING:
    from iy.web import Login

PORT = 4295
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
SHORTEST = 12  # characters of a password
Profile = Annotated[
    str | None, typer.Option("--profile", "-p", help="Settings to use; else the profile that params.yaml names.")
]


def play(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="A finetuned model to begin with; several may be named. The stages' are there anyway."),
    ] = None,
    loras: Annotated[Path | None, typer.Option(help="A folder of LoRAs (.safetensors), for styles.")] = None,
    out: Annotated[Path, typer.Option(help="Where pictures are saved, when asked for.")] = Path("pictures"),
    host: Annotated[str, typer.Option(help="The address to listen on; another than this needs --login.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=1, max=65535)] = PORT,
    login: Annotated[
        Path | None, typer.Option(help="A file with a line name:password, which only you may read (chmod 600).")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Another name, with port where browsers say one, under which the page is asked for."),
    ] = None,
    profile: Profile = None,
) -> None:
    """Open a page on this machine: drop photographs, say what the picture shows, compare models, save."""
    if host not in LOOPBACK and login is None:
        raise UserError(f"--host {host}: others reach the page there: give --login FILE, with a line name:password")
    who = login and read_login(login)
    from iy import params, web
    from iy.play.easel import Easel
    from iy.play.models import Models, on_disk
    from iy.play.pages import Pages
    from iy.play.server import LARGEST, application
    from iy.play.styles import styles_in

    settings = params.load(profile)
    models = Models(settings, on_disk(settings, bundle or []), champion=not bundle)
    if not models.choices:
        raise UserError("there is no model to draw with: make one with `iy run`, or name one with --bundle")
    easel, listening = Easel(settings, models, styles_in(loras), out), web.listen(host, port)
    app = application(easel, Pages())
    app.add_middleware(web.Guard, hosts=hosts(host, port, name or []), largest=LARGEST, login=who)
    models.warm()
    print(
        f"Play on http://{shown(host)}:{port}   nothing is kept but what is saved to {out}   Ctrl-C ends it", flush=True
    )
    web.run(app, listening)


def read_login(file: Path) -> "Login":
    """The name and password of a file that nobody else can read."""
    from iy.web import Login

    try:
        if file.stat().st_mode & 0o077:
            raise UserError(f"--login {file}: others can read it: chmod 600 {file}")
        name, colon, password = file.read_text(encoding="utf-8").strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--login {file} cannot be read: {error}") from None
    if not (name and colon) or len(password) < SHORTEST:
        raise UserError(f"--login {file}: a line name:password is expected, of {SHORTEST} characters or more")
    return Login(name, password)


def hosts(host: str, port: int, named: list[str]) -> set[str]:
    """The names under which the page is asked for: those of the address that is listened on, and those told."""
    import socket

    found = {host}
    if host in LOOPBACK:
        found = {*LOOPBACK}
    elif host in EVERYWHERE:
        own = socket.gethostname()
        found = {own, socket.getfqdn(), *LOOPBACK}
        try:
            found |= {str(one[4][0]) for one in socket.getaddrinfo(own, None)}
        except socket.gaierror:
            pass  # a machine that does not know itself: --name tells
    return {f"{shown(one)}:{port}" for one in found} | set(named)


def shown(host: str) -> str:
    """As it stands in an address."""
    return f"[{host}]" if ":" in host else host
