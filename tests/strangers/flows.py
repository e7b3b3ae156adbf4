"""Flows, mixtures and full covariances as guides and priors; posteriors of two modes; draws beside the sites."""

import math

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from strangers.constrained import SUPPORT
from strangers.stranger import BY_WEIGHTS, OF_DRAWS, Stranger, line, noise, positive, refuse, summed
from torch.nn.functional import dropout

PLANE = noise(21, 6, 2)
REALS = noise(22, 6)
RANDOM = ("random", "chang", "differ", "not the same", "same draw", "twice", "dropout", "noise", "beyond")


def plane_evidence(x):
    """z ~ N(0, 1) and x ~ N(z, 1), coordinate by coordinate."""
    return dist.Normal(0.0, 2**0.5).log_prob(x.double()).sum(-1)


def on_plane(make, *modules, **more):
    """Two coordinates; ``make(x)`` is the guide's distribution."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        for number, module in enumerate(modules):
            pyro.module(f"flow{number}", module)
        shift = pyro.param("shift", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", make(x + shift))

    more.setdefault("posterior_mean", {"z": PLANE / 2})
    return Stranger(model, guide, (PLANE,), plane_evidence, **more)


def seeded(make):
    """A transform whose weights are small and always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 0.5
    return module


def around(x, transforms, scale=1.0):
    return dist.TransformedDistribution(dist.Normal(x / 2, scale).to_event(1), transforms)


def autoregressive_flow():
    flow = seeded(lambda: T.affine_autoregressive(2, [8]))
    return on_plane(lambda x: around(x, [flow]), flow)


def spline_flow():
    flow = T.spline(2, count_bins=4)
    for parameter in flow.parameters():
        torch.nn.init.zeros_(parameter)
    return on_plane(lambda x: around(x, [flow]), flow)


def coupling_flow():
    flow = seeded(lambda: T.affine_coupling(2, [8]))
    return on_plane(lambda x: around(x, [flow, T.permute(2, torch.tensor([1, 0]))]), flow)


def conditional_flow():
    """The flow's shifts and scales are read from the datum."""
    flow = seeded(lambda: T.conditional_affine_coupling(2, 2, hidden_dims=[8]))
    return on_plane(lambda x: around(x, [flow.condition(x)]), flow)


BY_COPIES = ("annealed", "bidirectional", "gaps", "surgery", "calibrate", "reference")  # of draws, given to the guide
NO_INVERSE = refuse("z", "inverse", "invert", by=BY_COPIES, or_right=True)


def radial_flow():
    """No inverse: a density is known at its own draws alone."""
    flow = seeded(lambda: T.radial(2))
    return on_plane(lambda x: around(x, [flow]), flow, refused=NO_INVERSE)


def sylvester_flow():
    flow = seeded(lambda: T.sylvester(2, 2))
    return on_plane(lambda x: around(x, [flow]), flow, refused=NO_INVERSE)


def full_covariance():
    """A triangular factor; twice as wide as the posterior in one direction."""
    factor = torch.tensor([[0.75, 0.0], [0.25, 1.0]])
    return on_plane(
        lambda x: dist.MultivariateNormal(x / 2, scale_tril=factor), guide_mean={"z": PLANE / 2}, exact=False
    )


def low_rank():
    return on_plane(
        lambda x: dist.LowRankMultivariateNormal(x / 2, torch.tensor([[0.5], [0.25]]), torch.tensor([0.5, 0.5])),
        guide_mean={"z": PLANE / 2},
        exact=False,
    )


def student_guide():
    return on_plane(lambda x: dist.StudentT(6.0, x / 2, 0.75).to_event(1), guide_mean={"z": PLANE / 2}, exact=False)


def mixture_guide():
    """Two components for each coordinate."""

    def make(x):
        parts = dist.Normal((x / 2)[..., None] + torch.tensor([-0.5, 0.5]), 0.75)
        return dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.5, 0.5])), parts).to_event(1)

    return on_plane(make, guide_mean={"z": PLANE / 2}, exact=False)


