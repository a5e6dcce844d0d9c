"""Hand-written signatures that the tests of emission use: a decayed sum, a cell with parameters, a square."""

from seqc.emit import Dim, Input, Kernels, Output, Param, Saved, Signature, State

# h_t = exp(g_t) h_{t-1} + x_t,   y_t = h_t
DECAY = '''
def _forward_torch(x, g, h_0):
    h, rows = h_0, []
    for x_t, g_t in zip(x.unbind(1), g.unbind(1), strict=True):
        h = torch.exp(g_t) * h + x_t
        rows.append(h)
    y = torch.stack(rows, 1)
    return y, h.clone(), y.clone()


def _backward_torch(x, g, h_0, h, d_y, d_h_T, *, needs=None):
    d_h, d_x, d_g = d_h_T, [], []
    before = torch.cat([h_0.unsqueeze(1), h[:, :-1]], 1)
    for t in reversed(range(x.shape[1])):
        d_h = d_h + d_y[:, t]
        d_x.append(d_h)
        d_h = d_h * torch.exp(g[:, t])
        d_g.append(d_h * before[:, t])
    return torch.stack(d_x[::-1], 1), torch.stack(d_g[::-1], 1), d_h.clone()


def _step_torch(x, g, h_0):
    h = torch.exp(g) * h_0 + x
    return h, h
'''

# h_t = tanh(x_t + R h_{t-1}),   c_t = c_{t-1} * f + h_t,   y_t = c_t * s        (s: [B, D], per batch)
CELL = '''
def _forward_torch(x, R, f, s, h_0, c_0):
    h, c, hs, cs = h_0, c_0, [], []
    for x_t in x.unbind(1):
        h = torch.tanh(x_t + torch.einsum("hde,bhe->bhd", R, h))
        c = c * f + h
        hs.append(h)
        cs.append(c)
    c_all = torch.stack(cs, 1)
    return c_all * s[:, None, None, :], h.clone(), c.clone(), torch.stack(hs, 1), c_all


def _backward_torch(x, R, f, s, h_0, c_0, hs, cs, d_y, d_h_T, d_c_T, *, needs=None):
    d_h, d_c, d_x = d_h_T, d_c_T, []
    d_R, d_f = torch.zeros_like(R), torch.zeros_like(f)
    for t in reversed(range(x.shape[1])):
        d_c = d_c + d_y[:, t] * s[:, None, :]
        d_f = d_f + (d_c * (cs[:, t - 1] if t else c_0)).sum(0)
        d_pre = (d_h + d_c) * (1 - hs[:, t] ** 2)
        d_x.append(d_pre)
        d_R = d_R + torch.einsum("bhd,bhe->hde", d_pre, hs[:, t - 1] if t else h_0)
        d_h = torch.einsum("hde,bhd->bhe", R, d_pre)
        d_c = d_c * f
    return torch.stack(d_x[::-1], 1), d_R, d_f, (d_y * cs).sum((1, 2)), d_h, d_c


def _step_torch(x, R, f, s, h_0, c_0):
    h = torch.tanh(x + torch.einsum("hde,bhe->bhd", R, h_0))
    c = c_0 * f + h
    return c * s[:, None, :], h, c
'''

# y_t = x_t^2: one input, one output, no state, nothing saved
SQUARE = '''
def _forward_torch(x):
    return (x * x,)


def _backward_torch(x, d_y, *, needs=None):
    return (2 * x * d_y,)


def _step_torch(x):
    return (x * x,)
'''

# one program per (batch, channel), for Triton's interpreter and for CUDA
DECAY_TRITON = '''
@triton.jit
def advance(h, x, g):
    return tl.exp(g) * h + x


@triton.jit(do_not_specialize=["T"])
def decay_kernel(p_x, p_g, p_h, p_y, p_last, T, D: tl.constexpr):
    i_b = tl.program_id(0).to(tl.int64)
    i_d = tl.program_id(1)
    h = tl.load(p_h + i_b * D + i_d)
    for i_t in range(T):
        o_t = (i_b * T + i_t) * D + i_d
        h = advance(h, tl.load(p_x + o_t).to(tl.float32), tl.load(p_g + o_t).to(tl.float32))
        tl.store(p_y + o_t, h)
    tl.store(p_last + i_b * D + i_d, h)


def _forward_triton(x, g, h_0):
    B, T, D = x.shape
    y, h_T = torch.empty_like(h_0[:, None].expand(x.shape)).contiguous(), torch.empty_like(h_0)
    decay_kernel[(B, D)](x, g, h_0, y, h_T, T, D)
    return y, h_T, y.clone()


def _backward_triton(x, g, h_0, h, d_y, d_h_T, *, needs=None):
    return _backward_torch(x, g, h_0, h, d_y, d_h_T)


def _step_triton(x, g, h_0):
    y, h_T, _ = _forward_triton(x.unsqueeze(1), g.unsqueeze(1), h_0)
    return y.squeeze(1), h_T
'''


def decay(triton: bool = False) -> Signature:
    """The decayed sum; its initial state is a parameter-free constant."""
    kept = (Saved("h", ("B", "T", "D")),)
    return Signature(
        spec="decay",
        class_name="Decay",
        doc=("decay: h = exp(g) * h[t-1] + x", "", 'A line with \\ and """ in it.'),
        dims=(Dim("D"),),
        inputs=(Input("g", ("D",), gate=True), Input("x", ("D",)))[::-1],
        params=(),
        states=(State("h", ("D",)),),
        outputs=(Output("y", ("D",)),),
        torch=Kernels(DECAY, kept),
        triton=Kernels(DECAY_TRITON, kept) if triton else None,
        header="decay, target: any",
    )


def cell() -> Signature:
    """A cell with a square parameter, a parameter per sample, and an initial state that depends on a parameter."""
    return Signature(
        spec="cell",
        class_name="Cell",
        doc=("cell: two states",),
        dims=(Dim("H", choices=(2, 3)), Dim("D")),
        inputs=(Input("x", ("H", "D")),),
        params=(
            Param("R", ("H", "D", "D'")),
            Param("f", ("H", "D"), init="0.5 + 0.1 * torch.arange(H)[:, None]"),
            Param("s", ("D",), per_batch=True),
        ),
        states=(State("h", ("H", "D"), init="-0.25"), State("c", ("H", "D"), init="torch.sin(f)")),
        outputs=(Output("y", ("H", "D")),),
        torch=Kernels(
            CELL,
            (Saved("hs", ("B", "T", "H", "D")), Saved("cs", ("B", "T", "H", "D"))),
        ),
    )


def square() -> Signature:
    """No state, no parameter, nothing saved."""
    return Signature(
        spec="square",
        class_name="Square",
        doc=("square: y = x ^ 2",),
        dims=(Dim("D"),),
        inputs=(Input("x", ("D",)),),
        params=(),
        states=(),
        outputs=(Output("y", ("D",)),),
        torch=Kernels(SQUARE),
    )
