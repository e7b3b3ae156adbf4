"""How records are shown: what is drawn of each, the text beside it, its account."""

import pytest

import pyrovae as pv
from pyrovae.base.forms.tables import TextTable
from pyrovae.reports import figures
from pyrovae.reports.html.sections import SECTIONS, drawings, first_paragraph, joined, section_of

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def report():
    oracle = pv.oracles.ppca(6, 2)
    pair = (oracle.model, pv.widened(oracle.guide, 0.3, shift=1.0))
    return pv.evaluate(*pair, oracle.draw(40, seed=0)[0], num_particles=100, **QUIET)


def test_a_report_has_its_account_and_three_figures(report):
    section = section_of(report, "p1")
    assert section.key == "account" and len(section.pictures) == 3
    assert [type(block) for block in section.blocks].count(TextTable) == 2
    assert section.pictures[0].caption.startswith("How log p(x) comes about, a waterfall")
    assert section.pictures[0].caption.replace("&", "&amp;").replace("||", "||") in section.pictures[0].svg


def test_a_fit_has_its_curves():
    row = {"elbo": -3.0, "reconstruction": -2.0, "kl_prior": 1.0}
    section = section_of(pv.Fit(None, None, [{"epoch": e, **row} for e in (1, 2)]), "p1")
    assert section.key == "fit" and len(section.pictures) == 1 and section.blocks == ()


def test_figures_that_are_there_have_the_words_of_what_drew_them(report):
    (picture,) = drawings({"evidence_histogram": figures.evidence_histogram(report)}, "p1")
    assert picture.caption == first_paragraph(figures.evidence_histogram.__doc__)
    assert "<title>evidence histogram</title>" in picture.svg


def test_lines_between_tables_are_one_text():
    table = TextTable([("a", "<3", "")], [("b",)])
    assert joined(["one", "two", "", table, "", "three"]) == ["one\ntwo", table, "three"]


def test_keys_and_titles_are_words():
    for kind in SECTIONS.values():
        assert kind.key.isalpha() and kind.title and kind.about.endswith((".", "?"))
