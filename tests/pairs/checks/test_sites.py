"""Every pair without per-datum weights is refused, naming the site and the cause."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal

from pyrovae.base.errors import InputError
from pyrovae.evidence.evaluate import evaluate
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.table import log_terms

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
UNIT = dist.Normal(torch.zeros(2), 1.0)


def inspect_pair(model, guide, args, plate=None):
    return Particles(model, guide, args, plate=plate, strategy="looped").structure


def pair(likelihood=lambda z: dist.Normal(z.sum(-1, keepdim=True).expand(6, 3), 1.0).to_event(1), inside=None):
    """A model of one latent with a likelihood, and whatever else happens ``inside`` its plate."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", UNIT.to_event(1))
            pyro.sample("x", likelihood(z), obs=x)
            if inside:
                inside(x)

    return model


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", UNIT.to_event(1))


def guide_with(inside, before=None):
    def program(x):
        if before:
            before(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", UNIT.to_event(1))
            inside(x)

    return program


def plates(*sizes):
    """Both programs in plates of these sizes, of which the first holds the data's rows."""

    def program(observed):
        def run(x):
            with pyro.plate_stack("plate", sizes):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                if observed:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        return run

    return program(True), program(False)


def no_plate():
    def model(x):
        z = pyro.sample("z", UNIT.expand([len(x), 2]).to_event(2))
        pyro.sample("x", dist.Normal(z.sum() + 0 * x, 1.0).to_event(2), obs=x)

    return model, lambda x: pyro.sample("z", UNIT.expand([len(x), 2]).to_event(2))


def global_latent():
    def model(x):
        pyro.sample("slope", dist.Normal(0.0, 1.0))
        pair()(x)

    return model, guide_with(lambda x: None, before=lambda x: pyro.sample("slope", dist.Normal(0.0, 1.0)))


def latent_outside_in_the_guide():
    def outside(x):
        pyro.sample("z", UNIT.expand([len(x), 2]).to_event(1))

    return pair(), outside


def sequential():
    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", UNIT.to_event(1))
            pyro.sample(f"x_{i}", dist.Normal(z.sum() + 0 * x[i], 1.0).to_event(1), obs=x[i])

    def guide(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z_{i}", UNIT.to_event(1))

    return model, guide


def enumerated():
    def inside(x):
        pyro.sample("k", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})

    return pair(inside=inside), guide


def subsampled(x):
    with pyro.plate("data", len(x), subsample_size=4) as rows:
        z = pyro.sample("z", UNIT.to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) + 0 * x[rows], 1.0).to_event(1), obs=x[rows])


def subsampled_guide(x):
    with pyro.plate("data", len(x), subsample_size=4):
        pyro.sample("z", UNIT.to_event(1))


def sized(size, obs=lambda x: x):
    def model(x):
        with pyro.plate("data", size):
            z = pyro.sample("z", UNIT.to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) + torch.zeros(3), 1.0).to_event(1), obs=obs(x))

    def guide(x):
        with pyro.plate("data", size):
            pyro.sample("z", UNIT.to_event(1))

    return model, guide


def point_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(torch.zeros(2)).to_event(1))


def improper(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(6, 3), 1.0).to_event(1), obs=x)


def unobserved(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", UNIT.to_event(1))


def flat_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(6), 1.0))


