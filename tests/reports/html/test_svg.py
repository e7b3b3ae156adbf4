"""Figures inside a page: a text beside them, names of their own, colours that follow the page."""

import re
from xml.etree import ElementTree

import pytest

from pyrovae.reports.figures.style import BLUE, INK, new_figure
from pyrovae.reports.html.svg import inline


def drawn():
    figure, (axes,) = new_figure(4, 3)
    axes.plot([0, 1], [0, 1], color=BLUE, label="line")
    axes.axvline(0.5, color=INK)
    axes.imshow([[0, 1], [1, 0]], extent=(0, 1, 0, 1))
    axes.set(xlabel="a < b & c", title="log p(x)")
    axes.legend()
    return figure


@pytest.fixture(scope="module")
def svg():
    return str(inline(drawn(), name="p1-x", title="A <title>", about="What it & they show."))


def test_it_is_xml_with_a_text_alternative(svg):
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert root.attrib["role"] == "img"
    title, about = (root.find(f"{{http://www.w3.org/2000/svg}}{tag}").text for tag in ("title", "desc"))
    assert (title, about) == ("A <title>", "What it & they show.")


def test_texts_stay_texts(svg):
    assert ">log p(x)<" in svg and "a &lt; b &amp; c" in svg
    assert "font-family: var(--figure)" in svg and "DejaVu" not in svg


def test_ids_are_its_own_and_used(svg):
    ids, used = re.findall(r' id="([^"]*)"', svg), set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', svg))
    pointed = {one or other for one, other in used}
    assert set(ids) == pointed | {"p1-x"} and all(one.startswith("p1-x") for one in ids)


def test_ink_follows_the_page_and_colours_stay(svg):
    assert "var(--ink)" in svg and INK not in svg and "#000000" not in svg and "#ffffff" not in svg
    assert BLUE in svg


def test_nothing_is_fetched(svg):
    assert re.findall(r'href="(?!#|data:)', svg) == [] and "<metadata" not in svg and "http" not in svg


def test_the_same_figure_gives_the_same_bytes(svg):
    assert str(inline(drawn(), name="p1-x", title="A <title>", about="What it & they show.")) == svg
