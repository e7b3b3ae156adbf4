"""Pairs with a model of the mask: their evidence by quadrature, slopes that are found again, and what is refused."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.missingness import with_missingness
from pyrovae.pairs.traces import plain_traces

ORACLE = pv.oracles.missing_entries(2, 1, seed=3)


def masking(slope, intercept=0.0):
    module = pv.self_masking(2).double()
    module.raw_slope.data.fill_(slope)
    module.intercept.data.fill_(intercept)
    return module


def quadrature(x, module):
    """log p(x_o, s) by summing over the missing entries of rows of two, on a grid."""
    program, axis = ORACLE.complete, torch.linspace(-15, 15, 1201, dtype=torch.float64)
    covariance = program.loadings @ program.loadings.T + program.noise_scale.square().diag()
    joint, step, found = torch.distributions.MultivariateNormal(program.bias, covariance), axis[1] - axis[0], []
    for row in x:
        axes = [axis if value.isnan() else value[None] for value in row]
        points = torch.cartesian_prod(*axes)
        density = joint.log_prob(points) + module(points).log_prob((~row.isnan()).double().expand_as(points))
        found.append(density.logsumexp(0) + row.isnan().sum() * step.log())
    return torch.stack(found)


X = torch.tensor([[0.5, -1.0], [math.nan, 0.3], [1.2, math.nan], [math.nan, math.nan]], dtype=torch.float64)


@pytest.mark.parametrize("slope", [0.0, 1.5])
def test_the_evidence_is_that_of_data_and_mask(slope):
    module = masking(slope, 0.4)
    pair = with_missingness(ORACLE.complete.model, ORACLE.guide, module)
    found = pv.evaluate(*pair, X, num_particles=20_000, method="importance")
    exact = quadrature(X, module)
    assert ((found.log_evidence - exact).abs() < 4 * found.mc_se_log_evidence + 1e-9).all()  # 4 standard errors
    if slope == 0:  # at random: nothing is told by the mask but how many are missing
        chance = math.log(1 / (1 + math.exp(-0.4))), math.log(1 / (1 + math.exp(0.4)))
        gone = X.isnan().sum(1)
        torch.testing.assert_close(exact, ORACLE.log_evidence(X) + (2 - gone) * chance[0] + gone * chance[1])


@pytest.mark.global_params
def test_what_both_draw_cancels_and_plates_are_met_again():
    pair = with_missingness(ORACLE.complete.model, ORACLE.guide, masking(1.0))
    run = plain_traces(*pair, (X,))
    assert list(run.joint) == ["z", "x", "x.complete", "missingness"] and list(run.drawn) == ["z", "x.complete"]
    of_model, of_guide = run.joint["x.complete"], run.drawn["x.complete"]
    torch.testing.assert_close(of_model["fn"].log_prob(of_model["value"]), of_guide["fn"].log_prob(of_guide["value"]))
    assert [frame.name for frame in of_model["cond_indep_stack"]] == ["data"]
    assert run.joint["missingness"]["value"].tolist() == (~X.isnan()).double().tolist()


def test_imputations_are_drawn_by_the_mask_too():
    """Large values are missing: what is missing is larger than p(x_m | x_o) says."""
    module = masking(1.5)
    pair = with_missingness(ORACLE.complete.model, ORACLE.guide, module)
    found = pv.conditional(*pair, X[1:3], num_draws=400, num_particles=4000, method="importance")
    plain = pv.conditional(ORACLE.complete.model, ORACLE.guide, X[1:3], num_draws=400)
    axis = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    for row, entry in ((0, 0), (1, 1)):
        points = X[1 + row].expand(len(axis), 2).clone()
        points[:, entry] = axis
        program = ORACLE.complete
        covariance = program.loadings @ program.loadings.T + program.noise_scale.square().diag()
        joint = torch.distributions.MultivariateNormal(program.bias, covariance)
        weight = (
            joint.log_prob(points) + module(points).log_prob((~X[1 + row].isnan()).double().expand_as(points))
        ).softmax(0)
        mean = (weight * axis).sum()
        sd = (weight * (axis - mean).square()).sum().sqrt()
        assert abs(found.mean[row, entry] - mean) < 4.5 * sd / 400**0.5  # 4.5 standard errors
        assert mean > plain.mean[row, entry] + 0.3


def test_a_fit_finds_slopes_and_imputes_better_than_by_ignoring_the_mask():
    """Large values are missing, of columns that say little of each other."""
    whole, _ = pv.oracles.factor_analysis(3, 1, seed=1).draw(1000, seed=0)
    whole = ((whole - whole.mean(0)) / whole.std(0)).float()
    x = pv.hide(whole, pv.data.mnar(whole, 0.4, strength=3.0, seed=1))

    def pair():
        network = pv.networks.masked_input(3, lambda shape: pv.networks.mlp(shape, 20, seed=1))
        noise = pv.families.normal(scale=pv.families.learned(0.5))
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(1),
            decoder=pv.Conditional(noise, (3,), pv.networks.mlp(1, seed=0)),
            encoder=pv.Conditional(pv.families.normal(), (1,), network),
        )
        return vae.model, vae.guide

    def error(model, guide, **how):
        fitted = pv.fit(model, guide, x, **fit)
        found = pv.impute(fitted.model, fitted.guide, x[:200], num_particles=200, **how)
        return (found - whole[:200])[x[:200].isnan()].square().mean().sqrt()

    fit = {"epochs": 40, "batch_size": 200, "objective": pv.objectives.IWAE(5), "optimizer": adam, "seed": 1}
    model, guide = pair()
    missingness = pv.self_masking(3, sign=1)
    by_mask = error(*with_missingness(*pair(), missingness), method="importance")
    assert by_mask < 0.85 * error(pv.observed_entries(model), guide)  # 1.12 and 1.48 when it was written
    assert (missingness.slope > 0.2).all()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2)


def test_what_it_does_not_go_with_is_refused():
    def two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
            pyro.sample("a", dist.Normal(z, 1.0).to_event(1), obs=x[:, :1])
            pyro.sample("b", dist.Normal(z, 1.0).to_event(1), obs=x[:, 1:])

    def together(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()), obs=x)

    handled = pv.observed_entries(ORACLE.complete.model), "give the model as it is for complete data, without observed"
    refused = [(two, "found 'a', 'b'"), (together, r"site 'x' \(MultivariateNormal\): its entries depend"), handled]
    for model, message in refused:
        model, guide = with_missingness(model, ORACLE.guide, masking(1.0))
        with pytest.raises(InputError, match=message):
            pv.evaluate(model, guide, X)