def mixture_prior():
    """The prior is a mixture; x is one, too."""

    def prior():
        return dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.25, 0.75])), dist.Normal(torch.tensor([-2.0, 1.0]), 0.5)
        )

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(1.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, scale))

    return summed(
        model,
        guide,
        (REALS,),
        line(-12, 12),
        lambda z, x: prior().log_prob(z)[:, None] + dist.Normal(z[:, None], 1.0).log_prob(x),
        lambda z, x: dist.Normal(0.5 * x, 1.25).log_prob(z[:, None]),
        lambda z: {"z": z},
        exact=False,
    )


def transformed_prior():
    """A prior by transforms: the exponential of a normal, twice over."""

    def prior():
        return dist.TransformedDistribution(
            dist.Normal(torch.tensor(0.0), 0.5), [T.AffineTransform(0.5, 1.0), T.ExpTransform()]
        )

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(loc + 0.25 * (x - 2), 0.5))

    return summed(
        model,
        guide,
        (REALS + 2,),
        positive(),
        lambda z, x: dist.LogNormal(0.5, 0.5).log_prob(z)[:, None] + dist.Normal(z[:, None], 0.5).log_prob(x),
        lambda z, x: dist.LogNormal(0.5 + 0.25 * (x - 2), 0.5).log_prob(z[:, None]),
        lambda z: {"z": z},
    )


def tanh_guide():
    """A prior between minus one and one, a guide squashed into the same."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(-torch.ones(()), 1.0))
            pyro.sample("x", dist.Normal(z, 0.75), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(0.75))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(0.5 * x, scale), [T.TanhTransform()]))

    u = line(-9.5, 9.5)
    z = u[0].tanh()
    return summed(
        model,
        guide,
        (REALS,),
        (z, u[1] + torch.log1p(-(z**2))),
        lambda z, x: -math.log(2) + dist.Normal(z[:, None], 0.75).log_prob(x),
        lambda z, x: dist.Normal(0.5 * x, 0.75).log_prob(z.atanh()[:, None]) - torch.log1p(-(z**2))[:, None],
        lambda z: {"z": z},
    )


# ------------------------------------------------------------------------------------------------------ two far modes


def square_root(make, **more):
    """Only the square of z is seen: a posterior of two modes."""
    x = 4 + REALS.abs()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 2.0))
            pyro.sample("x", dist.Normal(z**2, 0.75), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(0.25))
        with pyro.plate("data", len(x)):
            pyro.sample("z", make(x.clamp_min(0.25).sqrt(), scale))

    return summed(
        model,
        guide,
        (x,),
        line(-16, 16, 8001),
        lambda z, x: dist.Normal(0.0, 2.0).log_prob(z)[:, None] + dist.Normal(z[:, None] ** 2, 0.75).log_prob(x),
        lambda z, x: make(x.sqrt(), torch.tensor(0.25)).log_prob(z[:, None]),
        lambda z: {"z": z},
        **more,
    )


def two_modes_by_mixture():
    def make(root, scale):
        return dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.5, 0.5], dtype=root.dtype)),
            dist.Normal(torch.stack([-root, root], -1), scale),
        )

    return square_root(make)


def two_modes_by_wide_normal():
    return square_root(lambda root, scale: dist.Normal(0 * root, 10 * scale), exact=False)


def two_modes_by_one():
    """Half of the posterior is out of the guide's reach, which no draw of the guide can tell: see test_strangers."""
    blind = ("evaluate", "compiled", "blocks", "convergence", "annealed", "bidirectional", "gaps")
    return square_root(
        lambda root, scale: dist.Normal(root, scale),
        skipped=(*blind, "reference", "calibrate", "posterior", "log_terms"),
    )