SAMPLE_Y = {"guide": lambda x: pyro.sample("y", dist.Normal(x[:, 0], 1.0))}
REFUSED = {  # name: (() -> model, guide; message)
    "no-plate": (no_plate, r"'z' is outside the data plate: evidence per datum needs one pyro.plate"),
    "global-latent": (global_latent, r"'slope' is outside the data plate 'data'.*shared by all data"),
    "latent-outside-in-the-guide": (latent_outside_in_the_guide, r"'z' of the guide is outside the data plate 'data'"),
    "sequential-plate": (sequential, r"'z_0' is outside the data plate: "),
    "missing-in-guide": (
        lambda: (pair(inside=SAMPLE_Y["guide"]), guide),
        r"'y' is in the model but not in the guide.*Draw 'y' in the guide, or observe it",
    ),
    "enumerated": (enumerated, r"'k' is enumerated in the model.*Draw 'k' in the guide"),
    "factor-in-guide": (
        lambda: (pair(), guide_with(lambda x: pyro.factor("penalty", x.sum(-1)))),
        r"'penalty' of the guide is observed \(or a factor\)",
    ),
    "observed-in-guide": (
        lambda: (pair(), guide_with(lambda x: pyro.sample("y", dist.Normal(0.0, 1.0), obs=x[:, 0]))),
        r"'y' of the guide is observed",
    ),
    "not-in-model": (
        lambda: (pair(), guide_with(SAMPLE_Y["guide"])),
        r"'y' is drawn by the guide but is not in the model",
    ),
    "observed-in-model": (
        lambda: (pair(), guide_with(lambda x: pyro.sample("x", dist.Normal(x, 1.0).to_event(1)))),
        r"'x' is observed in the model, yet the guide draws it",
    ),
    "subsample-size": (
        lambda: (subsampled, subsampled_guide),
        r"'data' draws its own rows \(subsample_size=4 of 6\): give the rows as the argument",
    ),
    "point-guide": (lambda: (pair(), point_guide), r"'z' of the guide is a single point \(Delta\)"),
    "event-dims": (lambda: (pair(), flat_guide), r"'z': the model's.*events of shape \(2,\), the guide's over \(\)"),
    "data-shape": (
        lambda: (pair(lambda z: dist.Normal(z, 1.0).to_event(1)), guide),
        r"'x': the likelihood is over events of shape \(2,\).*the data have shape \(6, 3\)",
    ),
    "likelihood-without-to-event": (
        lambda: (pair(lambda z: dist.Normal(z.sum(-1), 1.0)), guide),
        r"'x': .* events of shape \(\) in a batch of shape \(6,\), but the data have shape \(6, 3\)",
    ),
    "several-plates": (lambda: plates(6, 6), r"several plates hold all sites, \['plate_0', 'plate_1'\].*plate="),
    "plate-size": (lambda: sized(4, obs=lambda x: x[:4]), r"'data' has 4 rows but the data have 6.*len\(x\)"),
    "improper-prior": (
        lambda: (improper, guide),
        r"'z' of the model: ImproperUniform has no total mass.*a wide Normal",
    ),
    "nothing-observed": (lambda: (unobserved, guide), "observes nothing: give its data to a site with obs="),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case):
    build, message = case
    with pytest.raises(InputError, match=message):
        inspect_pair(*build(), (X,))
    with pytest.raises(InputError, match=message):
        log_terms(*build(), X, num_particles=2)
    with pytest.raises(InputError, match=message):
        evaluate(*build(), X, num_particles=2, progress=False)


def test_latents_of_all_data_drawn_at_once_are_told_how_else():
    named = (
        r"'_AutoDiagonalNormal_latent' of the guide is outside the data plate 'data'.*AutoNormal draws each datum's in"
    )
    with pyro.get_param_store().scope(), pytest.raises(InputError, match=named):
        evaluate(pair(), AutoDiagonalNormal(pair()), X, num_particles=2, progress=False)


def test_a_plate_that_is_none_is_named():
    with pytest.raises(InputError, match=r"plate '0' does not hold site 'z'; plates found: \['data'\]"):
        evaluate(pair(), guide, X, plate="0", progress=False)


def test_no_tensor_argument():
    for args in ((), (3,), (torch.tensor(1.0),), (torch.zeros(0, 3),)):
        with pytest.raises(InputError, match="a tensor argument whose first dimension is the datum; none was given"):
            log_terms(pair(), guide, *args, num_particles=2)
    with pytest.raises(InputError, match="a tensor argument whose first dimension is the datum; none was given"):
        inspect_pair(pair(), guide, (3, "option"))


def test_a_forgotten_to_event_in_the_guide_names_the_site():
    def wide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(6, 2), 1.0))

    with pytest.raises(ValueError, match=r"site z"):  # Pyro's own
        inspect_pair(pair(), wide, (X,))


# ------------------------------------------------------------------------------------ supports

COUNTS = torch.tensor([[0.0, 1, 2]]).expand(6, 3)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


def changed(x, value, row=4, column=1):
    x = x.clone()
    x[(row, column) if x.dim() == 2 else row] = value
    return x


