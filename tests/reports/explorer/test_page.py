"""The page as a file: packed arrays, text that cannot end its script, and nothing from elsewhere."""

import base64
import json
import re

import numpy as np

from pyrovae.reports.explorer.page import num_bytes, packed, page, written

SCENE = {
    "title": "a </script> & b",
    "values": np.array([[1.5, 2.0]]),
    "shades": np.array([7], np.uint8),
    "worst": np.inf,
}


def test_arrays_are_packed_and_what_is_not_finite_is_null():
    found = packed(SCENE)
    assert found["values"]["shape"] == [1, 2] and found["worst"] is None
    assert np.frombuffer(base64.b64decode(found["values"]["base64"]), "<f4").tolist() == [1.5, 2.0]
    assert found["shades"] == {"type": "u1", "shape": [1], "base64": "Bw=="}
    assert num_bytes([SCENE, (np.zeros(300),)]) == round(8 * 4 / 3) + 1 + 1600


def test_the_page_is_whole_and_asks_for_nothing(tmp_path):
    text = page(SCENE)
    assert "@@" not in text and "<title>a &lt;/script&gt; &amp; b</title>" in text
    scene = re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S)[1]
    assert json.loads(scene)["title"] == SCENE["title"]
    assert not re.search(r"https?://|src=|@import|url\(", text)
    assert written(SCENE, tmp_path / "page.html") == len((tmp_path / "page.html").read_bytes())
