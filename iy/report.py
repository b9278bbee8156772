"""Self-contained HTML pages and image grids for the stages' reports. Equal inputs give equal bytes.

A page is a list of sections, a section a title and a list of blocks; `paragraph`, `table`, `picture`, `strip` and
`plot` make blocks. Images are embedded, so a page is one file that can be mailed.
"""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont

Block = Markup
Section = tuple[str, Sequence[Block]]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --good: #1a7f37; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff8a80 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem }
p { max-width: 75ch; margin: .5rem 0 } .lead { opacity: .8 } .wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { font-weight: 600; position: sticky; top: 0 } td.number { text-align: right; white-space: nowrap }
.images td, .images th { padding: 2px; border: 0; font-size: .72rem; line-height: 1.25; max-width: 112px }
.images td:last-child { max-width: 30rem }
.images th { font-weight: 400; vertical-align: bottom } figure { margin: .8rem 0 } img { max-width: 100% }
figcaption { font-size: .85rem; opacity: .8; max-width: 75ch } .good { color: var(--good) } .bad { color: var(--bad) }
nav a { margin-right: 1rem } td img { display: block; border-radius: 3px }
</style></head><body><h1>{{ title }}</h1><p class="lead">{{ lead }}</p>
<nav>{% for name, _ in sections %}<a href="#s{{ loop.index }}">{{ name }}</a>{% endfor %}</nav>
{% for name, blocks in sections %}<section id="s{{ loop.index }}"><h2>{{ name }}</h2>
{% for block in blocks %}{{ block }}
{% endfor %}</section>{% endfor %}
</body></html>
"""
TABLE = """<div class="wide"><table{% if kind %} class="{{ kind }}"{% endif %}>
{% if header %}<thead><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>{% endif %}
<tbody>{% for row in rows %}
<tr>{% for cell in row %}<td{% if cell is number %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>"""

templates = Environment(autoescape=True, trim_blocks=True)


def page(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """A whole HTML page: `sections` are (title, blocks)."""
    return templates.from_string(PAGE).render(title=title, lead=lead, sections=sections)


def paragraph(text: str) -> Block:
    return Markup("<p>{}</p>").format(text)


def coloured(text: str, good: bool) -> Block:
    return Markup('<span class="{}">{}</span>').format("good" if good else "bad", text)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Block:
    """Rows of text, numbers (aligned right) or blocks under a header."""
    return Markup(templates.from_string(TABLE).render(header=header, rows=rows, kind=""))


def strip(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Block:
    """A table of images: cells are `thumbnail` blocks or short text."""
    return Markup(templates.from_string(TABLE).render(header=header, rows=rows, kind="images"))


def thumbnail(image: np.ndarray | None, title: str = "", side: int = 96) -> Block:
    """uint8 (H, W, 3) shown at `side` pixels, kept at twice that at most; `title` appears under the pointer."""
    if image is None:
        return Markup("–")
    small = Image.fromarray(image)
    small.thumbnail((2 * side, 2 * side), Image.Resampling.LANCZOS)
    height = round(side * small.height / small.width)  # known before it is loaded: nothing jumps
    return Markup('<img src="{}" width="{}" height="{}" alt="{title}" title="{title}" loading="lazy">').format(
        data_uri(small, "WEBP"), side, height, title=title
    )


def picture(image: np.ndarray | Image.Image | bytes, caption: str = "") -> Block:
    """An image (or PNG bytes) at its own size with a caption."""
    if isinstance(image, bytes):
        source = "data:image/png;base64," + base64.b64encode(image).decode()
    else:
        source = data_uri(image if isinstance(image, Image.Image) else Image.fromarray(image), "PNG")
    html = Markup('<figure><img src="{}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    return html.format(source, caption=caption)


def data_uri(image: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 85, "method": 4} if kind == "WEBP" else {}))
    return f"data:image/{kind.lower()};base64," + base64.b64encode(out.getvalue()).decode()


def plot(draw: Callable[[Any], None], width: float = 6, height: float = 4) -> bytes:
    """PNG bytes of a matplotlib figure of `width` by `height` inches: `draw(axes)` fills it. No display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int = 96,
) -> Image.Image:
    """Images (uint8 (H, W, 3); None leaves a gap) in rows and columns of `cell` pixels, labels left and on top."""
    gap, left, top = 2, 90 if row_labels else 0, 18 if column_labels else 0
    columns = max((len(row) for row in rows), default=0)
    sheet = Image.new("RGB", (left + columns * (cell + gap) + gap, top + len(rows) * (cell + gap) + gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, label in enumerate(row_labels):
        pen.text((4, top + gap + i * (cell + gap) + cell / 2), label, "black", font, anchor="lm")
    for j, label in enumerate(column_labels):
        pen.text((left + gap + j * (cell + gap) + cell / 2, top / 2), label, "black", font, anchor="mm")
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            if image is not None:
                sheet.paste(fitted(image, cell), (left + gap + j * (cell + gap), top + gap + i * (cell + gap)))
    return sheet


def fitted(image: np.ndarray, cell: int) -> Image.Image:
    """The image in a white square of `cell` pixels, its proportions kept."""
    scale = cell / max(image.shape[:2])
    sides = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = Image.fromarray(image).resize(sides, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (cell, cell), "white")
    square.paste(small, ((cell - small.width) // 2, (cell - small.height) // 2))
    return square