def signs_of_five_by_one():
    """Only the sizes of five latents are seen: 32 modes, of which the guide knows one, and none lies on a prior's way."""
    x = 2 + (REALS[:, None] + torch.arange(5.0)).abs() / 2
    variance = 1 / (2.0**-2 + 0.5**-2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(5), 2.0).expand([len(x), 5]).to_event(1))
            pyro.sample("x", dist.Normal(z.abs(), 0.5).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(variance**0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(4 * variance * x, scale).to_event(1))

    def log_evidence(x):
        x = x.double()
        positive = dist.Normal(0.0, 1.0).cdf(4 * variance**0.5 * x)
        return (math.log(2) + dist.Normal(0.0, (2.0**2 + 0.5**2) ** 0.5).log_prob(x) + positive.log()).sum(-1)

    blind = ("evaluate", "compiled", "blocks", "convergence", "annealed", "bidirectional", "gaps")
    skipped = (*blind, "reference", "calibrate", "posterior", "log_terms")
    return Stranger(model, guide, (x,), log_evidence, skipped=skipped)


# ------------------------------------------------------------------- guides that are random beyond their sample sites


BY_DRAWS = (*OF_DRAWS, "fit")  # score what was drawn, where it was


def unscored(site, *words):
    """Each draw has a density given what else was drawn, so its weight is sound; q(z | x) is known to nobody."""
    others = ("annealed", "bidirectional", "gaps", "surgery", "calibrate")
    return refuse(site, *words, by=BY_DRAWS, or_right=True) | refuse(site, *words, by=others)


def by_noise(make):
    skipped = ("posterior", "predictive_check", "reference")
    return on_plane(make, refused=unscored("z", *RANDOM), skipped=skipped, posterior_mean={})


def noise_in_the_guide():
    """A reparameterized draw by hand, on top of the one that is scored."""
    return by_noise(lambda x: dist.Normal(x / 2 + 0.25 * torch.randn(x.shape), 0.75).to_event(1))


def dropout_in_the_guide():
    return by_noise(lambda x: dist.Normal(dropout(x / 2, 0.25), 0.9).to_event(1))


def noise_in_the_model():
    """Input noise in the decoder: p(x | z) is another at each call, and on average one of variance 1.25."""

    def model(x):
        shift = pyro.param("shift", torch.zeros(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + shift + 0.5 * torch.randn(z.shape), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.75).to_event(1))

    return Stranger(
        model,
        guide,
        (PLANE,),
        lambda x: dist.Normal(0.0, 1.5).log_prob(x.double()).sum(-1),
        refused=unscored("x", *RANDOM),
        skipped=("posterior", "predictive_check", "reference"),
    )


AUXILIARY = ("auxiliary", "is drawn by the guide but is not in the model", "no density", "not in the model")


def auxiliary(draw, use):
    """A draw of the guide that the model does not know: given it, a weight is sound if q(a) stays out of it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", draw(x), infer={"is_auxiliary": True})
            pyro.sample("z", use(slope * x, a[..., None]).to_event(1))

    return Stranger(
        model,
        guide,
        (PLANE,),
        plane_evidence,
        refused=unscored(("a", "z"), *AUXILIARY),
        skipped=("posterior", "predictive_check", "reference"),
    )


def auxiliary_width():
    """A scale mixture by hand."""
    return auxiliary(lambda x: dist.Gamma(torch.full((len(x),), 4.0), 4.0), lambda loc, a: dist.Normal(loc, a))


def auxiliary_coin():
    """A mixture by hand."""
    return auxiliary(
        lambda x: dist.Bernoulli(torch.full((len(x),), 0.5)), lambda loc, a: dist.Normal(loc + a - 0.5, 0.75)
    )


def auxiliary_level():
    """The guide of a hierarchical variational model, without its reverse model."""
    return auxiliary(lambda x: dist.Normal(x[..., 0], 1.0), lambda loc, a: dist.Normal(loc + 0.25 * a, 0.75))


def narrow_flow():
    """A prior of all reals, and a flow that ends in an exponential: positive draws alone."""

    return on_plane(
        lambda x: dist.TransformedDistribution(dist.Normal(x / 2, 0.75).to_event(1), [T.ExpTransform()]),
        refused=refuse("z", *SUPPORT, by=BY_WEIGHTS),
        skipped=("log_terms", "surgery", "fit", "calibrate", "posterior", "predictive_check", "reference"),
        posterior_mean={},
    )


PROGRAMS = {
    f.__name__: f
    for f in (
        autoregressive_flow,
        spline_flow,
        coupling_flow,
        conditional_flow,
        radial_flow,
        sylvester_flow,
        full_covariance,
        low_rank,
        student_guide,
        mixture_guide,
        mixture_prior,
        transformed_prior,
        tanh_guide,
        two_modes_by_mixture,
        two_modes_by_wide_normal,
        two_modes_by_one,
        signs_of_five_by_one,
        noise_in_the_guide,
        dropout_in_the_guide,
        noise_in_the_model,
        auxiliary_width,
        auxiliary_coin,
        auxiliary_level,
        narrow_flow,
    )
}
