"""An orthogonal change of coordinates has an inverse and no volume."""

import torch

from pyrovae.pairs.operators.rotation import Rotated


def test_it_turns_there_and_back():
    matrix, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double())
    turn, x = Rotated(matrix), torch.rand(5, 4).double()
    y = turn(x)
    torch.testing.assert_close(y, x @ matrix.T)
    torch.testing.assert_close(turn.inv(y), x)
    jacobian = torch.autograd.functional.jacobian(turn, x[0])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], turn.log_abs_det_jacobian(x, y)[0])
