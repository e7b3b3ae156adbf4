"""What a page says of a public name."""

import pyrovae as pv
from pyrovae.reports.html.reference import Theme, entries, entry, part, reference


def test_a_function_has_its_arguments_formula_and_source():
    found = entry("pv.evaluate", pv.evaluate)
    assert found.signature.startswith("(model, guide, data, *, ") and "num_particles=1000" in found.signature
    assert found.about and "``" not in found.about and ":func:" not in found.about
    assert "Burda" in entry("pv.surgery", pv.surgery).source + found.source + part(pv.gaps.__doc__, "References")


def test_a_class_has_its_methods():
    found = entry("pv.Report", pv.Report)
    assert {"pareto_k_threshold", "routes", "table"} <= {one.name for one in found.members} or found.members
    assert all(one.about for one in found.members) and found.signature == ""


def test_formulas_are_pictures():
    assert entry("pv.VAE", pv.VAE).formulas and "<svg" in entry("pv.VAE", pv.VAE).formulas[0]


def test_a_name_without_a_docstring_is_left_out():
    assert [one.name for one in entries([("a", pv.fit), ("b", lambda: 1)])] == ["a"]


def test_the_page_holds_themes_and_choices():
    theme = Theme("one", "One <theme>", "About it.", entries([("pv.fit", pv.fit)]), [("vamp[:n]", "a & b", "X (2000)")])
    text = reference([theme], title="Reference")
    for told in ("One &lt;theme&gt;", "About it.", "pv.fit", "vamp[:n]", "a &amp; b", "X (2000)"):
        assert told in text
    assert "<script" not in text
