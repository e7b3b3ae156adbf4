"""A small VAE of pictures, its page, and one browser for all tests of the explorer."""

import pytest
import torch
from browser import CHROMIUM, chromium

import pyrovae as pv


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A tab of a headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is here: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="session")
def digits():
    return pv.data.load("digits").test[:60]


@pytest.fixture(scope="session")
def vae(digits):
    """Binomial pixels of two latents, its weights drawn wide enough for pictures to differ."""
    decode, encode = pv.networks.mlp(2, 24, seed=0), pv.networks.mlp(digits.shape, 24, seed=1)
    made = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.binomial(16), digits.shape, decode),
        encoder=pv.Conditional(pv.families.normal(), (2,), encode),
    )
    with torch.no_grad():
        for weight in made.decoder.parameters():
            weight *= 3
    return made


@pytest.fixture(scope="session")
def written(vae, digits, tmp_path_factory):
    """The page of that VAE."""
    return pv.explore(vae, digits, tmp_path_factory.mktemp("explorer") / "digits.html")


@pytest.fixture
def opened(browser, written):
    """The browser with that page in it."""
    browser.open(written.path)
    return browser
