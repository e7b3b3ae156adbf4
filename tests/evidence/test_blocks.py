"""The loop over blocks: its seeds, its words for a shortage, what an interrupt leaves, and the pair as it was."""

import subprocess
import sys
import warnings
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError, Interrupted
from pyrovae.base.random import preserve_rng_state, seed_everything
from pyrovae.data.split import as_split
from pyrovae.evidence import plan as planning
from pyrovae.evidence.blocks import Blocks, Pair, block_by_block
from pyrovae.pairs.context import Scoped, double_precision

X = torch.arange(7.0)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def measured(work, *, pair=(model, guide), num_data=7, batch_size=3, record=lambda done, _: done):
    """What ``work(pair, block)`` gives for each block."""
    blocks = Blocks(num_data, batch_size, ("test", 4), memory="{num_data} data at once: lower batch_size")
    begin = lambda pair: lambda block: work(pair, block)  # noqa: E731
    return block_by_block(*pair, blocks, begin, record, plate=None, progress=False)


def test_blocks_are_all_rows_in_order():
    rows = [(0, slice(0, 3), 3), (1, slice(3, 6), 3), (2, slice(6, 7), 1)]
    assert measured(lambda _, block: (block.index, block.rows, block.num_data)) == rows
    by_device = measured(lambda _, block: block.num_data, batch_size=lambda pair: {"cpu": 4}[pair.device.type])
    assert by_device == [4, 3]


def test_noise_is_by_the_number_of_the_block_whatever_came_before():
    draws = measured(lambda _, block: torch.rand(2))
    greedy = measured(lambda _, block: (torch.rand(2), torch.rand(50 * (block.index + 1)))[0])
    for index, (drawn, other) in enumerate(zip(draws, greedy, strict=True)):
        with preserve_rng_state():
            seed_everything("test", 4, index)
            assert torch.equal(drawn, other) and torch.equal(drawn, torch.rand(2))
    assert len({tuple(drawn.tolist()) for drawn in draws}) == 3


def interrupting(at):
    def work(_, block):
        if block.index == at:
            raise KeyboardInterrupt
        return block.rows

    return work


def test_an_interrupt_keeps_the_record_of_the_blocks_before():
    with pytest.raises(KeyboardInterrupt, match="what was done is kept") as caught:
        measured(interrupting(at=1), record=lambda done, pair: (list(done), pair.plate))
    assert isinstance(caught.value, Interrupted) and caught.value.partial == ([slice(0, 3)], None)


def test_an_interrupt_of_the_first_block_has_nothing_to_keep():
    with pytest.raises(KeyboardInterrupt) as caught:
        measured(interrupting(at=0))
    assert not isinstance(caught.value, Interrupted)


def test_a_shortage_of_memory_names_the_data_of_its_block():
    def work(_, block):
        if block.index == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match="not enough memory for 1 data at once: lower batch_size"):
        measured(work)


class Noisy(nn.Module):
    """Its encoder is in training, but for one part that is not."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.Dropout())
        self.encoder[2].eval()

    def modes(self):
        return [part.training for part in self.modules()]

    def guide(self, x):
        scale = pyro.param("scale", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x[:, None])[:, 0], scale))


@pytest.mark.parametrize("at", [None, 1], ids=["done", "interrupted"])
def test_programs_are_unwrapped_and_all_else_is_put_back(at):
    noisy = Noisy()
    scope = {"params": {}, "constraints": {}}
    with pyro.get_param_store().scope(scope):
        pyro.param("scale", torch.tensor(2.0))
    wrapped = Scoped(model, scope), Scoped(noisy.guide, scope)
    before, state, seen = noisy.modes(), torch.get_rng_state(), []

    def work(pair, block):
        seen.append((pair.model, pair.guide, pair.device, any(noisy.modes()), torch.is_grad_enabled()))
        assert pyro.param("scale") == 2
        pair.particles((X[block.rows],))
        return interrupting(at)(pair, block)

    if at is None:
        assert len(measured(work, pair=wrapped)) == 3
    else:
        with pytest.raises(KeyboardInterrupt, match="what was done is kept"):
            measured(work, pair=wrapped)
    assert set(seen) == {(model, noisy.guide, torch.device("cpu"), False, False)}
    assert noisy.modes() == before and len(set(before)) == 2
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert torch.distributions.Distribution._validate_args
    assert scope["params"]["scale"] == 2 and not list(pyro.get_param_store().keys())


def test_the_way_is_found_once_for_blocks_of_a_size_and_the_slowest_is_told():
    pair = Pair(model, guide, torch.device("cpu"), None)
    with preserve_rng_state():
        assert pair.particles((X[:3],)).strategy == pair.strategy == "vectorized"
        assert pair.particles((X[3:6],)).num_data == 3 and pair.strategies == {3: "vectorized"}
        assert pair.particles((X[6:],), strategy="looped").num_data == 1
        assert pair.latents((X[:3],)).particles.strategy == "vectorized"
    assert pair.strategies == {3: "vectorized", 1: "looped"} and pair.strategy == "looped"
    assert pair.measure == {"x": "density"}


TEXT = """
import resource, sys
import pyro, pyro.distributions as dist, torch
from torch import nn
import pyrovae as pv
from pyrovae.data.split import as_split
from pyrovae.evidence.blocks import Pair

torch.manual_seed(0)
length, vocabulary = 20, 20_000
x, out = torch.randint(vocabulary, (100, length)), nn.Linear(4, vocabulary)

