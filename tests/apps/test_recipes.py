"""Recipes: every name builds a pair that fits and evaluates."""

import pytest
import torch

import pyrovae as pv
from pyrovae.apps import cli, recipes
from pyrovae.programs import families, priors

BASE = {
    "prior": "normal",
    "likelihood": None,
    "guide": "normal",
    "network": "mlp",
    "latent": 2,
    "hidden": [8],
    "seed": 0,
}


def digits_for(likelihood):
    if likelihood == "bernoulli":
        return pv.data.load("digits", binarization="static")
    return pv.data.load("digits", divisor=16 if likelihood in ("continuous-bernoulli", "normal") else None)


def fitted_evidence(recipe, dataset):
    vae = recipes.build(recipes.complete(recipe, dataset), dataset)
    fitted = pv.fit(vae.model, vae.guide, dataset.train[:64], epochs=1)
    return pv.evaluate(fitted.model, fitted.guide, dataset.test[:20], num_particles=30).log_evidence


@pytest.mark.parametrize("likelihood", families.FAMILIES)
def test_every_likelihood(likelihood):
    assert fitted_evidence({**BASE, "likelihood": likelihood}, digits_for(likelihood)).isfinite().all()


@pytest.mark.parametrize("guide", families.GUIDES)
def test_every_guide(guide):
    assert fitted_evidence({**BASE, "guide": guide}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("prior", priors.PRIORS)
@pytest.mark.parametrize("network", recipes.NETWORKS)
def test_every_prior_and_network(prior, network):
    recipe = {**BASE, "prior": prior, "network": network}
    assert fitted_evidence(recipe, pv.data.load("digits")).isfinite().all()


def test_the_natural_likelihood_follows_the_data():
    names = {k: recipes.complete(BASE, digits_for(k))["likelihood"] for k in ("bernoulli", "normal", "poisson")}
    assert names == {"bernoulli": "bernoulli", "normal": "continuous-bernoulli", "poisson": "binomial"}


def test_a_seed_gives_the_weights():
    digits = pv.data.load("digits")
    a, b, c = (recipes.build(recipes.complete({**BASE, "seed": seed}, digits), digits) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_unknown_names_offer_the_nearest():
    with pytest.raises(pv.InputError, match="unknown prior 'mixure': did you mean \"mixture\""):
        recipes.complete({**BASE, "prior": "mixure"}, pv.data.load("digits"))
    with pytest.raises(pv.InputError, match="latent and hidden sizes must be at least 1"):
        recipes.build(recipes.complete({**BASE, "hidden": [0]}, pv.data.load("digits")), pv.data.load("digits"))


def test_all_that_can_be_chosen_is_listed(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    for kind, choices in recipes.CHOICES.items():
        section = printed[printed.index(f"{kind}s\n") :]
        for name, choice in choices.items():
            assert f"  {name:22}{choice.about}\n" in section, (kind, name)
