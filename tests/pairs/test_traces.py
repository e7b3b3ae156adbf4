"""What runs of a pair give: the model scored on what the guide drew, and how many data there are."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import (
    AutoGuideList,
    AutoHierarchicalNormalMessenger,
    AutoNormal,
    AutoNormalMessenger,
    AutoRegressiveMessenger,
)

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.handlers import Placed, in_precision, scorable
from pyrovae.pairs.traces import num_rows, plain_traces, site_log_prob, sites, sites_of


def model(x):
    with pyro.plate("data", 20, subsample_size=len(x)):
        pyro.deterministic("constant", torch.tensor(1.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", 20, subsample_size=len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_plain_traces_score_the_model_on_what_the_guide_drew():
    model_trace, guide_trace = plain_traces(model, guide, (torch.zeros(5),))
    assert model_trace.nodes["z"]["value"] is guide_trace.nodes["z"]["value"]
    assert (list(sites(model_trace)), list(sites(guide_trace))) == (["z", "x"], ["z"])


@pytest.mark.parametrize("args", [(torch.zeros(4, 2),), ("option", torch.tensor(1.0), torch.zeros(4), torch.zeros(3))])
def test_num_rows(args):
    assert num_rows(args) == 4


def labelled(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)


def plain_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_programs_and_data_of_unlike_number_are_named():
    with pytest.raises(InputError, match=r"the model takes 2 arguments \(x, y\), the data have 1"):
        plain_traces(scorable(labelled), plain_guide, (torch.zeros(5),))
    with pytest.raises(InputError, match=r"the guide takes 1 arguments \(x\), the data have 2"):
        plain_traces(labelled, plain_guide, (torch.zeros(5), torch.zeros(5)))


def test_a_programs_own_type_error_stays_its_own():
    def wrong(x):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        plain_traces(wrong, plain_guide, (torch.zeros(5),))


def test_rows_that_one_program_draws_are_named():
    def drawing(x):
        with pyro.plate("data", 1000, subsample_size=10):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(InputError, match=r"plate 'data' draws its own rows \(subsample_size=10 of 1000\)"):
        plain_traces(drawing, plain_guide, (torch.zeros(97),))


def test_a_table_among_the_arguments_is_named():
    def by_class(x, labels, table):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + table[labels], 1.0), obs=x)

    args = torch.zeros(2), torch.tensor([4, 1]), torch.zeros(2)
    with pytest.raises(InputError, match=r"does not run on a block of 2 rows: .* the first dimension of each must be"):
        plain_traces(by_class, lambda x, *_: plain_guide(x), args)


# ------------------------------------------------------------------------------------ what cannot be drawn or scored


def drawing(fn):
    def program(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn)

    return program


UNDRAWN = {
    "improper": (dist.ImproperUniform(dist.constraints.real, (), ()), "ImproperUniform does not support sampling"),
    "negative rate": (dist.Poisson(torch.tensor(-1.0), validate_args=False), "invalid Poisson rate"),
}


@pytest.mark.parametrize(("fn", "cause"), UNDRAWN.values(), ids=UNDRAWN)
def test_a_family_that_cannot_be_drawn_from_is_named_by_its_site(fn, cause):
    named = rf"site 'z' of the guide: {type(fn).__name__} cannot be drawn from \(.*{cause}.*\); look at"
    with pytest.raises(InputError, match=named):
        plain_traces(plain_model, drawing(fn), (torch.zeros(5),))
    with pytest.raises(InputError, match=f"site 'z' of the model: {type(fn).__name__} cannot be drawn from"):
        pv.sample(drawing(fn), torch.zeros(5), num_samples=2)


class Undense(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError


UNSCORED = {
    "no batch": dist.GaussianScaleMixture(torch.ones(2), torch.zeros(3), torch.ones(3)),
    "no density": Undense(torch.zeros(2), 1.0).to_event(1),
}


@pytest.mark.parametrize("fn", UNSCORED.values(), ids=UNSCORED)
def test_a_family_that_cannot_score_its_draws_is_named_by_its_site(fn):
    site = sites_of(drawing(fn), torch.zeros(5))["z"]
    with pytest.raises(
        InputError, match=r"site 'z': (GaussianScaleMixture|Undense) has no log density at values of sh"
    ):
        site_log_prob(site)


# -------------------------------------------------------------------------------------- parameters for other rows


def plain_model(x):
    level = pyro.param("level", torch.zeros(2)).sum()
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(level, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def by_rows(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", lambda: x / 2), 1.0))


def model_by_rows(x):
    rows = pyro.param("rows", lambda: x / 2)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + rows, 1.0), obs=x)


def listed(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(model))
    return guide


KEEPERS = {  # (model, what makes the guide, which of them keeps its rows, by which parameter)
    "param": (plain_model, lambda model: by_rows, "guide", "loc"),
    "model": (model_by_rows, lambda model: plain_guide, "model", "rows"),
    "AutoNormal": (plain_model, AutoNormal, "guide", "AutoNormal.locs.z"),
    "AutoGuideList": (plain_model, listed, "guide", "AutoGuideList.0.locs.z"),
    "AutoNormalMessenger": (plain_model, AutoNormalMessenger, "guide", "locs.z"),
}
MEASUREMENTS = {
    "evaluate": lambda pair, x: pv.evaluate(*pair, x, num_particles=3, progress=False),
    "fit": lambda pair, x: pv.fit(*pair, x, epochs=1, progress=False),
    "annealed": lambda pair, x: pv.annealed_evidence(*pair, x, num_temperatures=2, num_chains=2, progress=False),
    "surgery": lambda pair, x: pv.surgery(*pair, x, progress=False),
    "calibrate": lambda pair, x: pv.calibrate(*pair, x, num_simulations=6, num_draws=3, num_particles=3),
    "reference": lambda pair, x: pv.reference_posterior(*pair, x[:1], num_draws=5, progress=False),
    "check": lambda pair, x: pv.predictive_check(*pair, x, num_draws=3, progress=False),
    "log_terms": lambda pair, x: pv.log_terms(*pair, x, num_particles=3),
    "posterior": lambda pair, x: pv.posterior(*pair, x),
}


@pytest.mark.global_params
@pytest.mark.parametrize("measurement", MEASUREMENTS)
@pytest.mark.parametrize("name", KEEPERS)
def test_programs_that_keep_the_rows_that_they_were_made_with_are_named(name, measurement):
    model, make, role, parameter = KEEPERS[name]
    guide = make(model)
    plain_traces(model, guide, (torch.linspace(-1, 1, 9),))
    if (name, measurement) == ("param", "fit") or (name, measurement) == ("model", "fit"):
        return  # a fit starts with new parameters
    rows = 1 if measurement == "reference" else 6
    named = rf"the {role} has a parameter \('{parameter}'\) for each of 9 rows, but was run on {rows}: .*batch_size=9"
    with pytest.raises(InputError, match=named):
        MEASUREMENTS[measurement]((model, guide), torch.linspace(-1, 1, 6))


def test_sizes_that_fit_no_parameter_are_told_in_torchs_words():
    def wrong(x):
        weight = pyro.param("weight", torch.ones(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(7) + torch.zeros(9) * weight.sum(), 1.0))

    with (
        pyro.get_param_store().scope(),
        pytest.raises(
            InputError, match=r"the guide does not run on data of shape \(5,\): The size of tensor a \(7\) must match"
        ),
    ):
        plain_traces(plain_model, wrong, (torch.zeros(5),))


# ------------------------------------------------------------------------------------------------ guide messengers


MESSENGERS = (AutoNormalMessenger, AutoHierarchicalNormalMessenger, AutoRegressiveMessenger)


@pytest.mark.global_params
@pytest.mark.parametrize("kind", MESSENGERS, ids=lambda kind: kind.__name__)
def test_a_guide_that_runs_the_model_is_known_by_what_it_draws(kind):
    """log p(x) of N(0, 2) by four standard errors, as by any other guide; the likelihood is not the guide's."""
    x = torch.linspace(-1, 1, 6)
    guide = kind(plain_model, init_scale=0.7)
    assert list(plain_traces(plain_model, guide, (x,)).drawn) == ["z"]
    for handled in (Placed({"z": x})(guide), in_precision(guide, "bfloat16"), pyro.plate("many", 3, dim=-2)(guide)):
        assert list(sites_of(handled, x)) == ["z"]
    exact = dist.Normal(0.0, 2**0.5).log_prob(x)
    report = pv.evaluate(plain_model, guide, x, num_particles=2000, progress=False)
    assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence + 1e-5).all()
    fitted = pv.fit(plain_model, guide, x, epochs=2, kl_warmup=1, objective=pyro.infer.Trace_ELBO(), progress=False)
    assert [row["epoch"] for row in fitted.history] == [1, 2]


def test_a_module_in_the_place_of_its_program_is_named():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.bernoulli(), 4, pv.networks.mlp(2, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp(4, seed=1)),
    )
    with pytest.raises(pv.InputError, match="is a module without forward: give the method of VAE that is the program"):
        pv.evaluate(vae, vae, torch.zeros(3, 4), progress=False)
