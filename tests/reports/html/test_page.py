"""The report as a page: what stands in it, in which order, and that a browser finds nothing to ask for."""

import re

import pytest
from examples.browser import opened
from examples.pages import read

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.reports.html.page import LARGEST, Subject, best_of, page

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(6, 2)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(40, seed=0)[0]


@pytest.fixture(scope="module")
def records(oracle, x):
    pair = (oracle.model, oracle.mean_field_guide(0.7, 0.3))
    return [
        pv.surgery(*pair, x, **QUIET),
        pv.gaps(*pair, x[:10], num_particles=30, num_steps=20, **QUIET),
        pv.evaluate(*pair, x, num_particles=200, **QUIET),
    ]


@pytest.fixture(scope="module")
def two(oracle, x, records):
    better = pv.evaluate(oracle.model, oracle.guide, x, num_particles=200, **QUIET)
    return {"poor <guide>": records, "exact": [better]}


@pytest.fixture(scope="module")
def text(two):
    subjects = [Subject(name, each) for name, each in two.items()]
    facts = {"facts": {"data": "a & b"}, "commands": ["pyrovae fit --out 'runs/a b'"]}
    subjects[0] = subjects[0]._replace(**facts, missing={"calibration": "pyrovae calibrate runs/a"})
    return page(subjects, title="Two <pairs>")


def test_a_page_is_whole_and_every_link_leads_somewhere(text):
    reader = read(text)
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.targets and set(reader.targets) <= set(reader.ids)
    assert reader.svgs == reader.texts > 5
    assert len(text.encode()) < LARGEST


def test_nothing_in_it_is_elsewhere_and_nothing_runs(text):
    assert "<script" not in text and "javascript:" not in text and "@import" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|url\((?!#)[^)]*\)', text)


def test_names_are_escaped(text):
    assert "Two &lt;pairs&gt;" in text and "poor &lt;guide&gt;" in text and "<pairs>" not in text
    assert "a &amp; b" in text and "runs/a b" in text


def test_sections_stand_in_the_order_of_a_reader(text):
    ids = read(text).ids
    wanted = ["all", "all-comparison", "p1", "p1-account", "p1-gaps", "p1-surgery", "p1-protocol", "p1-missing"]
    wanted += ["p1-again", "p2", "p2-account"]
    assert [one for one in ids if one in wanted] == wanted


def test_findings_are_ranked_and_lead_to_their_sections(text):
    first = text.index('<h2 id="p1">')
    found = re.findall(
        r'class="nats[^"]*">([^<]*)</span>\s*<a href="#([^"]*)">', text[first : text.index('<h2 id="p2">')]
    )
    numbers = [0.0 if told.startswith("less") else float(told.split()[0]) for told, _ in found if told != "–"]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) > 4
    assert {section for _, section in found} >= {"p1-account", "p1-gaps", "p1-surgery"}


def test_pairs_of_the_same_rows_are_compared(text, two):
    table = pv.compare({name: each[-1] for name, each in two.items()})
    assert f"{table.rows[1].difference:.3f}" in text
    assert "No paired differences" not in text


def test_pairs_of_other_rows_say_why_they_are_not(oracle, x, records):
    other = pv.evaluate(oracle.model, oracle.guide, x[:20], num_particles=50, **QUIET)
    told = page([Subject("one", records), Subject("other", [other])])
    assert "No paired differences" in told and "they were evaluated on 40 and 20 data" in told


def test_the_best_report_is_shown(oracle, x):
    pair = (oracle.model, oracle.mean_field_guide(0.7, 0.3))
    poor, better = (pv.evaluate(*pair, x, num_particles=k, method="importance", **QUIET) for k in (30, 3000))
    assert best_of([poor, better]) is better and best_of([]) is None
    assert page([Subject("", [poor, better])]).count('id="p1-account"') == 1


def test_a_page_is_written_whole(records, tmp_path):
    pv.report(records[-1], tmp_path / "new" / "page.html", title="One")
    text = (tmp_path / "new" / "page.html").read_text()
    assert text.startswith("<!DOCTYPE html>") and "<h1>One</h1>" in text
    pv.report({"a": records[-1], "b": records}, tmp_path / "two.html")
    assert 'id="p2-gaps"' in (tmp_path / "two.html").read_text()


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ([], "page.html", "expected at least one record"),
        ({}, "page.html", "a page needs a record"),
        ([3], "page.html", "expected records or a fit, got a int"),
        (None, "page.txt", "ends in .html"),
    ],
)
def test_what_is_no_page(given, path, message, tmp_path, records):
    with pytest.raises(InputError, match=re.escape(message)):
        pv.report(records if given is None else given, tmp_path / path)


def test_a_browser_opens_it_without_a_request_or_a_complaint(text, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(text)
    found = opened(path, tmp_path)
    assert found.requests == set() and found.complaints == []
    assert found.dom.count("<svg") == text.count("<svg") and "Two &lt;pairs&gt;" in found.dom
    path.write_text(
        text.replace("</body>", "<img src='http://127.0.0.1:9/x.png'><script>console.error(1)</script></body>")
    )
    spoiled = opened(path, tmp_path)
    assert spoiled.requests == {"http://127.0.0.1:9/x.png"} and spoiled.complaints
