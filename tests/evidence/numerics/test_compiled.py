"""A replayed draw is the draw itself: same noise, same tallies; what no graph can hold is refused."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.kernels import in_kernels
from examples.many_latents import DTYPES, GROUPS, make_pair, make_points
from torch import nn
from torch.func import functionalize

import pyrovae as pv
from pyrovae.base.random import seed_everything
from pyrovae.evidence import plan as planning
from pyrovae.evidence.numerics import compiled
from pyrovae.evidence.numerics.compiled import Replayed, apart
from pyrovae.evidence.numerics.running_sums import tally
from pyrovae.pairs.context import isolated
from pyrovae.pairs.graphs.graph import compiler_missing, trace
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.pairs.particles import Particles

K, N = 6, 5
compiles = pytest.mark.skipif(bool(compiler_missing(torch.device("cpu"))), reason="no C++ compiler")


def images(seed=0, rows=N):
    return torch.rand(rows, 12, generator=torch.Generator().manual_seed(seed)).round()


def vae(family, size=12):
    return pv.VAE(
        prior=pv.priors.StandardNormal(3),
        decoder=pv.Conditional(family, size, pv.networks.mlp(3, 8)),
        encoder=pv.Conditional(pv.families.normal(), 3, pv.networks.mlp(size, 8)),
    )


def discrete():
    logits = nn.Parameter(torch.linspace(-1, 1, 12))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.4)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=logits + z.sum(-1, keepdim=True)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=x[:, :3] - 0.3).to_event(1))

    return model, guide


def two_latents():
    net = nn.Linear(12, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 0.5))
            pyro.sample("x", pv.families.bernoulli().build(1, b[..., None].expand(*b.shape, 12)), obs=x)

    def guide(x):
        loc = net(x)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(loc[:, 0], 0.8))
            pyro.sample("b", dist.Normal(a + loc[:, 1], 0.6))

    return model, guide


def pair_of(program):
    return program.model, program.guide


PAIRS = {
    "bernoulli": lambda: pair_of(vae(pv.families.bernoulli())),
    "normal": lambda: pair_of(vae(pv.families.normal())),
    "discrete": discrete,
    "two latents": two_latents,
    "float64": lambda: pair_of(pv.oracles.ppca(12, 3)),
}
WAYS_OF_GRAPHS = ("vectorized", "tiled")


def draw_of(model, guide, way="vectorized"):
    """The draw of a pair inside ``isolated``: data -> tables."""
    particles = Particles(model, guide, [images()], strategy=way)
    return lambda *data: particles.on(data).log_terms(K)


@compiles
@pytest.mark.parametrize("way", WAYS_OF_GRAPHS)
@pytest.mark.parametrize(("name", "graphs"), in_kernels("discrete", of=PAIRS), indirect=["graphs"])
def test_a_replay_draws_what_the_programs_draw(name, graphs, way):
    model, guide = PAIRS[name]()
    x, other = images(), images(1)
    with isolated(model, guide) as (model, guide, _):
        draw = draw_of(model, guide, way)
        replayed = Replayed(draw, x)
        for data in (x, other):
            replay = replayed.of(data)
            for seed in range(2):
                seed_everything("evaluation", seed)
                expected = tally(draw(data))
                seed_everything("evaluation", seed)
                for a, b in zip(replay(), expected, strict=True):
                    assert a.dtype == b.dtype
                    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@compiles
@pytest.mark.usefixtures("graphs_as_traced")
@pytest.mark.parametrize(
    "family", [dist.Normal, lambda loc, scale: dist.Exponential(scale)], ids=["normal", "exponential"]
)
def test_a_draw_into_empty_memory_is_no_write(family, monkeypatch):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", family(torch.zeros(3), 1.5 * torch.ones(3)).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([*z.shape[:-1], 12]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(x[:, :3], torch.ones(3)).to_event(1))

    traced = []
    monkeypatch.setattr(compiled, "trace", lambda *given: traced.append(trace(*given)) or traced[-1])
    with isolated(model, guide) as (model, guide, _):
        Replayed(draw_of(model, guide), images())  # which compares it with the programs at the same noise
    assert len(traced) == 1


@compiles
def test_the_weights_of_a_fit_are_read_at_each_replay():
    own = vae(pv.families.bernoulli())
    with isolated(own.model, own.guide) as (model, guide, _):
        draw = draw_of(model, guide)
        replayed = Replayed(draw, images())
        own.load_state_dict({name: 2 * value for name, value in own.state_dict().items()})
        seed_everything("evaluation", 3)
        expected = tally(draw(images())).log_weight
        seed_everything("evaluation", 3)
        torch.testing.assert_close(replayed.of(images())().log_weight, expected, rtol=1e-5, atol=1e-4)


@compiles
def test_a_density_that_is_not_finite_is_told():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("f", torch.where(x[:, 0] > 5, torch.nan, 0.0) * z)
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 12]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0] * 0.1, 1.0))

    bad = images()
    bad[1, 0] = 6.0
    with isolated(model, guide) as (model, guide, _):
        replayed = Replayed(draw_of(model, guide), images())
        assert replayed.of(images())() is not None and replayed.of(bad)() is None
        assert Replayed(draw_of(model, guide), bad).of(images())() is not None  # the first data may be the bad ones


# ---------------------------------------------------------------------------------------- what is refused


def refused(model, guide, message):
    with isolated(model, guide) as (model, guide, _), pytest.raises(Untraceable, match=message):
        Replayed(draw_of(model, guide), images())


def test_programs_that_look_at_values():
    model, guide = two_latents()

    def looking(x):
        if x.sum() > 0:
            guide(x)

    refused(model, looking, r"test_compiled.py, line \d+ \(if x.sum\(\) > 0:\)")


@compiles
def test_programs_that_change_from_run_to_run():
    model, guide = two_latents()
    calls = []

    def changing(x):
        calls.append(1)
        return guide(x + len(calls))

    refused(model, changing, "change from run to run")


def test_programs_that_write_into_their_own_tensors():
    model, guide = two_latents()
    counter = torch.zeros(())

    def counting(x):
        counter.add_(1)
        return guide(x)

    refused(model, counting, "write into a tensor of their own|aten.add_")


# --------------------------------------------------------------------------------------------- two graphs


def names(graph):
    return [str(node.target) for node in graph.module.graph.nodes if node.op == "call_function"]


def test_the_encoder_runs_once_for_a_block_of_data():
    own = vae(pv.families.bernoulli())
    with isolated(own.model, own.guide) as (model, guide, _):
        draw = draw_of(model, guide)
        whole = trace(functionalize(lambda *data: tuple(tally(draw(*data)))), images())
        before, rest = apart(whole)
        assert [sum("addmm" in name for name in names(part)) for part in (before, rest)] == [2, 2]
        assert not any("normal" in name for name in names(before))
        seed_everything("evaluation", 1)
        expected = whole(images(2))
        kept = before(images(2))
        assert max(tensor.numel() for tensor in kept) < K * N * 12  # nothing of size K N D
        seed_everything("evaluation", 1)
        assert all(torch.equal(a, b) for a, b in zip(rest(*kept), expected, strict=True))


def test_without_noise_nothing_is_left():
    before, rest = apart(trace(lambda x: (x * 2 + 1,), torch.ones(3)))
    assert torch.equal(rest(*before(torch.ones(3)))[0], torch.full((3,), 3.0)) and names(rest) == []


# ------------------------------------------------------------------------------------------- families of latents


@compiles
@pytest.mark.parametrize(("group", "graphs"), in_kernels(of=GROUPS), indirect=["graphs"])
def test_latents_of_all_families_are_evaluated_alike(group, graphs):
    """As guides and as priors; at the same noise, to rounding."""
    dtype = DTYPES.get(group, torch.float32)
    pair, x = make_pair(GROUPS[group], dtype), make_points(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.base.errors.UntrustedEvidence)
        eager, compiled = (
            pv.evaluate(*pair, x, num_particles=60, compile=choice, progress=False) for choice in (False, True)
        )
    tolerance = 1e-3 if dtype == torch.float32 else 1e-7
    equal = torch.isclose(eager.elbo, compiled.elbo, rtol=tolerance, atol=tolerance)
    assert equal.double().mean() > 0.98  # rounding may turn a draw of a class


def test_draws_by_rejection_are_refused_by_their_line(monkeypatch):
    message = r"site 'angle' \(VonMises\), many_latents.py, line \d+ .*: the value of a tensor decides"
    pair, x = make_pair(["angle"]), make_points()
    with pytest.raises(pv.InputError, match=message):
        pv.evaluate(*pair, x, num_particles=30, compile=True)
    monkeypatch.setattr(planning, "REPAID", 0)
    monkeypatch.setattr(planning, "compiler_missing", lambda device: None)
    with pytest.warns(pv.base.errors.NotCompiled, match=message):
        pv.evaluate(*pair, x, num_particles=30)
