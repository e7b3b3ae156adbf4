"""Commands that make a run and its records again give the same record of a fit, and the same numbers."""

import shlex

import pytest

import pyrovae as pv
from pyrovae.apps import cli, fit
from pyrovae.apps.commands.again import fit_command, measurement_command

GIVEN = {
    "plain": {"data": "digits"},
    "other numbers": {"data": "digits", "latent": 3, "hidden": [40, 20], "lr": 3e-4, "prior": "mixture:5", "seed": 7},
    "labels": {"data": "digits", "labels": True, "kl_warmup": 2.5, "patience": 4, "objective": "iwae:5"},
    "few labels": {"data": "digits", "semi_supervised": 100, "classifier_weight": 50.0},
    "a table": {"data": "a b.csv", "columns": "quality:ordinal", "covariates": "age", "standardize": False},
    "dequantized": {"data": "mnist", "dequantize": True, "schedule": "constant"},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_a_fit_command_parses_to_its_record(given):
    record = fit.record(**given)
    words = shlex.split(fit_command(record, "runs/a b"))
    assert words[:2] == ["pyrovae", "fit"] and words[-2:] == ["--out", "runs/a b"]
    parsed = vars(cli.parser().parse_args(words[1:]))
    again = fit.record(**{name: parsed[name] for name in fit.SETTINGS})
    assert again == record


def test_a_program_of_ones_own_is_named():
    record = fit.record(data="digits") | {"program": {"path": "mine.py", "sha256": "0"}, "prior": "vamp"}
    assert fit_command(record, "runs/mine") == "pyrovae fit mine.py --data digits --out runs/mine"


def test_a_report_is_measured_again(run, account, capsys):
    report = pv.runs.load_report(run)
    words = shlex.split(measurement_command(report, run, len(report)))
    assert words[:3] == ["pyrovae", "evaluate", str(run)] and "--num" not in words
    assert cli.main(words[1:]) == 0
    assert pv.runs.load_report(run).to_dict() == report.to_dict()


def test_parts_and_other_splits_are_said(run, account):
    report = pv.runs.load_report(run)
    assert f"--num {len(report)}" in measurement_command(report, run, 1000)
    assert measurement_command(pv.sample, run, 10) is None
