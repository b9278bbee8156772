"""Pages are one file, safe from the text put into them, and equal for equal inputs."""

import io
import re

import numpy as np
from PIL import Image

from iy import report

RED = np.full((40, 30, 3), [200, 0, 0], np.uint8)


def test_a_page_is_self_contained_and_escapes_what_it_is_given():
    blocks = [
        report.paragraph("a < b"),
        report.table(["name", "n"], [["<script>alert(1)</script>", 3]]),
        report.strip(["reference"], [[report.thumbnail(RED, 'say "hi"')]]),
        report.picture(RED, "red"),
    ]
    html = report.page("T & T", [("One", blocks)], lead="why <not>")
    assert "<script>" not in html and "&lt;script&gt;" in html and "a &lt; b" in html and "T &amp; T" in html
    assert '<td class="number">3</td>' in html
    assert not re.search(r'(?:src|href)="(?!data:|#)', html), "nothing is fetched from elsewhere"


def test_pages_and_plots_are_the_same_every_time():
    def draw(axes):
        axes.plot([0, 1], [1, 0])

    def html():
        return report.page("t", [("s", [report.picture(report.plot(draw))])])

    assert report.plot(draw) == report.plot(draw) and html() == html()


def test_a_grid_puts_images_where_they_belong():
    blue = np.full((10, 10, 3), [0, 0, 250], np.uint8)
    sheet = np.asarray(report.grid([[RED, None], [None, blue]], ["a", "b"], ["x", "y"], cell=40))
    assert sheet.shape == (18 + 2 * 42 + 2, 90 + 2 * 42 + 2, 3)
    assert sheet[18 + 2 + 20, 90 + 2 + 20].tolist() == [200, 0, 0]
    assert sheet[18 + 44 + 20, 90 + 44 + 20].tolist() == [0, 0, 250]
    assert sheet[18 + 2 + 20, 90 + 44 + 20].tolist() == [255, 255, 255], "None leaves a gap"


def test_an_image_survives_its_data_uri():
    import base64

    uri = report.data_uri(Image.fromarray(RED), "PNG")
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))) == RED).all()
