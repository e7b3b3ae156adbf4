"""What is decoded between codes, read back from a model whose images are its latents."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.fits_of_codes import DIGITS, compared

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.data.split import Split, as_split
from pyrovae.diagnostics.codes.continuity import PARTS, REACH


class Identity:
    """z is x: images are codes, but for a little noise."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(z, 0.1).to_event(2), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-6).to_event(2))


class ByCorner:
    """A classifier of the upper left value's sign."""

    def predict_proba(self, rows):
        one = (torch.as_tensor(rows)[:, 0] > 0).double()
        return torch.stack([1 - one, one], 1).numpy()


def clusters(num, seed):
    noise = torch.randn(num, 2, 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(num) % 2
    x = 0.01 * noise + (2.0 * labels - 1)[:, None, None]
    split = as_split(x)
    return Split(split.columns, split.protocol, labels)


@pytest.fixture(scope="module")
def record():
    fits = {"identity": Identity()}
    return pv.continuity(fits, clusters(100, 0), clusters(60, 1), classifier=ByCorner(), num=40, num_steps=5)


def test_gaps_are_far_from_training_data(record):
    """Clusters are 4 apart: half of that is 2, and within one it is some 0.02."""
    scores = record.scores["identity"]
    assert scores["gaps"].distance.mean().item() == pytest.approx(2, abs=0.06)
    assert scores["reconstruction"].distance.max() < 0.1 and record.data.distance.max() < 0.1


def test_lines_go_from_one_class_to_the_other(record):
    images = record.images["identity"]["linear"]
    torch.testing.assert_close(images[:, 2], (images[:, 0] + images[:, -1]) / 2)
    assert (images[:, 0].mean((1, 2)) * images[:, -1].mean((1, 2)) < 0).all()
    distance = record.scores["identity"]["linear"].distance  # at 1/4, 1/2 and 3/4
    assert distance.shape == (40, 3)
    assert distance.mean(0).tolist() == pytest.approx([1, 2, 1], abs=0.1)


def test_walks_move_the_attribute_by_what_they_ask(record):
    """The mean value of x is linear in the codes, whose direction is then exact; the class changes on the way."""
    assert record.slope("identity")[0] == pytest.approx(1, abs=1e-4)
    asked = record.attribute["identity"][0, :, 0]
    spread = clusters(100, 0).x.flatten(1).double().mean(1).std()
    torch.testing.assert_close(asked, torch.linspace(-1, 1, 5).double() * REACH * spread)
    kept = record.scores["identity"]["walk"].kept
    assert (kept[:, 2] == 1).all() and 0 < kept.mean() < 1


def test_prior_draws_are_those_of_the_prior(record):
    """Means of |z| and of draws: to 4 standard errors of 40 draws of 4 normals."""
    (images,) = (record.images["identity"]["prior"],)
    assert images.shape == (8, 1, 2, 2) and abs(float(images.mean())) < 4 / 32**0.5


def test_reconstructions_are_off_by_what_the_guide_loses(record):
    found = record.overfit("identity")
    assert found["train"] < 1e-4 and abs(found["gap"]) < 1e-6


def test_a_row_for_each_part_of_each_fit():
    record = compared()
    assert list(record.row_names()) == [
        "test data",
        *(f"{fit}: {part}" for fit in ("autoencoder", "VAE") for part in PARTS),
    ]
    assert "autoencoder: walks move ink by" in record.summary()
    account = record.to_dict()
    assert account["parts"]["VAE: prior"]["log_density"] < 0
    assert account["overfit"]["VAE"]["train"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fits": {}}, "expected fits by name, training and test data that have labels"),
        ({"train": DIGITS.train.x}, "that have labels"),
        ({"num_steps": 2}, "three steps or more"),
        ({"num": 0}, "num must be at least 1"),
        ({"between": (3, 11)}, r"between: expected two labels of test data, which are \[0, 1"),
        (
            {"test": DIGITS.test[DIGITS.test.labels == 3]},
            "lines go between data of two classes: the test data are of one",
        ),
    ],
)
def test_what_cannot_be_compared(change, message):
    given = {"fits": {"VAE": Identity()}, "train": DIGITS.train, "test": DIGITS.test} | change
    with pytest.raises(InputError, match=message):
        pv.continuity(given.pop("fits"), given.pop("train"), given.pop("test"), **given)
