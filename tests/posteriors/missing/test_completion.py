"""The record of completed data: what its table holds, what it says, and that it comes back from files."""

import pytest
import torch

from pyrovae.posteriors.missing.completion import Completion


def test_the_table_has_a_row_for_each_datum(problem, completions):
    table = completions["narrow"].table()
    assert set(table) >= {"num_missing", "route", "log_evidence_observed", "pareto_k", "ess", "log_density"}
    assert table["num_missing"].tolist() == (~problem.observed[:60]).sum(1).tolist()
    frame = completions["narrow"].to_dataframe()
    assert len(frame) == 60 and set(frame["route"]) <= {*completions["narrow"].route}


def test_the_summary_says_how_reliable_it_is(completions):
    said = completions["narrow"].summary()
    for words in ("of 360 entries missing", "log p(x_o)", "log p(x_m | x_o)", "per entry", "unreliable draws"):
        assert words in said
    assert completions["narrow"].to_dict()["fraction_unreliable"] == 0


@pytest.mark.parametrize("method", ["auto", "gibbs"])
def test_it_comes_back_from_files(completions, by_chains, tmp_path, method):
    found = {"auto": completions["narrow"], "gibbs": by_chains}[method]
    found.save(tmp_path / "found.json")
    again = Completion.load(tmp_path / "found.json")
    assert torch.equal(again.draws, found.draws) and torch.equal(again.observed, found.observed)
    assert again.summary() == found.summary()
