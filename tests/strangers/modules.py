"""Networks with dropout and batch norm, reached in all the ways that Python has; each ELBO is that in eval mode.

The evidence owes nothing to an encoder, so that the ELBO alone tells in which mode it ran.
"""

import copy
import functools

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroParam, PyroSample
from strangers import networks
from strangers.stranger import Stranger, noise
from torch import nn
from torch.distributions import constraints

X = noise(41, 6, 3)
WIDTH = 0.75


def evidence(x):
    return dist.Normal(0.0, 2**0.5).log_prob(x.double()).sum(-1)


def elbo_of(loc, x=X, width=WIDTH):
    """Of N(loc, width) for z ~ N(0, 1) and x ~ N(z, 1), in closed form."""
    loc, x = loc.detach().double(), x.double()
    likelihood = dist.Normal(loc, 1.0).log_prob(x) - width**2 / 2
    kl = torch.distributions.kl_divergence(dist.Normal(loc, width), dist.Normal(0.0, 1.0))
    return (likelihood - kl).sum(-1)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def settled(guide, net, program=model):
    loc = copy.deepcopy(net).eval()(X)
    return Stranger(
        program,
        guide,
        (X,),
        evidence,
        elbo=elbo_of(loc),
        guide_mean={"z": loc},
        posterior_mean={"z": X / 2},
        exact=False,
        # log_terms runs programs in the mode that they are in; annealed numbers owe nothing to an encoder
        skipped=("log_terms", "annealed", "bidirectional"),
    )


def dropout_in_another_file():
    networks.dropping = networks.encoder(nn.Dropout(0.5))  # as new: a fit moves running statistics

    def guide(x):
        pyro.module("net", networks.dropping)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(networks.dropping(x), WIDTH).to_event(1))

    return settled(guide, networks.dropping)


def batch_norm_in_another_file():
    networks.normed = networks.encoder(nn.BatchNorm1d(4))  # as new: a fit moves running statistics

    def guide(x):
        pyro.module("net", networks.normed)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(networks.normed(x), WIDTH).to_event(1))

    return settled(guide, networks.normed)


def dropout_in_a_dict():
    nets = {"encoder": networks.encoder(nn.Dropout(0.5))}

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(nets["encoder"](x), WIDTH).to_event(1))

    return settled(guide, nets["encoder"])


def dropout_in_a_list_of_lists():
    nets = [[networks.encoder(nn.Dropout(0.5))]]

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(nets[0][0](x), WIDTH).to_event(1))

    return settled(guide, nets[0][0])


def dropout_on_a_shelf():
    """In an object that is no module, which calls it."""
    shelf = networks.Shelf(networks.encoder(nn.Dropout(0.5)))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shelf(x), WIDTH).to_event(1))

    return settled(guide, shelf.net)


def dropout_in_a_namespace():
    shelf = networks.Shelf(networks.encoder(nn.Dropout(0.5)))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shelf.inner.net(x), WIDTH).to_event(1))

    return settled(guide, shelf.net)


def dropout_in_a_partial():
    """The guide is a partial of a function that takes the network."""
    net = networks.encoder(nn.Dropout(0.5))

    def guide(x, net):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), WIDTH).to_event(1))

    return settled(functools.partial(guide, net=net), net)


def dropout_in_a_lambda():
    """Behind a function that the guide closes over."""
    net = networks.encoder(nn.Dropout(0.5))
    encode = lambda x: net(x)  # noqa: E731

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encode(x), WIDTH).to_event(1))

    return settled(guide, net)


def dropout_as_a_default():
    net = networks.encoder(nn.Dropout(0.5))

    def guide(x, *, encode=net):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encode(x), WIDTH).to_event(1))

    return settled(guide, net)


def batch_norm_of_an_object():
    """Programs as methods of an object that is no module."""

    class Programs:
        def __init__(self):
            self.parts = {"net": networks.encoder(nn.BatchNorm1d(4))}

        def model(self, x):
            model(x)

        def guide(self, x):
            pyro.module("net", self.parts["net"])
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.parts["net"](x), WIDTH).to_event(1))

    programs = Programs()
    return settled(programs.guide, programs.parts["net"], programs.model)


def pyro_modules():
    """Both programs as modules of Pyro's, with a constrained parameter and a sample site as an attribute."""

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.z = PyroSample(dist.Normal(torch.zeros(3), 1.0).to_event(1))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.z, 1.0).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = networks.encoder(nn.Dropout(0.25))
            self.width = PyroParam(torch.tensor(WIDTH), constraint=constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(x), self.width).to_event(1))

    guide = Guide()
    return settled(guide, guide.net, Model())


PROGRAMS = {
    f.__name__: f
    for f in (
        dropout_in_another_file,
        batch_norm_in_another_file,
        dropout_in_a_dict,
        dropout_in_a_list_of_lists,
        dropout_on_a_shelf,
        dropout_in_a_namespace,
        dropout_in_a_partial,
        dropout_in_a_lambda,
        dropout_as_a_default,
        batch_norm_of_an_object,
        pyro_modules,
    )
}
