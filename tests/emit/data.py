"""Random arguments of the hand-written signatures: inputs, params, then initial states."""

import torch
from torch import Tensor


def decay_data(T: int = 5, dtype: torch.dtype = torch.float64, grad: bool = True, B: int = 2) -> list[Tensor]:
    """x, g, h_0."""
    D = 3
    made = torch.Generator().manual_seed(T)
    carry = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(B, T, D, generator=made, dtype=torch.float64).to(dtype)
    g = -torch.rand(B, T, D, generator=made, dtype=torch.float64).to(dtype)
    h_0 = torch.randn(B, D, generator=made, dtype=torch.float64).to(carry)
    return [v.requires_grad_(grad) for v in (x, g, h_0)]


def cell_data(T: int = 5, dtype: torch.dtype = torch.float64, grad: bool = True) -> list[Tensor]:
    """x, R, f, s, h_0, c_0."""
    made = torch.Generator().manual_seed(T)
    shapes = [(2, T, 3, 4), (3, 4, 4), (3, 4), (2, 4), (2, 3, 4), (2, 3, 4)]
    drawn = [torch.randn(s, generator=made, dtype=torch.float64).mul(0.5).tanh() for s in shapes]
    return [v.to(dtype).requires_grad_(grad) for v in drawn]


def cell_reference(x: Tensor, R: Tensor, f: Tensor, s: Tensor, h_0: Tensor, c_0: Tensor) -> tuple[Tensor, ...]:
    """The cell under autograd, step by step."""
    h, c, rows = h_0, c_0, []
    for x_t in x.unbind(1):
        h = torch.tanh(x_t + torch.einsum("hde,bhe->bhd", R, h))
        c = c * f + h
        rows.append(c * s[:, None, :])
    y = torch.stack(rows, 1) if rows else x * s[:, None, None, :]
    return y, h, c


def decay_reference(x: Tensor, g: Tensor, h_0: Tensor) -> tuple[Tensor, Tensor]:
    """The decayed sum under autograd, step by step."""
    h, rows = h_0, []
    for x_t, g_t in zip(x.unbind(1), g.unbind(1), strict=True):
        h = torch.exp(g_t) * h + x_t
        rows.append(h)
    return (torch.stack(rows, 1) if rows else x * g), h
