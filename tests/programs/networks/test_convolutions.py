"""Convolutions: whole images, of any size, and what stands between them."""

import pytest
import torch
from torch import nn

from pyrovae.programs.networks import Residual, conv_decoder, conv_encoder

IMAGES = {"28x28": (28, 28), "8x8": (8, 8), "3x32x32": (3, 32, 32), "odd": (7, 9), "one-pixel": (1, 1, 1)}


@pytest.mark.parametrize("shape", IMAGES.values(), ids=IMAGES.keys())
def test_a_default_decoder_and_encoder_of_any_image(shape):
    num_pixels = torch.Size(shape).numel()
    images = conv_decoder(2, shape)(num_pixels)(torch.zeros(3, 2))
    assert conv_encoder(shape)(4)(images.reshape(3, *shape)).shape == (3, 4)


def test_a_decoder_gives_whole_images_one_after_another():
    module = conv_decoder(2, (6, 5), channels=(4,), hidden=8, seed=0)(2 * 30).double()
    z = torch.randn(3, 2).double()
    assert torch.equal(module(z).reshape(3, 2, 6, 5), module.network[:-1](z))


def test_a_decoder_ends_without_a_nonlinearity():
    outputs = conv_decoder(2, (8, 8), seed=0)(64)(torch.randn(50, 2))
    assert (outputs < 0).any() and (outputs > 0).any()


def test_a_decoder_of_an_odd_image_keeps_the_upper_left_corner():
    odd, even = (conv_decoder(2, (rows, 8), channels=(4, 3), seed=0)(rows * 8) for rows in (7, 8))
    z = torch.randn(5, 2)
    assert torch.equal(odd(z), even(z)[:, : 7 * 8])


def kinds(module):
    return kinds_of(module.network)


def test_names_of_weights_are_those_of_runs_fitted_before():
    encoder, decoder = conv_encoder((8, 8))(4), conv_decoder(2, (8, 8))(64)
    weights = [
        [name.split(".")[1] for name in module.state_dict() if "weight" in name] for module in (encoder, decoder)
    ]
    assert weights == [["1", "3", "6", "8"], ["0", "2", "5", "7"]]


def test_blocks_stand_behind_each_convolution_before_its_nonlinearity():
    plain, rich = (conv_encoder((8, 8), channels=(3, 5), num_blocks=blocks, seed=0)(4) for blocks in (0, 2))
    assert [kind for kind in kinds(rich) if kind != "Residual"] == kinds(plain)
    assert kinds(rich)[1:5] == ["Conv2d", "Residual", "Residual", "ReLU"]
    assert kinds(conv_decoder(2, (8, 8), num_blocks=1)(64)).count("Residual") == 2


def test_a_block_adds_two_convolutions_to_what_it_reads():
    encoder = conv_encoder((4, 4), channels=(3,), num_blocks=1, normalization=nn.BatchNorm2d, seed=0)(2).eval()
    block = next(layer for layer in encoder.network if isinstance(layer, Residual))
    assert kinds_of(block.change) == ["BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    h = torch.randn(2, 3, 2, 2)
    normalization, _, first, other, _, second = block.change
    torch.testing.assert_close(block(h), h + second(other(first(normalization(h).relu())).relu()))


def kinds_of(layers):
    return [type(layer).__name__ for layer in layers]