def model(x):
    with pyro.plate("data", len(x)):
        logits = out(pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1)))
        each = logits.unsqueeze(-2).expand(*logits.shape[:-1], length, vocabulary)
        pyro.sample("x", dist.Categorical(logits=each).to_event(1), obs=x)

def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :4] / vocabulary, 1.0).to_event(1))

pair = Pair(model, guide, torch.device("cpu"), None)
pair.weigh_rows(as_split(x))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pv.evaluate(model, guide, x, num_particles=4, method="importance", progress=False)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(pair.rows(100), (after - before) * (1 if sys.platform == "darwin" else 1024))
"""


def test_what_is_wide_inside_takes_few_data_and_little_memory():
    done = subprocess.run([sys.executable, "-c", TEXT], capture_output=True, text=True, check=True)
    rows, taken = map(int, done.stdout.split())
    assert rows == 20  # of 1.6 MB of logits each, in four runs, in 151 MB
    assert taken < 500e6  # 100 data at once would take several times as much


def test_rows_of_programs_like_the_usual_stay():
    oracle = pv.oracles.ppca(20, 2)
    pair = Pair(oracle.model, oracle.guide, torch.device("cpu"), None)
    pair.weigh_rows(as_split(oracle.draw(3, seed=0)[0]))
    assert 0 < pair.row_growth < 10_000 and pair.rows(100) == 100
    exact, enough = pair.row_growth, pair.enough(100)
    pair.weigh_rows(as_split(oracle.draw(3, seed=0)[0]), enough=enough)
    assert exact < pair.row_growth <= enough and pair.rows(100) == 100  # a bound, which is enough


def test_programs_that_take_no_fewer_rows_are_not_weighed():
    oracle = pv.oracles.ppca(20, 2)

    def of_five(x):
        assert len(x) == 5
        oracle.model(x)

    pair = Pair(of_five, oracle.guide, torch.device("cpu"), None)
    pair.weigh_rows(as_split(oracle.draw(5, seed=0)[0]))
    assert pair.row_growth == 0 and pair.rows(100) == 100


def by_param(x):
    def guide(x):
        loc = pyro.param("loc", lambda: x / 2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.5**0.5))

    return guide


MADE = {"auto": lambda x: AutoNormal(model), "messenger": lambda x: AutoNormalMessenger(model), "param": by_param}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
@pytest.mark.parametrize("num_data", [2, 60, 150])
def test_what_guides_make_of_their_first_data_is_of_a_whole_block(made, num_data, monkeypatch):
    monkeypatch.setitem(planning.DATA_AT_ONCE, "cpu", 1000)
    x, found = torch.randn(num_data, generator=torch.Generator().manual_seed(0)), []
    for batch_size in (None, num_data):  # rows are weighed where no size is given
        torch.manual_seed(len(found))
        report = pv.evaluate(model, made(x), x, num_particles=5, batch_size=batch_size, progress=False)
        found.append(report.elbo)
    assert torch.equal(*found)
    assert not list(pyro.get_param_store().keys())


def test_a_first_run_without_enough_memory_is_told():
    def full(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for num_data in (1, 2, 100, 200):
        with pytest.raises(InputError, match=r"not enough memory for one particle of .* data: lower batch_size"):
            pv.evaluate(model, full, torch.zeros(num_data), num_particles=2, progress=False)


def test_rows_are_weighed_in_the_precision_that_they_are_run_in():
    net, x = nn.Linear(2, 50), torch.randn(300, 2)

    def wide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(net(x).sum(-1) + z, 1.0), obs=x[:, 0])

    def narrow(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 1.0))

    found = {}
    for double in (False, True):
        pair = Pair(wide, narrow, torch.device("cpu"), None)
        with double_precision(wide, narrow) if double else nullcontext():
            pair.weigh_rows(as_split(x), double=double)
        found[double] = pair.row_growth
    assert 0 < 1.5 * found[False] < found[True]


def test_lazy_modules_are_drawn_by_the_seed():
    x = torch.ones(200, 3)
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        net = nn.LazyLinear(1)

        def lazy(x, net=net):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(net(x)[:, 0], 1.0))

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

        found.append(pv.evaluate(model, lazy, x, num_particles=50, progress=False).elbo)
    assert torch.equal(*found)


MEASUREMENTS = {
    "evaluate": lambda pair, x: pv.evaluate(*pair, x, num_particles=10, progress=False),
    "convergence": lambda pair, x: pv.convergence(*pair, x, num_particles=10, progress=False),
    "gaps": lambda pair, x: pv.gaps(*pair, x, num_particles=10, num_steps=1, progress=False),
    "annealed": lambda pair, x: pv.annealed_evidence(*pair, x, num_temperatures=2, num_chains=2, progress=False),
    "surgery": lambda pair, x: pv.surgery(*pair, x, progress=False),
    "calibrate": lambda pair, x: pv.calibrate(*pair, x, num_simulations=5, num_draws=5, num_particles=5),
    "reference": lambda pair, x: pv.reference_posterior(*pair, x[:1], method="resampled", num_draws=5),
}


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_warnings_point_at_the_line_that_measures(measurement):
    """However deep inside the package digits are found lost."""

    def coarse(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(1e6 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 1e6, 1e-3))

    x = 1e6 * torch.linspace(-1, 1, 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MEASUREMENTS[measurement]((coarse, guide), x)
    assert pv.LostDigits in {one.category for one in caught} and {one.filename for one in caught} == {__file__}
