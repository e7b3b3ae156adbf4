"""How a block is drawn: compiled or not, with the same numbers; in smaller blocks where memory runs out."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base import memory
from pyrovae.base.errors import InputError, NotCompiled
from pyrovae.evidence import importance as weighing
from pyrovae.evidence import plan as planning
from pyrovae.evidence.blocks import Block, Pair
from pyrovae.evidence.numerics.compiled import Replayed
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.context import isolated
from pyrovae.pairs.graphs.graph import compiler_missing
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.pairs.particles import STRATEGIES

ORACLE = pv.oracles.ppca(6, 2)
X, _ = ORACLE.draw(25, seed=1)
GUIDE = pv.widened(ORACLE.guide, 1.3, shift=0.3)
CPU = torch.device("cpu")
compiles = pytest.mark.skipif(bool(compiler_missing(CPU)), reason="no C++ compiler")


def evaluate(model=ORACLE.model, guide=GUIDE, x=X, **options):
    settings = {"num_particles": 50, "batch_size": 10, "progress": False, "method": "importance", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UntrustedEvidence)
        return pv.evaluate(model, guide, x, **settings)


def close(a, b, **tolerance):
    for name, column in a.table().items():
        torch.testing.assert_close(
            column, b.table()[name], equal_nan=True, msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


def of_fifty(**options):
    settings = {"num_particles": 50, "seed": 0, "batch_size": 100, "particle_batch": None, "plate": None}
    return Plan(**settings, vectorize=True, defensive=0.0, **options)


def small_pair():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 2.0).expand([*z.shape, 6]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 0.8))

    return model, guide


def test_the_table_of_weights_does_not_grow_with_the_particles(monkeypatch):
    tables, build = [], weighing.Totals

    def counted(num_particles, num_data):
        tables.append((num_particles, num_data))
        return build(num_particles, num_data)

    monkeypatch.setattr(weighing, "Totals", counted)
    for num_particles, batch_size in ((1000, None), (20_000, None), (20_000, 25)):
        evaluate(num_particles=num_particles, batch_size=batch_size)
    assert tables == [(1000, 25), *[(20_000, 10)] * 2, (20_000, 5), (20_000, 25)]


# ------------------------------------------------------------------------------------------------ compiled


@pytest.fixture
def replays(monkeypatch):
    """Particles of each graph that is made."""
    made, build = [], weighing.Replayed

    def counted(draw, *data):
        replayed = build(draw, *data)
        made.append(len(replayed.of(*data)().log_weight))
        return replayed

    monkeypatch.setattr(weighing, "Replayed", counted)
    return made


@compiles
@pytest.mark.parametrize(
    ("particle_batch", "graphs"), [(None, "kernels"), (20, "as traced"), (7, "as traced")], indirect=["graphs"]
)
def test_a_compiled_evaluation_is_the_evaluation(replays, particle_batch, graphs):
    eager = evaluate(*small_pair(), compile=False, particle_batch=particle_batch)
    assert replays == []
    compiled = evaluate(*small_pair(), compile=True, particle_batch=particle_batch)
    close(compiled, eager, rtol=1e-9, atol=1e-9)
    assert replays == {None: [50], 20: [20, 10], 7: [7]}[particle_batch]  # one particle left over is not worth a graph


@compiles
def test_the_evidence_of_a_network_agrees_to_float32():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.bernoulli(), 30, pv.networks.mlp(2, 8)),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp(30, 8)),
    )
    x = torch.rand(15, 30, generator=torch.Generator().manual_seed(0)).round()
    runs = [evaluate(vae.model, vae.guide, x, compile=choice) for choice in (True, False)]
    for name in ("log_evidence", "elbo", "reconstruction", "kl_prior"):
        torch.testing.assert_close(getattr(runs[0], name), getattr(runs[1], name), rtol=1e-5, atol=1e-5)


@compiles
def test_nothing_is_left_behind():
    state = torch.get_rng_state()
    evaluate(*small_pair(), compile=True)
    assert torch.equal(torch.get_rng_state(), state) and not pyro.get_param_store().keys()


BAD = {
    "word": ({"compile": "yes"}, "compile is True, False or \"auto\", got 'yes'"),
    "defensive": ({"compile": True, "defensive": 0.1}, "compile=True takes neither defensive= nor vectorize=False"),
    "one by one": ({"compile": True, "vectorize": False}, "compile=True takes neither defensive= nor vectorize=False"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_choices(case):
    options, message = case
    with pytest.raises(InputError, match=message):
        evaluate(**options)


def looking(x):
    if x.sum() < 1e9:
        GUIDE(x)


@compiles
def test_programs_that_cannot_be_traced(monkeypatch):
    with pytest.raises(InputError, match=r"the evaluation cannot be compiled: .*if x.sum.*use compile=False"):
        evaluate(guide=looking, compile=True)
    monkeypatch.setattr(planning, "REPAID", 1)
    with pytest.warns(NotCompiled, match="the evaluation is not compiled, and so slower: .*if x.sum") as caught:
        report = evaluate(guide=looking)
    assert sum(issubclass(w.category, NotCompiled) for w in caught) == 1
    close(report, evaluate(guide=looking, compile=False), rtol=0, atol=0)


@compiles
def test_programs_that_run_particles_one_after_the_other():
    def model(x):  # a batch of another size is refused, so no particle dimension and no copies of the rows
        if x.dim() != 2 or len(x) > 10:
            raise RuntimeError("ten rows at most")
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if z.dim() != 1:
                raise RuntimeError("no more dimensions")
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand(x.shape).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x[:, 0], 1.0))

    with pytest.raises(InputError, match="take one particle at a time"):
        evaluate(model, guide, X[:10].float(), compile=True)
    assert evaluate(model, guide, X[:10].float()).strategy == "looped"


def test_without_a_compiler_auto_says_nothing_and_true_refuses(monkeypatch):
    monkeypatch.setattr("pyrovae.pairs.graphs.graph.compiler_missing", lambda device: "there is no C++ compiler here")
    monkeypatch.setattr(planning, "compiler_missing", lambda device: "there is no C++ compiler here")
    monkeypatch.setattr(planning, "REPAID", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCompiled)
        evaluate()
    with pytest.raises(InputError, match="cannot be compiled: there is no C\\+\\+ compiler here"):
        evaluate(compile=True)


@compiles
@pytest.mark.usefixtures("graphs_as_traced")
def test_a_bad_density_is_named_by_the_eager_draw():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("extra", torch.where(x > 100, torch.nan, 0.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * 0.0, 1.0))

    x = torch.zeros(20)
    x[13] = 200.0  # in the second block: the graph was made on good data
    with pytest.raises(FloatingPointError, match="site 'extra': log density in the model is nan for 1 of 10 data"):
        evaluate(model, guide, x, compile=True)


# ------------------------------------------------------------------------------------------ out of memory


ALLOCATION = {
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to"),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "python": MemoryError(),
}


@pytest.fixture
def runs_out(monkeypatch):
    """A machine that holds so many particles at once; what was tried is listed."""
    tried, run, room = [], STRATEGIES["vectorized"], [0, MemoryError()]

    def limited(*args):
        if args[-1] != 2:  # two are tried beforehand, to see how the programs take particles
            tried.append(args[-1])
        if args[-1] > room[0]:
            raise room[1]
        return run(*args)

    monkeypatch.setitem(STRATEGIES, "vectorized", limited)
    monkeypatch.setattr(memory.Growth, "__call__", lambda *_: 0)  # whatever was counted, it is not enough

    def holds(particles, error):
        room[:] = particles, error
        return tried

    return holds


@pytest.mark.parametrize("error", ALLOCATION.values(), ids=ALLOCATION)
def test_memory_that_runs_out_halves_the_block(runs_out, error):
    tried = runs_out(20, error)
    report = evaluate(x=X[:20])
    assert tried == [50, 25, *[12, 12, 12, 12], *[12, 12, 12, 12]]  # then two are left over, in each block of data
    close(report, evaluate(x=X[:20], particle_batch=12), rtol=0, atol=0)


def test_down_to_one_particle(runs_out):
    tried = runs_out(1, ALLOCATION["cpu"])
    evaluate(x=X[:3], num_particles=7)
    assert tried == [7, 3, *[1] * 7]


def test_then_it_says_what_to_lower(runs_out):
    runs_out(0, ALLOCATION["cuda"])
    with pytest.raises(InputError, match="not enough memory for 1 particles of 3 data at once: lower"):
        evaluate(x=X[:3], num_particles=7)


def test_a_block_that_was_asked_for_is_kept(runs_out):
    tried = runs_out(5, ALLOCATION["cuda"])
    with pytest.raises(InputError, match="not enough memory for 6 particles of 3 data at once: lower particle_batch"):
        evaluate(x=X[:3], particle_batch=6)
    assert tried == [6]


def weighed(model, guide, x, shown=lambda amount: None, **options):
    """The evaluation after its first block."""
    with isolated(model, guide) as (model, guide, device):
        run = weighing.Evaluation(Pair(model, guide, device, None), of_fifty(**options), len(x))
        run.block((x,), Block(0, slice(0, len(x)), shown))
    return run


def test_the_bar_ends_at_the_number_of_data(monkeypatch):
    runs, run, seen = [], STRATEGIES["vectorized"], []

    def failing_late(*args):
        runs.append(args[-1])
        if args[-1] == 16 and runs.count(16) == 3:
            raise MemoryError
        return run(*args)

    monkeypatch.setitem(STRATEGIES, "vectorized", failing_late)
    monkeypatch.setattr(memory, "ELEMENTS_AT_ONCE", 16 * 10 * 64)
    monkeypatch.setattr(memory.Growth, "__call__", lambda *_: 0)
    weighed(ORACLE.model, GUIDE, X[:10], seen.append)
    assert [count for count in runs if count != 2] == [16, 16, 16, *[8] * 6] and min(seen) < 0
    assert sum(seen) == pytest.approx(10)


@compiles
@pytest.mark.usefixtures("graphs_as_traced")
def test_graphs_of_the_larger_block_are_dropped(monkeypatch):
    def short_of_memory(self, *data):
        replay = of(self, *data)

        def limited():
            found = replay()
            if len(found.log_weight) > 25:
                raise ALLOCATION["cuda"]
            return found

        return limited

    of = Replayed.of
    monkeypatch.setattr(Replayed, "of", short_of_memory)
    run = weighed(*small_pair(), X[:10], compile=True)
    assert list(run.replayed) == [25] == list(run.sizes.values())


def test_untraceable_is_bad_input():
    assert issubclass(Untraceable, InputError)
