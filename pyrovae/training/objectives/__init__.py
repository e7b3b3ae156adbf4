"""Training bounds, each a Pyro ``ELBO``.

To add one: a file here, and its line in ``OBJECTIVES``; what it has to do is in :class:`Objective`.
"""

from pyrovae.base.choices import Choice, handed_on

_GUIDE, _MANY, _PENALIZED = (f"{__name__}.{folder}" for folder in ("guide_only", "many_particles", "penalized"))
_PATHS = {
    "AnalyticKLELBO": f"{__name__}.elbo:AnalyticKLELBO",
    "BetaTC": f"{_PENALIZED}.total_correlation:BetaTC",
    "Bound": f"{__name__}.bounds:Bound",
    "CIWAE": f"{_MANY}.combined:CIWAE",
    "Classifying": f"{_PENALIZED}.classifying:Classifying",
    "Contractive": f"{_PENALIZED}.contractive:Contractive",
    "DReG": f"{_MANY}.doubly_reparameterized:DReG",
    "ForwardKL": f"{_GUIDE}.forward_kl:ForwardKL",
    "FreeBits": f"{_PENALIZED}.free_bits:FreeBits",
    "HalfAsleep": f"{_GUIDE}.half_asleep:HalfAsleep",
    "IWAE": f"{_MANY}.importance_weighted:IWAE",
    "KLOnly": f"{_PENALIZED}.weighted:KLOnly",
    "MMD": f"{_PENALIZED}.mean_discrepancy:MMD",
    "Objective": f"{__name__}.objective:Objective",
    "PIWAE": f"{_MANY}.combined:PIWAE",
    "ReconstructionOnly": f"{_PENALIZED}.weighted:ReconstructionOnly",
    "Renyi": f"{_MANY}.renyi:Renyi",
    "ReweightedWakeSleep": f"{_MANY}.reweighted_wake_sleep:ReweightedWakeSleep",
    "SampledELBO": f"{__name__}.elbo:SampledELBO",
    "ScoreFunction": f"{_MANY}.score_function:ScoreFunction",
    "SelfConsistency": f"{_GUIDE}.self_consistency:SelfConsistency",
    "StickingTheLanding": f"{__name__}.sticking_the_landing:StickingTheLanding",
    "SummedELBO": f"{__name__}.summed:SummedELBO",
    "VIMCO": f"{_MANY}.vimco:VIMCO",
    "WeightedELBO": f"{_PENALIZED}.weighted:WeightedELBO",
}
OBJECTIVES = {
    "elbo": Choice("the ELBO, all its terms sampled", _PATHS["SampledELBO"], source="Kingma and Welling (2014)"),
    "analytic-kl": Choice(
        "the ELBO, its KL in closed form", _PATHS["AnalyticKLELBO"], source="Kingma and Welling (2014)"
    ),
    "summed": Choice(
        "the ELBO, discrete latents summed out",
        _PATHS["SummedELBO"],
        source="Kingma et al. (2014)",
        takes=["num_particles"],
    ),
    "sticking-the-landing": Choice(
        "the ELBO, its gradient without the guide's score",
        _PATHS["StickingTheLanding"],
        source="Roeder, Wu and Duvenaud (2017)",
        takes=["num_particles"],
    ),
    "iwae": Choice(
        "the importance-weighted bound of 10 particles",
        _PATHS["IWAE"],
        source="Burda, Grosse and Salakhutdinov (2016)",
        takes=["num_particles"],
        num_particles=10,
    ),
    "dreg": Choice(
        "the same, its gradient doubly reparameterized",
        _PATHS["DReG"],
        source="Tucker et al. (2019)",
        takes=["num_particles"],
        num_particles=10,
    ),
    "renyi": Choice(
        "Rényi's bound: alpha 0 is iwae, 1 elbo",
        _PATHS["Renyi"],
        source="Li and Turner (2016)",
        takes=["alpha", "num_particles"],
        alpha=0.5,
        num_particles=10,
    ),
    "piwae": Choice(
        "iwae of M times K particles for the model, M bounds of K for the guide",
        _PATHS["PIWAE"],
        source="Rainforth et al. (2018)",
        takes=["num_bounds", "num_particles"],
        num_bounds=8,
        num_particles=8,
    ),
    "ciwae": Choice(
        "beta times elbo and 1 - beta times iwae",
        _PATHS["CIWAE"],
        source="Rainforth et al. (2018)",
        takes=["beta", "num_particles"],
        beta=0.5,
        num_particles=10,
    ),
    "vimco": Choice(
        "iwae by score functions, for discrete latents too",
        _PATHS["VIMCO"],
        source="Mnih and Rezende (2016)",
        takes=["num_particles"],
        num_particles=10,
    ),
    "score-function": Choice(
        "the ELBO by score functions, for discrete latents too",
        _PATHS["ScoreFunction"],
        source="Kool, van Hoof and Welling (2019)",
        takes=["num_particles"],
        num_particles=10,
    ),
    "reweighted-wake-sleep": Choice(
        "the guide by weighted draws, for discrete latents too",
        _PATHS["ReweightedWakeSleep"],
        source="Bornschein and Bengio (2015), Le et al. (2019)",
        takes=["num_particles"],
        takes_warmup=False,
        num_particles=10,
    ),
    "beta": Choice(
        "the ELBO with beta times its KL",
        _PATHS["WeightedELBO"],
        source="Higgins et al. (2017)",
        takes=["beta"],
        beta=4,
    ),
    "free-bits": Choice(
        "so many nats of each coordinate's KL for nothing",
        _PATHS["FreeBits"],
        source="Kingma et al. (2016)",
        takes=["nats"],
        nats=0.5,
    ),
    "beta-tc": Choice(
        "the ELBO with beta times the total correlation",
        _PATHS["BetaTC"],
        source="Chen et al. (2018)",
        takes=["beta"],
        beta=4,
    ),
    "mmd": Choice(
        "the ELBO less the discrepancy of q(z) and p(z); :10,0 is the MMD-VAE",
        _PATHS["MMD"],
        source="Zhao, Song and Ermon (2019)",
        takes=["weight", "beta"],
        weight=10,
    ),
    "contractive": Choice(
        "the ELBO less a price on the slope of draws by the data",
        _PATHS["Contractive"],
        source="Rifai et al. (2011)",
        takes=["weight"],
        weight=0.1,
    ),
    "reconstruction": Choice("for teaching: the reconstruction alone", _PATHS["ReconstructionOnly"]),
    "kl": Choice("for teaching: the KL alone", _PATHS["KLOnly"]),
    "forward-kl": Choice(
        "for the guide alone: log q at what the model simulates (sleep)",
        _PATHS["ForwardKL"],
        for_guide_alone=True,
        source="Hinton et al. (1995)",
    ),
    "half-asleep": Choice(
        "for the guide alone: forward KL and ELBO, half and half",
        _PATHS["HalfAsleep"],
        for_guide_alone=True,
        takes=["fraction"],
    ),
    "self-consistency": Choice(
        "for the guide alone: the variance of log w",
        _PATHS["SelfConsistency"],
        for_guide_alone=True,
        source="Schmitt et al. (2024)",
    ),
}
__all__ = ["OBJECTIVES", *_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "OBJECTIVES")
