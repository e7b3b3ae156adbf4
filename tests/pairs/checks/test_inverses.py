"""Guides that are flows: whatever can be undone is scored at given latents, whatever cannot is refused by name."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as flows
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.base.memory import out_of_memory
from pyrovae.pairs.checks.inverses import check_density_at
from pyrovae.pairs.traces import sites_of

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def flow(*transforms):
    def guide(x):
        for number, transform in enumerate(transforms):
            if isinstance(transform, torch.nn.Module):
                pyro.module(f"flow {number}", transform)
        with pyro.plate("data", len(x)):
            base = dist.Normal(x.new_zeros(2), 1.0).expand([len(x), 2]).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, list(transforms)))

    return guide


def site_of(build, x=X):
    """The site of one run of a guide."""
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        return sites_of(flow(*build()), x)["z"]


def composed():
    return flows.ComposeTransformModule([flows.affine_coupling(2), flows.radial(2)])


ONE_WAY = {  # what makes a flow -> the transform that cannot be undone
    "planar": (lambda: [flows.planar(2)], "ConditionedPlanar"),
    "radial": (lambda: [flows.radial(2)], "ConditionedRadial"),
    "sylvester": (lambda: [flows.Sylvester(2)], "Sylvester"),
    "polynomial": (lambda: [flows.polynomial(2)], "Polynomial"),
    "neural autoregressive": (lambda: [flows.neural_autoregressive(2)], "NeuralAutoregressive"),
    "block autoregressive": (lambda: [flows.block_autoregressive(2)], "BlockAutoregressive"),
    "behind one that can": (lambda: [flows.radial(2), flows.affine_coupling(2)], "ConditionedRadial"),
    "composed": (lambda: [composed()], "ConditionedRadial"),
}
BOTH_WAYS = {
    "affine autoregressive": lambda: [flows.affine_autoregressive(2, [16])],
    "affine coupling": lambda: [flows.affine_coupling(2)],
    "spline coupling": lambda: [flows.spline_coupling(2, split_dim=1)],
    "spline": lambda: [flows.spline(2)],
    "householder": lambda: [flows.householder(2)],
    "two": lambda: [flows.affine_coupling(2), flows.Permute(torch.tensor([1, 0])), flows.spline(2)],
}


@pytest.mark.parametrize(("build", "name"), ONE_WAY.values(), ids=ONE_WAY)
def test_a_flow_without_an_inverse_is_refused_by_name(build, name):
    site = site_of(build)
    with pytest.raises(InputError, match=rf"site 'z' of the guide: \w*{name.removeprefix('Conditioned')} has no inv"):
        check_density_at("z", site)


@pytest.mark.parametrize("build", BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_a_flow_with_an_inverse_is_taken_and_random_numbers_stay(build):
    site, state = site_of(build), torch.get_rng_state()
    check_density_at("z", site)
    assert torch.equal(state, torch.get_rng_state())


def test_an_inverse_that_fails_says_how():
    site = site_of(lambda: [flows.affine_autoregressive(2, [16]).double()], X.double())
    with pytest.raises(InputError, match=r"AffineAutoregressive cannot be inverted \(.*dtype.*so its density at given"):
        check_density_at("z", site)


def fails_with(*errors):
    """A transform whose inverse fails, each time with the next of these."""
    coming = iter(errors)

    class Failing(torch.distributions.transforms.ExpTransform):
        def _inverse(self, y):
            raise next(coming)

    return Failing(cache_size=1)


FULL = {
    "CUDA": (torch.OutOfMemoryError("CUDA out of memory"),),
    "CPU": (RuntimeError("DefaultCPUAllocator: can't allocate memory"),),
    "at the second look": (RuntimeError("another"), torch.OutOfMemoryError("CUDA out of memory")),
}


@pytest.mark.parametrize("errors", FULL.values(), ids=FULL)
def test_memory_that_runs_out_is_no_missing_inverse(errors):
    fn = dist.TransformedDistribution(dist.Normal(torch.zeros(4), 1.0), [fails_with(*errors)])
    with pytest.raises(type(errors[-1]), match="memory") as found:
        check_density_at("z", {"fn": fn, "value": None, "args": (), "kwargs": {}, "mask": None})
    assert out_of_memory(found.value)


class Off(torch.distributions.transforms.ExpTransform):
    """A transform whose inverse is another one's."""

    def _inverse(self, y):
        return y.log() + 0.1


def test_an_inexact_inverse_is_refused_with_its_size():
    fn = dist.TransformedDistribution(dist.Normal(torch.zeros(4), 1.0), [Off(cache_size=1)])
    with pytest.raises(InputError, match=r"another one, by up to 0\.\d+ nats, as its inverse is inexact"):
        check_density_at("z", {"fn": fn, "value": None, "args": (), "kwargs": {}, "mask": None})


MEASUREMENTS = {
    "annealed": lambda guide: pv.annealed_evidence(model, guide, X, num_temperatures=3, num_chains=2),
    "bidirectional": lambda guide: pv.bidirectional(model, guide, X, num_data=4, num_temperatures=3, num_chains=2),
    "gaps": lambda guide: pv.gaps(model, guide, X, families=[], num_particles=10),
    "surgery": lambda guide: pv.surgery(model, guide, X),
    "calibrate": lambda guide: pv.calibrate(model, guide, X, num_simulations=20),
    "defensive": lambda guide: pv.evaluate(model, guide, X, num_particles=30, defensive=0.1),
}


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_every_measurement_that_needs_the_density_refuses(measure):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=r"site 'z' of the guide: \w+ has no inverse, so its density at given latents"):
        measure(flow(flows.planar(2)))


def test_what_the_message_advises_helps():
    """From the prior, and by importance sampling, to one log p(x): within 4 standard errors of the mean."""
    torch.manual_seed(0)
    guide, exact = flow(flows.planar(2)), dist.Normal(0.0, 2.0**0.5).log_prob(X).sum(-1)
    annealed = pv.annealed_evidence(model, guide, X, num_temperatures=60, start=pv.from_prior)
    for found in (annealed, pv.evaluate(model, guide, X)):
        error = (found.log_evidence - exact).mean() / (found.mc_se_log_evidence.square().sum().sqrt() / len(X))
        assert abs(error) < 4


def test_batch_norm_in_training_is_refused_and_right_in_evaluation():
    """In training it scores draws by the variance of the batch, though it moves them by its running one."""
    norm = flows.BatchNorm(2)
    torch.nn.init.constant_(norm.moving_variance, 0.3)
    guide = flow(flows.affine_coupling(2), norm)
    exact = dist.Normal(0.0, 2**0.5).log_prob(X).sum(-1).double()
    named = "site 'z' of the guide: BatchNorm, in training mode, moves draws by its running variance but scores them"
    with pyro.get_param_store().scope():
        report = pv.evaluate(model, guide, X, num_particles=2000, progress=False, method="importance")
        assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all() and norm.training
        with pytest.raises(InputError, match=named):
            pv.log_terms(model, guide, X, num_particles=2)
        with pytest.raises(InputError, match=named):
            pv.fit(model, guide, X, epochs=1, progress=False)
        norm.eval()
        assert pv.log_terms(model, guide, X, num_particles=2).log_weight.isfinite().all()
