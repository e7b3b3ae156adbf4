"""Every network takes any leading dimensions, and its seed alone decides its weights."""

import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.networks import conv_decoder, conv_encoder, gated, mlp

IMAGES = {"28x28": (28, 28), "8x8": (8, 8), "3x32x32": (3, 32, 32), "odd": (7, 9), "one-pixel": (1, 1, 1)}
RICH = {"channels": (4, 4), "hidden": 7, "num_blocks": 1, "normalization": nn.BatchNorm2d}
# name -> (builder of a seed, shape of one input, number of outputs)
NETWORKS = {
    "affine": (lambda seed: mlp(4, seed=seed), (4,), 6),
    "mlp": (lambda seed: mlp((2, 3), 16, 8, seed=seed), (2, 3), 5),
    "mlp-tanh": (lambda seed: mlp(4, 16, activation=nn.Tanh, seed=seed), (4,), 1),
    "mlp-layer-norm": (lambda seed: mlp(4, 16, 8, normalization=nn.LayerNorm, seed=seed), (4,), 3),
    "mlp-batch-norm": (lambda seed: mlp(4, 16, normalization=nn.BatchNorm1d, seed=seed), (4,), 3),
    "residual": (lambda seed: mlp((2, 3), 16, 16, 8, residual=True, seed=seed), (2, 3), 5),
    "residual-layer-norm": (
        lambda seed: mlp(4, 8, 8, residual=True, normalization=nn.LayerNorm, seed=seed),
        (4,),
        3,
    ),
    "gated": (lambda seed: gated((2, 3), 16, 8, seed=seed), (2, 3), 5),
    "gated-affine": (lambda seed: gated(4, seed=seed), (4,), 6),
    "residual-conv-encoder": (lambda seed: conv_encoder((7, 9), **RICH, seed=seed), (7, 9), 4),
    "residual-conv-decoder": (lambda seed: conv_decoder(2, (3, 8, 8), **RICH, seed=seed), (2,), 192),
    "mlp-of-a-scalar": (lambda seed: mlp((), 16, seed=seed), (), 2),
    **{
        f"conv-encoder-{name}": (
            lambda seed, shape=shape: conv_encoder(shape, channels=(3, 5), hidden=7, seed=seed),
            shape,
            4,
        )
        for name, shape in IMAGES.items()
    },
    **{
        f"conv-decoder-{name}": (
            lambda seed, shape=shape: conv_decoder(2, shape, channels=(5, 3), hidden=7, seed=seed),
            (2,),
            2 * torch.Size(shape).numel(),
        )
        for name, shape in IMAGES.items()
    },
    "conv-decoder-of-a-matrix": (lambda seed: conv_decoder((2, 2), (4, 4), channels=(3,), seed=seed), (2, 2), 16),
}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request):
    """A network in float64 as an evaluation runs it, the shape of one input and the number of outputs."""
    make, in_shape, num_outputs = request.param
    return make(0)(num_outputs).double().eval(), in_shape, num_outputs


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def build(request):
    """A function of a seed that builds a network."""
    make, _, num_outputs = request.param
    return lambda seed: make(seed)(num_outputs)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)], ids=str)
