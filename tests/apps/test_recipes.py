"""Recipes: every name builds a pair that fits and evaluates."""

import re

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps import cli, recipes
from pyrovae.programs import families, guides, priors

BASE = {
    "prior": "normal",
    "likelihood": None,
    "guide": "normal",
    "network": "mlp",
    "latent": 2,
    "hidden": [8],
    "seed": 0,
}


REAL = ("normal", "low-rank", "laplace", "logistic", "student", "continuous")
INSIDE = ("beta", "log-normal", "gamma")  # likelihoods of values away from an edge


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """Digits as values above 0 and below 1."""
    (rows,) = pv.data.load("digits").train.batch(slice(0, 100))
    path = tmp_path_factory.mktemp("data") / "inside.npy"
    np.save(path, ((rows.float() + 0.5) / 17).numpy())
    return pv.data.load(path)


def digits_for(likelihood):
    if likelihood == "bernoulli":
        return pv.data.load("digits", binarization="static")
    return pv.data.load("digits", divisor=16 if likelihood.startswith(REAL) else None)


def fitted_evidence(recipe, dataset):
    vae = recipes.build(recipes.complete(recipe, dataset), dataset)
    fitted = pv.fit(vae.model, vae.guide, dataset.train[:64], epochs=1)
    report = pv.evaluate(fitted.model, fitted.guide, dataset.test[:10], num_particles=30, method="importance")
    return report.log_evidence


@pytest.mark.parametrize("likelihood", families.FAMILIES)
def test_every_likelihood(likelihood, inside):
    data = inside if likelihood in INSIDE else digits_for(likelihood)
    assert fitted_evidence({**BASE, "likelihood": likelihood}, data).isfinite().all()


def named(prior):
    """With few pseudo-inputs or exemplars, where it has any."""
    return f"{prior}:20" if {"num_pseudo_inputs", "num_exemplars"} & set(priors.PRIORS[prior].takes) else prior


@pytest.mark.parametrize("guide", guides.GUIDES)
def test_every_guide(guide):
    support = guides.GUIDES[guide].support
    prior = next(name for name, choice in priors.PRIORS.items() if choice.support == support)
    assert fitted_evidence({**BASE, "prior": prior, "guide": guide}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("prior", priors.PRIORS)
def test_every_prior(prior):
    support = priors.PRIORS[prior].support
    guide = next(name for name, choice in guides.GUIDES.items() if choice.support == support)
    assert fitted_evidence({**BASE, "prior": named(prior), "guide": guide}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("network", recipes.NETWORKS)
def test_every_network(network):
    assert fitted_evidence({**BASE, "network": network}, pv.data.load("digits")).isfinite().all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("prior", "guide"), [("uniform", "beta"), ("dirichlet", "logistic-normal"), ("logistic-normal", "logistic-normal")]
)
def test_latents_with_edges_are_fitted_to_digits(prior, guide, seed):
    """In float32, where draws once lay on the edge, or were scored at another point than they were drawn from."""
    digits = pv.data.load("digits")
    recipe = {**BASE, "prior": prior, "guide": guide, "latent": 8, "hidden": [50], "seed": seed}
    vae = recipes.build(recipes.complete(recipe, digits), digits)
    history = pv.fit(vae.model, vae.guide, digits.train, epochs=2, seed=seed).history
    assert -700 < history[0]["elbo"] < history[1]["elbo"] < -450


def test_latents_of_unlike_support_are_refused():
    digits = pv.data.load("digits")
    with pytest.raises(pv.InputError, match="prior 'sphere' is over sphere latents, guide 'normal' over real ones"):
        recipes.build(recipes.complete({**BASE, "prior": "sphere"}, digits), digits)


def test_a_guide_without_means_is_refused_to_a_prior_about_them():
    message = (
        "about the means of the guide's distributions, and those of 'iaf' have none; .* normal, low-rank-normal, st"
    )
    with pytest.raises(pv.InputError, match=message):
        recipes.check_support("exemplar", "iaf")


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
            source = getattr(choice, "source", "")
            about = re.escape(choice.about + (f" [{source}]" if source else ""))
            assert re.search(rf"^  {name} +{about}$", section, re.M), (kind, name)