def rows(build):
    """A likelihood of (6, 3) values with one event dimension, whatever z."""
    return lambda z: build(torch.full((6, 3), 0.5)).to_event(1)


OUTSIDE = {  # name: (likelihood, good data, bad value, message)
    "grey-bernoulli": (rows(dist.Bernoulli), (X > 0).float(), 0.25, r"Bernoulli \(0 or 1\), .* is 0.25.*binarize"),
    "nan-bernoulli": (rows(dist.Bernoulli), (X > 0).float(), math.nan, "the first is nan"),
    "nan-normal": (rows(lambda p: dist.Normal(p, 1.0)), X, math.nan, r"Normal \(finite reals\), the first is nan"),
    "inf-normal": (rows(lambda p: dist.Normal(p, 1.0)), X, math.inf, r"Normal \(finite reals\), the first is inf"),
    "negative-poisson": (rows(dist.Poisson), COUNTS, -1.0, r"Poisson \(whole numbers from 0\), the first is -1"),
    "half-poisson": (rows(dist.Poisson), COUNTS, 0.5, r"Poisson \(whole numbers from 0\), the first is 0.5"),
    "binomial": (rows(lambda p: dist.Binomial(2, p)), COUNTS, 3.0, r"\(0 to 2, whole numbers\), the first is 3"),
    "grey-above-one": (rows(dist.ContinuousBernoulli), X.sigmoid(), 1.5, r"\(0 to 1\), the first is 1.5.*divisor="),
    "class": (
        lambda z: dist.Categorical(torch.ones(6, 3)), CLASSES, 3, r"\(0 to 2, whole numbers\), the first is 3"
    ),
    "nan-multivariate": (
        lambda z: dist.MultivariateNormal(torch.zeros(6, 3), torch.eye(3)), X, math.nan,
        r"\(finite reals\), the first is \[.*nan.*\] at \(4,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("validation", [True, False])
def test_outside_the_support(case, validation):
    likelihood, good, value, message = case
    with pyro.validation_enabled(validation):
        inspect_pair(pair(likelihood), guide, (good,))
        with pytest.raises(InputError, match=rf"'x': 1 of \d+ values are outside the support of .*{message}"):
            inspect_pair(pair(likelihood), guide, (changed(good, value),))


def test_outside_the_support_says_where():
    with pytest.raises(InputError, match=r"at \(4, 1\)"):
        inspect_pair(pair(rows(dist.Poisson)), guide, (changed(COUNTS, -2.0),))


KEEP = changed(torch.ones(6, 3, dtype=torch.bool), False)
MASKS = {  # name: (mask of rows or None, likelihood)
    "rows": (torch.arange(6) != 4, rows(lambda p: dist.Normal(p, 1.0))),
    "nothing": (False, rows(lambda p: dist.Normal(p, 1.0))),
    "scalar": (torch.tensor(False), rows(lambda p: dist.Normal(p, 1.0))),
    "distribution": (None, rows(lambda p: dist.Normal(p, 1.0).mask(KEEP))),
    "multivariate": (torch.arange(6) != 4, lambda z: dist.MultivariateNormal(torch.zeros(6, 3), torch.eye(3))),
}


@pytest.mark.parametrize("case", MASKS.values(), ids=MASKS)
def test_masked_values_may_be_anything(case):
    mask, likelihood = case
    programs = pair(likelihood), guide
    if mask is not None:
        programs = [poutine.mask(program, mask=mask) for program in programs]
    inspect_pair(*programs, (changed(X, math.nan),))
    if mask is not False and mask is not MASKS["scalar"][0]:
        with pytest.raises(InputError, match=r"the first is .*nan"):
            inspect_pair(*programs, (changed(X, math.nan, row=2),))


def test_a_plate_of_that_name_that_does_not_hold_all():
    with pytest.raises(InputError, match=r"plate 'rows' does not hold site '[zx]'; plates found: \['data'\]"):
        inspect_pair(pair(), guide, (X,), plate="rows")


def test_a_latent_in_more_plates_in_the_model_than_in_the_guide_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.mean(1), 1.0))

    with pytest.raises(
        InputError, match=r"site 'z': its plates make a batch of shape \(3, 6\) in the model and of \(6,\)"
    ):
        inspect_pair(model, guide, (torch.zeros(6, 3),))