def test_any_leading_dimensions_give_what_rows_one_by_one_give(network, lead):
    module, in_shape, num_outputs = network
    c = torch.randn((*lead, *in_shape), dtype=torch.float64)
    together = module(c)
    assert together.shape == (*lead, num_outputs)
    rows = [module(row) for row in c.reshape(-1, *in_shape)]
    torch.testing.assert_close(together.reshape(-1, num_outputs), torch.stack(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lead", [(0,), (2, 0)], ids=str)
def test_no_rows_are_no_rows(network, lead):
    module, in_shape, num_outputs = network
    assert module(torch.zeros((*lead, *in_shape))).shape == (*lead, num_outputs)


def test_every_weight_gets_a_finite_gradient(network):
    module, in_shape, _ = network
    module.train()(torch.randn((20, *in_shape)).double()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


def test_a_seed_alone_decides_the_weights(build):
    before = torch.get_rng_state()
    first = nn.utils.parameters_to_vector(build(1).parameters())
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, nn.utils.parameters_to_vector(build(1).parameters()))
    assert not torch.equal(first, nn.utils.parameters_to_vector(build(2).parameters()))


def test_without_a_seed_weights_come_from_the_global_generator(build):
    torch.manual_seed(5)
    first = nn.utils.parameters_to_vector(build(None).parameters())
    assert not torch.equal(first, nn.utils.parameters_to_vector(build(None).parameters()))
    torch.manual_seed(5)
    assert torch.equal(first, nn.utils.parameters_to_vector(build(None).parameters()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float64])
def test_data_of_any_type_are_computed_in_the_precision_of_the_weights(dtype):
    module = mlp(4, seed=0)(2)
    c = torch.tensor([[0, 1, 1, 0]])
    assert torch.equal(module(c.to(dtype)), module(c.float()))


@pytest.mark.parametrize(
    ("network", "given", "message"),
    [
        (mlp(4)(2), (3, 5), r"events of shape \(4,\), but it was given a tensor of shape \(3, 5\)"),
        (mlp((2, 3))(2), (6,), r"events of shape \(2, 3\), but it was given a tensor of shape \(6,\)"),
        (conv_encoder((8, 8))(2), (3, 64), r"events of shape \(8, 8\), but .* \(3, 64\)"),
        (conv_decoder(2, (8, 8))(64), (3, 3), r"events of shape \(2,\), but .* \(3, 3\)"),
    ],
    ids=["mlp", "mlp-of-a-matrix", "conv-encoder", "conv-decoder"],
)
def test_inputs_of_another_shape_are_refused(network, given, message):
    with pytest.raises(InputError, match=message):
        network(torch.zeros(given))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv_encoder((64,)), r"\(H, W\) or \(C, H, W\), got \(64,\)"),
        (lambda: conv_decoder(2, (1, 3, 8, 8)), r"got \(1, 3, 8, 8\)"),
        (lambda: conv_decoder(2, (8, 0)), r"got \(8, 0\)"),
        (lambda: conv_decoder(2, (8, 8))(65), r"images of shape \(8, 8\), but the family needs 65 numbers"),
        (lambda: conv_decoder(2, (3, 8, 8))(64), "64 numbers, not a multiple of 192: give image_shape the shape"),
        (lambda: conv_encoder((8, 8), channels=()), r"channels: .* at least 1, got \(\)"),
        (lambda: conv_decoder(2, (8, 8), channels=(4, 0)), r"channels: .* got \(4, 0\)"),
        (lambda: conv_encoder((8, 8), hidden=0), r"hidden: .* got \(0,\)"),
        (lambda: conv_encoder((8, 8), num_blocks=-1), "num_blocks must not be negative, got -1"),
        (lambda: gated(4, 0), r"hidden: each width must be at least 1, got \(0,\)"),
        (lambda: mlp(4, 2.5), "hidden must be a whole number, got 2.5"),
        (lambda: mlp(4, 10, 0), r"hidden: each width must be at least 1, got \(10, 0\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_users_own_modules_are_taken_as_they_are():
    class Rows(nn.Module):  # reads (N, 8, 8) alone
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Linear(32, 4)

        def forward(self, x):
            return self.out(self.conv(x.unsqueeze(1)).relu().flatten(1))

    digits, encode, decode = pv.data.load("digits"), Rows(), nn.Linear(2, 64)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.poisson(), (8, 8), decode),
        encoder=pv.Conditional(pv.families.normal(), 2, encode),
    )
    assert vae.encoder.network is encode and vae.decoder.network is decode
    before = nn.utils.parameters_to_vector(encode.parameters())
    fitted = pv.fit(vae.model, vae.guide, digits.train[:64], epochs=1, batch_size=32, seed=0)
    assert not torch.equal(before, nn.utils.parameters_to_vector(encode.parameters()))
    report = pv.evaluate(fitted.model, fitted.guide, digits.test[:5], num_particles=10, method="importance")
    assert report.log_evidence.isfinite().all()


def test_batch_norm_is_that_of_the_batch_in_training_and_of_the_fit_in_an_evaluation():
    module = mlp(3, 4, normalization=nn.BatchNorm1d, seed=0)(2)
    x = torch.randn(5, 20, 3)
    linear, norm = module.network[0], module.network[1]
    hidden = norm(linear(x.reshape(-1, 3)))
    torch.testing.assert_close(hidden.mean(0), torch.zeros(4), rtol=0, atol=1e-6)
    row = module.eval()(x[:1, :1])  # whatever stands beside it
    torch.testing.assert_close(row, module(x)[:1, :1], rtol=1e-6, atol=1e-6)
