"""Distributions of a family with random parameters, as a network would give them."""

import torch


def parameters_of(family, event_shape, lead, dtype=torch.float64):
    """Random parameters (*lead, ...) as a network gives them, then the free ones: leaves that take a gradient."""
    from_network = [torch.randn(*lead, *shape, dtype=dtype) for shape in family.shapes(torch.Size(event_shape))]
    free = [value.to(dtype).clone() for value in family.initial(torch.Size(event_shape))]
    return [parameter.requires_grad_() for parameter in (*from_network, *free)]


def built(family, event_shape=(2, 3), lead=(), dtype=torch.float64):
    return family.build(len(event_shape), *parameters_of(family, event_shape, lead, dtype))
