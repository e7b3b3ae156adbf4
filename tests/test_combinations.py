"""All that can be chosen by name goes together, or is refused with a reason: every prior with every guide, every
likelihood with every network and with every scale of the data.

``make combinations`` runs all of it, some minutes, and prints how many fit and how many are refused; the suite runs a
sample.
"""

import numpy as np
import pytest
import torch
from examples.digits import SCALES, takes

import pyrovae as pv
from pyrovae.apps import recipes

FEW = {"vamp": "vamp:20", "exemplar": "exemplar:50"}  # where a default is made for more data
LIKELIHOODS = [name for name, choice in recipes.FAMILIES.items() if not choice.of_columns]  # those of data but tables
EVERY = 29  # of the pairs, one is in the sample
BASE = {
    "prior": "normal",
    "likelihood": None,
    "guide": "normal",
    "network": "mlp",
    "latent": 3,
    "hidden": [8],
    "seed": 0,
}


def sampled(pairs, every=EVERY):
    """All pairs as parameters of a test: those between the sampled ones are marked."""
    marks = [pytest.mark.combinations]
    return [
        pytest.param(*pair, id="-".join(map(str, pair)), marks=[] if number % every == 0 else marks)
        for number, pair in enumerate(pairs)
    ]


@pytest.fixture
def outcome(record_property):
    """Runs a recipe on data; counts whether it fits, and says what it is refused for, if it is."""

    def run(axes, recipe, dataset):
        try:
            vae = recipes.build(recipes.complete({**BASE, **recipe}, dataset), dataset)
            fitted = pv.fit(vae.model, vae.guide, dataset.train[:64], epochs=1, batch_size=32)  # two steps
        except pv.InputError as error:
            record_property("combination", (axes, "refused"))
            return str(error)
        report = pv.evaluate(fitted.model, fitted.guide, dataset.test[:4], num_particles=30, method="importance")
        assert report.log_evidence.isfinite().all() and torch.isfinite(torch.tensor(fitted.history[0]["elbo"]))
        record_property("combination", (axes, "fits"))
        return None

    return run


@pytest.mark.parametrize(
    ("prior", "guide"), sampled([(prior, guide) for prior in recipes.PRIORS for guide in recipes.GUIDES])
)
def test_priors_and_guides(prior, guide, outcome):
    of_prior, of_guide = recipes.PRIORS[prior], recipes.GUIDES[guide]
    said = outcome("prior x guide", {"prior": FEW.get(prior, prior), "guide": guide}, pv.data.load("digits"))
    if of_prior.support != of_guide.support:
        assert f"is over {of_prior.support} latents, guide '{guide}' over {of_guide.support} ones" in said
    elif of_prior.needs_mean and not of_guide.has_mean:
        assert f"about the means of the guide's distributions, and those of '{guide}' have none" in said
    else:
        assert said is None


@pytest.mark.parametrize(
    ("likelihood", "network"),
    sampled([(likelihood, network) for likelihood in LIKELIHOODS for network in recipes.NETWORKS]),
)
def test_likelihoods_and_networks_of_images(likelihood, network, outcome):
    dataset = next(each for each in SCALES().values() if takes(recipes.FAMILIES[likelihood], each))
    assert outcome("likelihood x network, images", {"likelihood": likelihood, "network": network}, dataset) is None


@pytest.fixture(scope="session")
def vectors(tmp_path_factory):
    """Rows without a width and a height."""
    path = tmp_path_factory.mktemp("data") / "vectors.npy"
    np.save(path, pv.data.load("digits").train.x[:100].reshape(100, 64).numpy())
    return pv.data.load(path)


@pytest.mark.parametrize("network", sampled([(network,) for network in recipes.NETWORKS], every=2))
def test_networks_of_vectors(network, vectors, outcome):
    said = outcome("network, vectors", {"network": network, "likelihood": "poisson"}, vectors)
    if recipes.NETWORKS[network].of_images:
        assert f"network '{network}' is for images" in said and "networks that go with it: mlp" in said
    else:
        assert said is None


@pytest.mark.parametrize(
    ("likelihood", "scale"),
    sampled([(likelihood, scale) for likelihood in LIKELIHOODS for scale in SCALES()]),
)
def test_likelihoods_and_scales_of_the_data(likelihood, scale, outcome):
    """A likelihood that cannot have made the data says which they are."""
    dataset = SCALES()[scale]
    said = outcome("likelihood x scale of the data", {"likelihood": likelihood}, dataset)
    if takes(recipes.FAMILIES[likelihood], dataset):
        assert said is None
    else:
        assert "site 'x'" in said and ("outside the support" in said or "no finite log density" in said)


@pytest.mark.combinations
@pytest.mark.parametrize("prior", recipes.PRIORS)
def test_a_compiled_epoch_is_the_eager_one(prior):
    """With the first guide that goes with it, at the same noise, to rounding."""
    digits, support = pv.data.load("digits"), recipes.PRIORS[prior].support
    guide = next(name for name, choice in recipes.GUIDES.items() if choice.support == support)
    recipe = recipes.complete({**BASE, "prior": FEW.get(prior, prior), "guide": guide}, digits)
    last = []
    for compile in (False, True):
        vae = recipes.build(recipe, digits)
        fitted = pv.fit(vae.model, vae.guide, digits.train, epochs=1, batch_size=400, compile=compile)
        last.append(fitted.history[-1]["elbo"])
    assert last[0] == pytest.approx(last[1], rel=1e-5)
