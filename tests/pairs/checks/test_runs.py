"""Further runs of a pair: densities that change by themselves, or with the rows beside them, are refused by name."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.checks import looks, runs
from pyrovae.pairs.context import isolated
from pyrovae.pairs.particles import Particles

X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
SCALES = torch.linspace(0.5, 1.5, 9)[:, None]
NO_STATISTICS = nn.BatchNorm1d(3, track_running_stats=False)
ATTENTION = nn.TransformerEncoderLayer(3, 1, 8, dropout=0.0)


def model(x, of_z=lambda z: z, scale=1.0):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(of_z(z), scale).to_event(1), obs=x)


def guide(x, of_x=lambda x: 0.5 * x, scale=0.7):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(of_x(x), scale).to_event(1))


def chain(x):
    """Each row's latent follows that of the row before it."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + 0.1 * z.roll(1, -2), 1.0).to_event(1), obs=x)


def of_batch(net):
    """A network across the rows of one particle, whatever particles there are."""
    return lambda z: torch.stack([net(part) for part in z.reshape(-1, *z.shape[-2:])]).reshape(z.shape)


def after_the_first(x):
    """A second draw about the mean of all rows' first draws."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x[:, 0], 1.0))
        pyro.sample("z", dist.Normal(0.5 * x + a.mean(-1, keepdim=True)[..., None], 0.7).to_event(1))


def with_first(x):
    with pyro.plate("data", len(x)):
        pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


RANDOM = {  # name: (model, guide, the site and its program)
    "dropout in the guide": (model, lambda x: guide(x, lambda x: dropout(x, 0.5, training=True)), "'z' of the guide"),
    "noise in the guide": (model, lambda x: guide(x, scale=0.5 + torch.rand(1)), "'z' of the guide"),
    "noise in the prior": (
        lambda x: model_with_prior(x, torch.randn(3)),
        guide,
        "'z' of the model",
    ),
    "noise in the likelihood": (lambda x: model(x, lambda z: z + torch.randn(3)), guide, "'x' of the model"),
}


def model_with_prior(x, loc):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(("model", "guide", "site"), RANDOM.values(), ids=RANDOM)
def test_what_is_random_beyond_its_sites_is_refused(model, guide, site):
    with pytest.raises(InputError, match=rf"site {site}: its log density changes from run to run"):
        pv.evaluate(model, guide, X, num_particles=5)


LEANING = {  # name: (model, guide, site)
    "a mean over the batch": (lambda x: model(x, lambda z: z - z.mean(-2, keepdim=True)), guide, "x"),
    "batch norm": (lambda x: model(x, lambda z: NO_STATISTICS(z.reshape(-1, 3)).reshape(z.shape)), guide, "x"),
    "attention across rows": (lambda x: model(x, of_batch(lambda z: ATTENTION(z[:, None])[:, 0])), guide, "x"),
    "the first row": (lambda x: model(x, lambda z: z - z[..., :1, :]), guide, "x"),
    "the data of others": (lambda x: model_with_prior(x, x.mean(0)), guide, "z"),
    "draws of others in the guide": (with_first, after_the_first, "z"),
    "the row before": (chain, guide, "x"),
}


@pytest.mark.parametrize("num_data", [2, 3, 9])
@pytest.mark.parametrize(("model", "guide", "site"), LEANING.values(), ids=LEANING)
def test_rows_that_lean_on_each_other_are_refused(model, guide, site, num_data):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=f"site '{site}': the log density of a row changes with the other rows"):
        pv.evaluate(model, guide, X[:num_data], num_particles=5)


@pytest.mark.parametrize("num_data", [2, 3, 4])
def test_rows_replaced_by_their_ranks_are_refused_whatever_was_drawn(num_data):
    """Some draws leave each rank of a half what it was: other halves and other draws are looked at."""
    ranked = lambda x: model(x, lambda z: z.argsort(-2).argsort(-2).to(z.dtype) / z.shape[-2])  # noqa: E731
    for seed in range(20):
        with pytest.raises(InputError, match="site 'x': the log density of a row changes with the other rows"):
            pv.evaluate(ranked, guide, X[:num_data], num_particles=5, seed=seed)


def test_rounding_that_goes_with_a_row_is_no_leaning():
    """In float32 a shift by 10,000 for each row before it, and back, moves a row by its place; in double it does not."""

    def shifted(x):
        shift = 1e4 * torch.arange(len(x), dtype=x.dtype)[:, None]
        model(x, lambda z: (z + shift) - shift)

    with isolated(shifted, guide) as (p, q, _):
        torch.manual_seed(1)
        particles = Particles(p, q, (X,))
        assert runs._looks(particles.shown) == runs.Looks(None, "x")  # in float32; or this test would say nothing
        assert runs.look_across_rows(particles.shown) == runs.Looks(None, None)


def test_a_guide_may_read_the_data_of_all_rows():
    """Whatever it makes of them is a proposal for each: log p(x) within 4 standard errors of N(x; 0, 2)."""
    report = pv.evaluate(model, lambda x: guide(x, lambda x: 0.5 * x + 0.1 * x.mean(0), 0.9), X, num_particles=20_000)
    exact = dist.Normal(0.0, 2**0.5).log_prob(X).sum(-1)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()


def by_place(x):
    guide(x, scale=pyro.param("scale", lambda: SCALES[: len(X)].clone()))


def test_rows_that_are_known_by_their_place_pass_where_they_keep_it():
    report = pv.evaluate(model, by_place, X, num_particles=5)
    with isolated(model, by_place) as (p, q, _):
        particles = Particles(p, q, (X,), strategy="vectorized")
        with pytest.raises(InputError, match=r"site 'z': its log density goes with the place of a row .*surgery puts"):
            looks.require_exchangeable(particles.shown, "surgery")
        looks.require_exchangeable(Particles(model, guide, (X,), strategy="vectorized").shown, "surgery")
    assert report.log_evidence.isfinite().all()


@pytest.mark.parametrize("num_data", [1, 2, 5])
def test_batches_of_any_size_are_looked_at(num_data):
    assert len(pv.evaluate(model, guide, X[:num_data], num_particles=5)) == num_data


def test_sequences_run_up_to_the_longest_row_of_a_batch():
    """Fewer steps where long rows are exchanged for short ones: what is masked counts for nothing."""
    lengths = torch.tensor([5, 2, 3, 3])
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))

    def run(x, lengths, scale, observed):
        with pyro.plate("data", len(x)):
            for t in range(int(lengths.max())):
                with pyro.poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z{t}", dist.Normal(x[:, t] / 2 if not observed else x.new_zeros(len(x)), scale))
                    if observed:
                        pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, t])

    report = pv.evaluate(
        lambda x, n: run(x, n, 1.0, True), lambda x, n: run(x, n, 0.8, False), (x, lengths), num_particles=4000
    )
    exact = (dist.Normal(0.0, 2**0.5).log_prob(x) * (torch.arange(5) < lengths[:, None])).sum(-1)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()


def test_a_prior_that_knows_the_size_of_the_batch_is_refused():
    def sized(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), len(x) ** 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pytest.raises(InputError, match="site 'z': the log density of a row changes with the other rows"):
        pv.evaluate(sized, guide, X, num_particles=5)


def of_group(x, group):
    """Rows about the mean of their group: every second row is of one group."""
    means = torch.stack([x[group == k].mean(0) for k in (0, 1)])[group]
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + means, 1.0).to_event(1), obs=x)


def test_rows_that_lean_on_their_group_are_refused():
    with pytest.raises(InputError, match="site 'x': the log density of a row changes with the other rows"):
        pv.evaluate(of_group, lambda x, _: guide(x), (X, torch.arange(9) % 2), num_particles=5)


def positive(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.HalfNormal(x.new_ones(3)).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


MOVED = {  # model, a move of a draw u whose Delta says that it changes no density, and what is said of it
    "folded": (positive, torch.abs, "not one to one: several draws of 'u' give one 'z'"),
    "scaled": (model, lambda u: 2 * u, "the log_density of its Delta is not minus the log determinant"),
}


@pytest.mark.parametrize(("model", "move", "said"), MOVED.values(), ids=MOVED)
def test_a_move_without_its_density_is_refused(model, move, said):
    def moving(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x, 1.0).to_event(1), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(move(u), 0.0).to_event(1))

    with pytest.raises(InputError, match=f"site 'z' of the guide is a point that is moved from 'u', but {said}"):
        pv.evaluate(model, moving, X, num_particles=5)


@pytest.mark.parametrize("rows, runs", [(8, 3), (9, 2)], ids=["each particle apart", "rows by turns"])
def test_the_looks_at_a_pair_share_their_runs(rows, runs):
    """Rows that are exchanged show what is random too, and a program whose densities are not read is not run."""
    called = []

    def counted(name, program):
        return lambda x: (called.append(name), program(x))

    with isolated(counted("model", model), counted("guide", guide)) as (p, q, _):
        particles = Particles(p, q, (X[:rows],), strategy="vectorized")
        called.clear()
        looks.check_weights(particles.shown)
        assert [called.count(name) for name in ("model", "guide")] == [5, 2]
        called.clear()
        particles.fastest()
        assert [called.count(name) for name in ("model", "guide")] == [runs, runs]


def test_rows_that_lean_on_each_other_are_told_by_half_of_them_where_the_guide_needs_all():
    """The scale of the likelihood goes with how many rows there are, which rows that are exchanged do not show."""

    def by_number(x):
        model(x, scale=float(len(x)))

    def for_all(x):
        guide(x, scale=SCALES[: len(X)])

    with pytest.raises(InputError, match="site 'x': the log density of a row changes with the other rows"):
        pv.evaluate(by_number, for_all, X, num_particles=5)
