"""What runs of a pair give: the model scored on what the guide drew, and how many data there are."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.handlers import masked_filled
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


def labelled(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)


def plain_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_programs_and_data_of_unlike_number_are_named():
    with pytest.raises(InputError, match=r"the model takes 2 arguments \(x, y\), the data have 1"):
        plain_traces(masked_filled(labelled), plain_guide, (torch.zeros(5),))
    with pytest.raises(InputError, match=r"the guide takes 1 arguments \(x\), the data have 2"):
        plain_traces(labelled, plain_guide, (torch.zeros(5), torch.zeros(5)))


def test_a_programs_own_type_error_stays_its_own():
    def wrong(x):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        plain_traces(wrong, plain_guide, (torch.zeros(5),))


def test_rows_that_one_program_draws_are_named():
    def drawing(x):
        with pyro.plate("data", 1000, subsample_size=10):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(InputError, match=r"plate 'data' draws its own rows \(subsample_size=10 of 1000\)"):
        plain_traces(drawing, plain_guide, (torch.zeros(97),))


def test_a_table_among_the_arguments_is_named():
    def by_class(x, labels, table):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + table[labels], 1.0), obs=x)

    args = torch.zeros(2), torch.tensor([4, 1]), torch.zeros(2)
    with pytest.raises(InputError, match=r"does not run on a block of 2 rows: .* the first dimension of each must be"):
        plain_traces(by_class, lambda x, *_: plain_guide(x), args)
