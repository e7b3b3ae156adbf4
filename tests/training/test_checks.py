"""What cannot be fitted is refused before a first step, by argument, site or row."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae
from pyro.infer import RenyiELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger

import pyrovae as pv
from pyrovae.programs.distributions.mixtures import NormalMixture


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": "3"}, "epochs must be a whole number, got '3'"),
        ({"batch_size": 64.5}, "batch_size must be a whole number, got 64.5"),
        ({"objective": "iwae"}, "objective must be an ELBO or None"),
        ({"schedule": "cosine"}, "schedule must be a function"),
        ({"patience": 3}, "patience needs validation data"),
        ({"valid": torch.full((5, 4, 4), torch.nan)}, "the first is row 0 of the validation data"),
        ({"resume": True}, "resume needs the folder"),
        ({"device": "tpu9"}, "unknown device 'tpu9'"),
        ({"valid": torch.full((5, 4, 4), 0.5)}, "outside the support of Bernoulli"),
        ({"kl_warmup": -1}, "kl_warmup must not be negative"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments(keywords, message):
    vae = make_vae()
    with pytest.raises(pv.InputError, match=message):
        pv.fit(vae.model, vae.guide, make_data(), **{"epochs": 1, **keywords})


def test_data_outside_the_support_are_refused_before_training():
    vae = make_vae()
    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(pv.InputError, match="outside the support of Bernoulli"):
        pv.fit(vae.model, vae.guide, torch.cat([make_data(600), torch.full((1, 4, 4), 0.5)]), epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))


def test_too_little_memory_says_what_to_lower(monkeypatch):
    vae = make_vae()

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(vae.encoder, "forward", full)
    with pytest.raises(pv.InputError, match="not enough memory"):
        pv.fit(vae.model, vae.guide, make_data(), epochs=1)


def test_a_data_plate_is_named_where_two_hold_all_sites():
    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("inner", 5, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x), dim=-2), pyro.plate("inner", 5, dim=-1):
            pyro.sample("z", dist.Normal(loc, 1.0))

    x = torch.randn(5, 5)
    with pytest.raises(pv.InputError, match="name the data plate with plate="):
        pv.fit(model, guide, x, epochs=1)
    assert len(pv.fit(model, guide, x, epochs=1, plate="data").history) == 1


def test_iwae_over_discrete_draws_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(pyro.param("p", torch.ones(2)).softmax(-1)))

    objective = RenyiELBO(alpha=0, num_particles=2, vectorize_particles=True)
    with pytest.raises(pv.InputError, match="site 'k' of the guide cannot be reparameterized"):
        pv.fit(model, guide, torch.randn(10), epochs=1, objective=objective)
    assert pv.fit(model, guide, torch.randn(10), epochs=1).history[0]["elbo"] < 0


def test_closed_form_kl_over_latents_in_another_order_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(x + loc, 1.0))
            pyro.sample("a", dist.Normal(b / 2, 1.0))

    with pytest.raises(pv.InputError, match="TraceMeanField_ELBO needs the guide to draw its latents"):
        pv.fit(model, guide, torch.randn(10), epochs=1, objective=TraceMeanField_ELBO())


# ------------------------------------------------------------------------------- what no step could be taken on


def pair_of(likelihood, encoder=None, prior=None):
    """A pair whose latent has one coordinate; the likelihood is of three values."""
    encoder = torch.nn.Linear(3, 1) if encoder is None else encoder
    prior = prior or (lambda: dist.Normal(torch.zeros(()), 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z[..., None].expand(*z.shape, 3)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x)[..., 0], 1.5))

    return model, guide


def unit_normal(z):
    return dist.Normal(z, 1.0)


def rows(num=97):
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1


def fitted(pair, x, **keywords):
    return pv.fit(*pair, x, **{"epochs": 1, "batch_size": 32, "progress": False, **keywords})


def test_a_pair_without_parameters_is_refused():
    with pytest.raises(pv.InputError, match="the programs have no parameter to fit"):
        fitted(pair_of(unit_normal, encoder=torch.nn.Flatten()), rows())


def test_frozen_parameters_are_none():
    with pytest.raises(pv.InputError, match="no parameter to fit"):
        fitted(pair_of(unit_normal, encoder=torch.nn.Linear(3, 1).requires_grad_(False)), rows())


def with_batch_norm():
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))


def test_batch_norm_over_one_row_is_refused_before_the_first_step():
    encoder = with_batch_norm()
    before = [tensor.clone() for tensor in encoder.state_dict().values()]
    with pytest.raises(pv.InputError, match=r"a batch of one row .* batch norm \(BatchNorm1d\) .* another batch_size"):
        fitted(pair_of(unit_normal, encoder), rows(97))
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.state_dict().values(), strict=True))
    assert encoder.training
    fitted(pair_of(unit_normal, encoder), rows(98))


ENDS = {
    "beta": (lambda z: dist.Beta(z.sigmoid() + 1, 2.0), 0.0, r"Beta, .* strictly between 0 and 1"),
    "beta at 1": (lambda z: dist.Beta(z.sigmoid() + 1, 2.0), 1.0, r"Beta, .* strictly between 0 and 1"),
    "gamma": (lambda z: dist.Gamma(z.sigmoid() + 1, 1.0), 0.0, r"Gamma, .* above 0"),
    "kumaraswamy": (lambda z: dist.Kumaraswamy(z.sigmoid() + 1, 2.0), 0.0, r"Kumaraswamy, .* strictly between 0 and 1"),
    "uniform": (lambda z: dist.Uniform(0 * z, 1 + 0 * z), 1.0, r"Uniform, .* strictly between 0 and 1"),
}


@pytest.mark.parametrize("name", ENDS)
def test_data_on_an_end_of_a_support_are_named(name):
    likelihood, end, message = ENDS[name]
    x = rows()
    x[3, 1] = end
    with pytest.raises(
        pv.InputError, match=f"site 'x': 1 values .* is {end:g} in row 3 of the training data.*{message}"
    ):
        fitted(pair_of(likelihood), x)
    with pytest.raises(pv.InputError, match="in row 3 of the validation data"):
        fitted(pair_of(likelihood), rows(), valid=x)


def test_a_simplex_with_a_zero_is_named():
    net = torch.nn.Linear(3, 1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Dirichlet(z[..., None].exp() + torch.tensor([1.0, 2.0, 3.0])), obs=x)

    x = rows() / rows().sum(-1, keepdim=True)
    x[5] = torch.tensor([0.0, 0.4, 0.6])
    with pytest.raises(pv.InputError, match=r"row 5 of the training data .* Dirichlet, .* strictly between 0 and 1"):
        fitted((model, pair_of(unit_normal, net)[1]), x)


def test_a_parameter_without_a_density_is_named():
    with pytest.raises(pv.InputError, match=r"site 'x': .* Look at the parameters of Normal there"):
        fitted(pair_of(lambda z: dist.Normal(z * 1e30, 1e-20)), rows())


def test_masked_values_may_lie_anywhere():
    x = rows()
    x[3, 1] = 0.0
    model, guide = pair_of(lambda z: dist.Gamma(z.exp() + 1, 1.0).mask(x[: len(z)] * 0 + 1 > 0))
    with pytest.raises(pv.InputError, match="row 3"):
        fitted((model, guide), x, batch_size=97)
    model, guide = pair_of(lambda z: dist.Gamma(z.exp() + 1, 1.0).mask(x > 0))
    assert len(fitted((model, guide), x, batch_size=97).history) == 1


# ------------------------------------------------------------------------------------- as an evaluation refuses

PRIORS = {
    "VonMises": lambda: dist.VonMises(torch.zeros(()), 1.0),
    "Exponential": lambda: dist.Exponential(torch.ones(())),
    "Uniform": lambda: dist.Uniform(torch.zeros(()), torch.ones(())),
}


@pytest.mark.parametrize("name", PRIORS)
def test_a_normal_guide_outside_the_prior_is_refused(name):
    with pytest.raises(pv.InputError, match=rf"site 'z': .* guide \(Normal\) .* support of the prior \({name}"):
        fitted(pair_of(unit_normal, prior=PRIORS[name]), rows())


def test_a_guide_random_beyond_its_sites_is_refused():
    class Noisy(torch.nn.Linear):
        def forward(self, x):
            return torch.nn.functional.dropout(super().forward(x), 0.5, training=True)

    with pytest.raises(pv.InputError, match="site 'z' of the guide: its log density changes from run to run"):
        fitted(pair_of(unit_normal, Noisy(3, 1)), rows())


# --------------------------------------------------------------------------------------------------- optimizers

OPTIMIZERS = {
    "Pyro's AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({}),
    "Pyro's ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.01}),
    "of some parameters": lambda: lambda ps: torch.optim.Adam(ps[:1], lr=0.01),
}
UNFIT = {
    "LBFGS": (lambda ps: torch.optim.LBFGS(ps), "optimizer LBFGS looks at the loss several times"),
    "SparseAdam": (lambda ps: torch.optim.SparseAdam(ps), "does not support dense gradients"),
    "a bad rate": (lambda ps: torch.optim.Adam(ps, lr=-1), "Invalid learning rate: -1"),
    "a number": (3, "optimizer must be a PyroOptim or a function"),
    "no optimizer made": (lambda ps: 3, "it gave 3"),
    "Pyro's of several": (pyro.optim.multi.MultiOptimizer(), "optimizer must be a PyroOptim or a function"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_steps(name):
    encoder = torch.nn.Linear(3, 1)
    before = [p.clone() for p in encoder.parameters()]
    fitted(pair_of(unit_normal, encoder), rows(), optimizer=OPTIMIZERS[name]())
    moved = [not torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True)]
    assert sum(moved) == (1 if name == "of some parameters" else 2)


@pytest.mark.parametrize("name", UNFIT)
def test_an_optimizer_that_cannot(name):
    optimizer, message = UNFIT[name]
    with pytest.raises(pv.InputError, match=message):
        fitted(pair_of(unit_normal), rows(), optimizer=optimizer)


def test_a_schedule_needs_a_rate():
    class Rateless(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=0.1)
            del self.param_groups[0]["lr"]

    with pytest.raises(pv.InputError, match="multiplies a learning rate"):
        fitted(pair_of(unit_normal), rows(), optimizer=Rateless, schedule=lambda fraction: 0.5)


def test_whole_numbers_of_numpy_are_kept_as_plain_ones(tmp_path):
    vae = make_vae()
    sizes = {"epochs": np.int64(1), "batch_size": np.int32(20), "patience": np.int64(2), "seed": np.int64(3)}
    fitted = pv.fit(vae.model, vae.guide, make_data(), valid=make_data(), **sizes, out=tmp_path, progress=False)
    assert all(type(fitted.settings[name]) is int for name in sizes)


def test_data_and_programs_of_two_dtypes_are_named():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(linear(x)[..., 0], 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 5), 1.0).to_event(1), obs=x)

    linear = torch.nn.Linear(5, 1)
    for data, mend in {
        torch.zeros(4, 5).double(): r"are float64, the programs float32: give x.float\(\), or .*module.double\(\)",
        torch.zeros(4, 5).long(): r"are int64, the programs float32: give x.float\(\)$",
    }.items():
        for run in (pv.evaluate, pv.fit):
            with pytest.raises(pv.InputError, match=mend):
                run(model, guide, data, **({"epochs": 1} if run is pv.fit else {}), progress=False)
    linear.double()
    with pytest.raises(pv.InputError, match=r"the data are float32, the programs float64: give x.double\(\)$"):
        pv.fit(model, guide, torch.zeros(4, 5), epochs=1, progress=False)


@pytest.mark.parametrize("kind", [AutoNormal, AutoNormalMessenger], ids=lambda kind: kind.__name__)
def test_an_automatic_guide_takes_all_rows_in_one_batch(kind):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(20, generator=torch.Generator().manual_seed(0))
    with pytest.raises(pv.InputError, match=r"'.*locs\.z'\) for each of 20 rows, but was run on 8: .*batch_size=20"):
        pv.fit(model, kind(model), x, epochs=1, batch_size=8, progress=False)
    guide = kind(model)
    fitted = pv.fit(model, guide, x, epochs=2, batch_size=20, progress=False)
    assert pv.evaluate(fitted.model, fitted.guide, x, num_particles=5, progress=False).elbo.isfinite().all()


def test_an_automatic_guide_whose_parameters_are_shared_takes_batches():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoNormalMessenger(model, amortized_plates=("data",))
    assert len(pv.fit(model, guide, torch.zeros(20), epochs=2, batch_size=8, progress=False).history) == 2


# ------------------------------------------------------------------------------------- draws without a gradient


def guided_by(family):
    """A pair whose guide draws a vector of two from what ``family`` makes of four numbers."""
    encoder = torch.nn.Linear(3, 4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(encoder(x).unflatten(-1, (2, 2))))

    return model, guide


def of_two_normals(locs):
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(locs, 1.0).to_event(1))


def test_continuous_draws_without_a_gradient_are_said_loudly():
    message = "site 'z' of the guide: draws of MixtureSameFamily carry no gradient .* score function .*has_rsample"
    with pytest.warns(pv.NoisyGradients, match=message) as told:
        fitted(guided_by(of_two_normals), rows())
    assert [(warning.category, warning.filename) for warning in told] == [(pv.NoisyGradients, __file__)]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (lambda locs: NormalMixture(locs, torch.ones_like(locs), torch.zeros(2)), {}),
        (of_two_normals, {"objective": pv.objectives.ForwardKL(), "only": "guide"}),
        (of_two_normals, {"objective": pv.objectives.SelfConsistency(2), "only": "guide"}),
    ],
    ids=["draws that carry one", "no draws", "draws that are held fixed"],
)
def test_nothing_is_said_of_gradients_where_none_is_lost(family, options):
    assert len(fitted(guided_by(family), rows(), **options).history) == 1  # a warning would be an error


def test_nothing_is_said_of_draws_without_parameters():
    model, _ = guided_by(of_two_normals)
    scale = torch.nn.Parameter(torch.ones(()))

    def scaled(x):
        pyro.param("scale", scale)
        model(x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", of_two_normals(torch.zeros(len(x), 2, 2)))

    assert len(fitted((scaled, guide), rows()).history) == 1


def test_nothing_is_said_of_draws_that_can_have_no_gradient():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(pyro.param("p", torch.ones(2)).softmax(-1)))

    assert len(fitted((model, guide), torch.randn(10)).history) == 1
