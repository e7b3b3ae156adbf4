"""What runs of a pair give: the model scored on what the guide drew, and how many data there are."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.pairs.traces import num_rows, plain_traces, sites


def model(x):
    with pyro.plate("data", 20, subsample_size=len(x)):
        pyro.deterministic("constant", torch.tensor(1.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", 20, subsample_size=len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_plain_traces_score_the_model_on_what_the_guide_drew():
    model_trace, guide_trace = plain_traces(model, guide, (torch.zeros(5),))
    assert model_trace.nodes["z"]["value"] is guide_trace.nodes["z"]["value"]
    assert (list(sites(model_trace)), list(sites(guide_trace))) == (["z", "x"], ["z"])


@pytest.mark.parametrize("args", [(torch.zeros(4, 2),), ("option", torch.tensor(1.0), torch.zeros(4), torch.zeros(3))])
def test_num_rows(args):
    assert num_rows(args) == 4
