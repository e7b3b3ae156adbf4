"""A posterior that leans, of a Poisson rate with a log-normal prior; and a guide that is no good for it."""

import pyro
import pyro.distributions as dist


def skewed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Poisson(z.exp()), obs=x)


def poor(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0 * x, 0.3))
