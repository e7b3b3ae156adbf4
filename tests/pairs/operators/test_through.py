"""Models of what is observed of x: exact where an oracle is, like any other model, and refused by name."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.observed import MOMENTS
from pyrovae.pairs.operators.through import corrupted, filled_in, observed_through, restoring
from pyrovae.pairs.traces import sites_of


def test_the_evidence_is_that_of_what_was_observed(case):
    model = observed_through(case.oracle.model, case.operator)
    report = pv.evaluate(model, case.guide, case.y, num_particles=50)
    torch.testing.assert_close(report.log_evidence, case.evidence.log_prob(case.y))
    assert (report.pareto_k == -float("inf")).all()


def test_x_is_drawn_with_its_moments(case):
    found = sites_of(restoring(case.oracle.model, case.operator), case.y)["x"]
    mean, _ = found["infer"][MOMENTS]
    assert found["value"].shape == mean.shape == case.x.shape
    if case.noise == 0:
        torch.testing.assert_close(case.operator.apply(found["value"]), case.y)


MEASURES = {
    "gaps": lambda *pair: pv.gaps(*pair, num_steps=3, families=["own"]),
    "surgery": pv.surgery,
    "calibrate": lambda *pair: pv.calibrate(*pair, num_draws=20),
    "annealed": lambda *pair: pv.annealed_evidence(*pair, num_temperatures=10, num_chains=4),
    "bidirectional": lambda *pair: pv.bidirectional(*pair, num_data=4, num_temperatures=10, num_chains=4),
    "predictive check": pv.predictive_check,
    "reference": lambda model, guide, y: pv.reference_posterior(model, guide, y[:1]),
}


@pytest.mark.parametrize("name", MEASURES)
def test_everything_goes_with_it(name):
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(20, seed=0)
    operator = pv.operators.linear(torch.eye(6).double()[:4], noise=0.1)
    y = operator.apply(x, seed=0)
    assert MEASURES[name](observed_through(oracle.model, operator), filled_in(oracle.mean_field_guide(), operator), y)


def test_overlapping_rows_go_everywhere_too():
    oracle = pv.oracles.ppca(4, 1)
    x, _ = oracle.draw(20, seed=0)
    near = torch.tensor([[2, 1, 0, 0], [1, 2, 1, 0], [0, 1, 2, 1], [0, 0, 1, 2]]).double() / 4
    flat = pv.operators.linear(near, noise=0.2)
    y = flat.apply(x)
    pair = observed_through(oracle.model, flat), filled_in(oracle.mean_field_guide(), flat)
    assert pv.calibrate(*pair, y, num_draws=20)
    assert pv.evaluate(*pair, y, num_particles=100).fraction_unreliable == 0


def test_a_mask_leaves_entries_out():
    oracle = pv.oracles.missing_entries(6, 2, missing=0.4)
    x, _ = oracle.complete.draw(20, seed=0)
    operator = pv.operators.entries(torch.tensor([True, True, False, True, False, True]))
    report = pv.evaluate(observed_through(oracle.complete.model, operator), oracle.guide, operator.apply(x))
    torch.testing.assert_close(report.log_evidence, oracle.log_evidence(operator.apply(x)))


def test_a_vae_of_images_is_fitted_and_measured_through_an_operator():
    vae, x = make_vae(), make_data()
    operator = pv.operators.salt_and_pepper((4, 4), 0.2)
    pair = observed_through(vae.model, operator), filled_in(vae.guide, operator)
    y = operator.apply(x)
    fitted = pv.fit(*pair, y, epochs=2)
    assert pv.evaluate(fitted.model, fitted.guide, y, num_particles=50).log_evidence.isfinite().all()


def test_a_guide_on_corrupted_data_is_fitted_and_then_measured_without():
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(40, seed=0)
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.Conditional(pv.families.normal(scale=1.0), (6,), pv.networks.mlp(2, 5, seed=0)),
        pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp((6,), 5, seed=1)),
    )
    noise = pv.operators.salt_and_pepper((6,), 0.3, -5.0, 5.0)
    fitted = pv.fit(vae.model, corrupted(vae.guide, noise), x.float(), epochs=3, seed=0)
    report = pv.evaluate(fitted.model, fitted.guide, x.float(), num_particles=100)
    plain = pv.evaluate(fitted.model, vae.guide, x.float(), num_particles=100)
    assert torch.equal(report.log_evidence, plain.log_evidence)
    seen = []
    guide = corrupted(seen.append, noise)
    guide(x.float())
    assert not torch.equal(seen[0], x.float()) and (seen[0].abs() == 5).any()


class Images:
    """A model that observes two things."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("a", dist.Normal(z, 1.0).to_event(1), obs=x)
            pyro.sample("b", dist.Normal(z, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (
            pv.oracles.ppca(5, 2).model,
            torch.ones(3, 1).double(),
            r"no site of the model observes events of shape \(2,\); found 'x' \(5,\)",
        ),
        (Images().model, torch.ones(3, 1), r"several observe events of shape \(2,\); found 'a' \(2,\), 'b' \(2,\)"),
        (Images().model, torch.ones(3, 2), r"linear: expected y of shape \(N, 1\), got \(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(model, y, message):
    with pytest.raises(InputError, match=message):
        observed_through(model, pv.operators.linear(torch.ones(1, 2).to(y)))(y)
