"""Adam as a function of tensors does what torch's own optimizers do."""

import pytest
import torch

from pyrovae.training.adam import Adam, is_adam

OPTIMIZERS = {
    "Adam": lambda ps: torch.optim.Adam(ps, lr=1e-2),
    "fused": lambda ps: torch.optim.Adam(ps, lr=1e-2, fused=True),
    "other constants": lambda ps: torch.optim.Adam(ps, lr=3e-2, betas=(0.8, 0.95), eps=1e-4),
    "weight decay": lambda ps: torch.optim.Adam(ps, lr=1e-2, weight_decay=0.3),
    "AdamW": lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0.3),
    "two groups": lambda ps: torch.optim.Adam([{"params": ps[:1], "lr": 1e-1}, {"params": ps[1:]}]),
}
ONE = torch.tensor(1.0, dtype=torch.float64)


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in ((3, 2), (4,), ())]


def gradients(step, like):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in like]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_torch_over_many_steps_and_from_a_state_that_torch_made(name):
    theirs, ours = parameters(), parameters()
    reference, optimizer = OPTIMIZERS[name](theirs), OPTIMIZERS[name](ours)
    for step in range(5):  # both by torch
        for side, one in ((theirs, reference), (ours, optimizer)):
            for parameter, gradient in zip(side, gradients(step, side), strict=True):
                parameter.grad = gradient
            one.step()
    update = Adam([optimizer])
    for step in range(5, 40):
        for parameter, gradient in zip(theirs, gradients(step, theirs), strict=True):
            parameter.grad = gradient
        reference.step()
        update(gradients(step, ours), ONE)
    for expected, got in zip(theirs, ours, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        [optimizer.state[p]["exp_avg_sq"] for p in ours], [reference.state[p]["exp_avg_sq"] for p in theirs]
    )
    update.write_counters()
    assert all(float(optimizer.state[p]["step"]) == 40 for p in ours)


def test_in_float32_the_first_step_is_right_to_rounding():
    theirs, ours = parameters(torch.float32), parameters(torch.float32)
    reference = torch.optim.Adam(theirs, lr=1e-3)
    for parameter, gradient in zip(theirs, gradients(0, theirs), strict=True):
        parameter.grad = gradient
    reference.step()
    Adam([torch.optim.Adam(ours, lr=1e-3)])(gradients(0, ours), ONE)
    for expected, got in zip(theirs, ours, strict=True):
        torch.testing.assert_close(got, expected, rtol=3e-7, atol=1e-9)


def test_a_rate_scales_the_step():
    half, full = parameters(), parameters()
    start = [p.detach().clone() for p in full]
    for side, rate in ((half, 0.5), (full, 1.0)):
        Adam([torch.optim.Adam(side, lr=1e-2)])(gradients(0, side), torch.tensor(rate).double())
    for a, b, before in zip(half, full, start, strict=True):
        torch.testing.assert_close(2 * (a - before), b - before)


def test_moments_of_a_gradient_that_stays_zero_end_at_zero_where_torch_leaves_subnormal_numbers():
    theirs, ours = parameters(torch.float32), parameters(torch.float32)
    betas = (0.9, 0.95)  # the second moment's own 0.999 would take a hundred thousand steps
    reference, optimizer = (torch.optim.Adam(side, lr=1e-3, betas=betas) for side in (theirs, ours))
    update, first = Adam([optimizer]), gradients(0, ours)
    for step in range(3000):
        given = [gradient if step < 3 else torch.zeros_like(gradient) for gradient in first]
        for parameter, gradient in zip(theirs, given, strict=True):
            parameter.grad = gradient
        reference.step()
        update(given, ONE)
    for name in ("exp_avg", "exp_avg_sq"):
        stuck = torch.cat([reference.state[p][name].flatten() for p in theirs]).abs()
        assert ((stuck > 0) & (stuck < torch.finfo(torch.float32).tiny)).all()
        assert all(not optimizer.state[p][name].any() for p in ours)
    for expected, got in zip(theirs, ours, strict=True):
        torch.testing.assert_close(got, expected, rtol=3e-6, atol=0)


def test_a_small_gradient_counts():
    theirs, ours = parameters(torch.float32), parameters(torch.float32)
    reference, update = torch.optim.Adam(theirs, lr=1e-3), Adam([torch.optim.Adam(ours, lr=1e-3)])
    for _ in range(3):
        for parameter in theirs:
            parameter.grad = torch.full_like(parameter, 1e-9)
        reference.step()
        update([torch.full_like(p, 1e-9) for p in ours], ONE)
    for expected, got, start in zip(theirs, ours, parameters(torch.float32), strict=True):
        assert not torch.equal(expected, start)
        torch.testing.assert_close(got, expected, rtol=3e-7, atol=1e-9)


def test_a_gradient_that_is_not_finite_leaves_its_mark_for_good():
    for value in (torch.nan, torch.inf):
        ours = parameters()
        update = Adam([torch.optim.Adam(ours, lr=1e-2)])
        update([torch.full_like(p, value) for p in ours], ONE)
        update([torch.zeros_like(p) for p in ours], ONE)
        assert not any(slot.state["exp_avg_sq"].isfinite().any() for slot in update.slots)


def test_parameters_with_unlike_counts_keep_their_own():
    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([first, second], lr=1e-2)
    first.grad = torch.ones(2)
    optimizer.step()
    update = Adam([optimizer])
    update([torch.ones(2), torch.ones(2)], ONE)
    update.write_counters()
    assert [float(optimizer.state[p]["step"]) for p in (first, second)] == [2.0, 1.0]


def test_only_what_the_formula_covers_counts_as_adam():
    ps = parameters()
    assert is_adam(torch.optim.AdamW(ps))
    assert not is_adam(torch.optim.Adam(ps, amsgrad=True))
    assert not is_adam(torch.optim.SGD(ps, lr=0.1))
    assert not is_adam(torch.optim.Adamax(ps))


def test_counters_are_those_of_the_steps_that_either_took():
    first, second = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = torch.optim.Adam([first, second], lr=1e-2)
    update = Adam([optimizer])
    for taken in range(1, 4):
        update.read_counters()
        update([torch.ones(2), torch.ones(3)], ONE)
        update.write_counters()
        for parameter in (first, second):
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert [float(optimizer.state[p]["step"]) for p in (first, second)] == [2 * taken] * 2
