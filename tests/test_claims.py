"""What the README claims of the whole, measured where it can be measured in seconds."""

import math

import pyro
import pyro.distributions as dist
import torch
from sklearn.decomposition import PCA
from torch import nn

import pyrovae as pv


def test_a_linear_vae_reaches_probabilistic_pca():
    """Its optimum is pPCA's maximum likelihood (Lucas et al. 2019); scikit-learn's score is that maximum."""
    x = pv.data.load("digits", divisor=16).train.x.flatten(1)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(8),
        decoder=pv.Conditional(pv.families.normal(scale=pv.families.learned(0.2)), 64, pv.networks.mlp(8, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), 8, pv.networks.mlp(64, seed=1)),
    )
    fitted = pv.fit(
        vae.model,
        vae.guide,
        x,
        epochs=500,
        batch_size=200,
        seed=0,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-2, fused=True),
        schedule=lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
    )
    affine = vae.decoder.network.network[0]
    scale = pv.families.positive(vae.decoder.free[0])
    oracle = pv.oracles.LinearGaussian(*(t.detach().double() for t in (affine.weight, affine.bias, scale)))
    exact = oracle.log_evidence(x.double())
    best = PCA(8, svd_solver="full").fit(x.double().numpy()).score(x.double().numpy())
    assert -0.1 < exact.mean() - best < 1e-3
    report = pv.evaluate(fitted.model, fitted.guide, x, num_particles=1000)
    error = (report.log_evidence - exact).sum() / report.mc_se_log_evidence.square().sum().sqrt()
    assert abs(error) <= 4  # standard errors
    assert (report.log_evidence - exact).mean().abs() < 0.01


class Encoder(nn.Module):
    """An encoder as Pyro's tutorials write it."""

    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(784, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, z_dim)
        self.fc22 = nn.Linear(hidden_dim, z_dim)
        self.softplus = nn.Softplus()

    def forward(self, x):
        hidden = self.softplus(self.fc1(x.reshape(-1, 784)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class Decoder(nn.Module):
    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, 784)
        self.softplus = nn.Softplus()

    def forward(self, z):
        return torch.sigmoid(self.fc21(self.softplus(self.fc1(z))))


class TutorialVAE(nn.Module):
    def __init__(self, z_dim=10, hidden_dim=50):
        super().__init__()
        self.encoder, self.decoder, self.z_dim = Encoder(z_dim, hidden_dim), Decoder(z_dim, hidden_dim), z_dim

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], self.z_dim)))
            z_scale = x.new_ones(torch.Size((x.shape[0], self.z_dim)))
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc_img = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(loc_img).to_event(1), obs=x.reshape(-1, 784))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))


def test_a_vae_as_pyros_tutorials_write_it_fits_and_evaluates_unchanged():
    x = torch.bernoulli(torch.full((300, 1, 28, 28), 0.2), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    vae = TutorialVAE()
    fitted = pv.fit(vae.model, vae.guide, x, epochs=30, batch_size=100, optimizer=pyro.optim.Adam({"lr": 3e-3}))
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"] + 10
    report = pv.evaluate(fitted.model, fitted.guide, x, num_particles=100)
    assert report.strategy == "vectorized" and report.measure == {"obs": "mass"}
    # 784 coins of 0.2: after 30 epochs it is near independent pixels, whose evidence is minus their entropy, 392 nats
    entropy = -784 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert abs(report.log_evidence.mean() + entropy) < 0.03 * entropy
