"""Helper functions that an emitted torch part may call, as text; only those that are used are written.

In: names. Out: their definitions, with the definitions that they need themselves, in the order of this file.
"""

from __future__ import annotations

from collections.abc import Iterable

from seqc.emit.product import PRODUCT

TEXTS: dict[str, str] = {
    "_with_slope": '''
def _with_slope(value, x, slope):
    """value, whose derivative with respect to x is `slope`; in terms of operators of which torch knows all derivatives."""
    x = torch.nan_to_num(x)  # an infinite x takes no part in what is zero
    return value.detach() + slope.detach() * (x - x.detach())
''',
    "_uncut": '''
def _uncut(x):
    """x, where torch takes no derivative: the derived gradient alone is cut, and torch would take that of x as it is."""
    forward = torch.autograd.forward_ad
    tangent = forward._current_level >= 0 and forward.unpack_dual(x).tangent is not None
    if tangent or torch._C._functorch.is_gradtrackingtensor(x) or (torch.is_grad_enabled() and x.requires_grad):
        raise NotImplementedError("gradclip: no second derivative, and none in forward mode, where a gradient is cut")
    return x
''',
    "_shift": '''
def _shift(x, by, dim):
    """y[i] = x[i - by] along `dim`, zero where that is outside."""
    size = x.shape[dim]
    kept = size - min(abs(by), size)
    zeros = torch.zeros_like(x.narrow(dim, 0, size - kept))
    if by > 0:
        return torch.cat([zeros, x.narrow(dim, 0, kept)], dim)
    return torch.cat([x.narrow(dim, size - kept, kept), zeros], dim)
''',
    "_shift_within": '''
def _shift_within(x, by, cu_seqlens, reverse):
    """y[:, t] = x[:, t - by], or x[:, t + by] where `reverse`; zero where that is outside of the sequence of a pack."""
    by = -by if reverse else by
    moved = _shift(x, by, 1)
    if cu_seqlens is None:
        return moved
    steps = torch.arange(x.shape[1], dtype=cu_seqlens.dtype, device=x.device)
    own = torch.searchsorted(cu_seqlens, steps, right=True)
    return torch.where((_shift(own, by, 0) == own).view(-1, *[1] * (x.dim() - 2)), moved, 0)
''',
    "_flat_places": '''
def _flat_places(place, size, shared):
    """Positions in tables of `size` rows, one table for each entry of the first axes, as positions in one table."""
    if not shared:
        return place
    tables = torch.arange(math.prod(place.shape[:shared]), device=place.device)
    return place + size * tables.view(*place.shape[:shared], *[1] * (place.dim() - shared))
''',
    "_rows_at": '''
def _rows_at(x, place, shared):
    """x[shared, place, rest] for x [shared, size, rest] and place [shared, own]: [shared, own, rest]."""
    rest = x.shape[shared + 1 :]
    rows = x.reshape(-1, math.prod(rest))
    return torch.nn.functional.embedding(_flat_places(place, x.shape[shared], shared), rows).view(*place.shape, *rest)
''',
    "_rows_added": '''
def _rows_added(d, place, size, shared):
    """[shared, size, rest]: the rows of d [shared, own, rest] added up at their places, always in the same order."""
    lead, rest = place.shape[:shared], d.shape[place.dim() :]
    places = _flat_places(place, size, shared)
    rows = d.reshape(*place.shape, math.prod(rest))
    added = torch.ops.aten.embedding_dense_backward(rows, places, math.prod(lead) * size, -1, False)
    return added.view(*lead, size, *rest)
''',
    "_rows_put": '''
def _rows_put(x, rows, place, shared):
    """x [shared, size, rest] with rows [shared, own, rest] at their places; of several rows for one place the last stays."""
    size, rest = x.shape[shared], x.shape[shared + 1 :]
    table, at = x.reshape(-1, math.prod(rest)), _flat_places(place, size, shared)
    if place.dim() > shared:  # rows that a later one replaces go behind the table
        count = torch.arange(place.shape[-1], device=place.device)
        replaced = ((place.unsqueeze(-1) == place.unsqueeze(-2)) & (count > count.unsqueeze(-1))).any(-1)
        at, table = torch.where(replaced, len(table), at), torch.cat([table, table[:1]])
    table = table.index_copy(0, at.reshape(-1), rows.reshape(-1, table.shape[-1]))
    return table[: math.prod(x.shape[: shared + 1])].view(x.shape)
''',
    "_blocks": '''
def _blocks(x, rows, repeat):
    """[B, T, ...] as [NT, B, rows, ...]: the rows after the last step repeat it, or are zero."""
    blocks = (x.shape[1] + rows - 1) // rows
    missing = blocks * rows - x.shape[1]
    if missing:
        last = x[:, -1:] if repeat else torch.zeros_like(x[:, -1:])
        x = torch.cat([x, last.expand(-1, missing, *x.shape[2:])], 1)
    return x.unflatten(1, (blocks, rows)).transpose(0, 1)
''',
    "_sequence": '''
def _sequence(x, steps):
    """[NT, B, rows, ...] as [B, T, ...]."""
    return x.transpose(0, 1).flatten(1, 2)[:, :steps]
''',
    "_upper": '''
def _upper(x, rows, dim):
    """The upper half of every segment of 2 * rows rows along `dim`: a view [..., segment, row, ...]."""
    return x.unflatten(dim, (x.shape[dim] // (2 * rows), 2, rows)).select(dim - 1, 1)
''',
    "_lower": '''
def _lower(x, rows, dim):
    """The lower half of every segment of 2 * rows rows along `dim`: a view [..., segment, row, ...]."""
    return x.unflatten(dim, (x.shape[dim] // (2 * rows), 2, rows)).select(dim - 1, 0)
''',
    "_pairs": '''
def _pairs(x, rows):
    """x[..., t, s] where t is in the upper and s in the lower half of one segment of 2 * rows rows: a view.

    Its axes are [..., segment, t inside, s inside].
    """
    x = _lower(_upper(x, rows, -2), rows, -1)
    return x.diagonal(0, -4, -2).movedim(-1, -3)
''',
    "_cumsum": '''
def _cumsum(x, dim, block=0, reverse=False, exclusive=False):
    """Running sum along `dim` (counted from the end), restarted every `block` rows; never undone by a subtraction."""
    if block:
        x = x.unflatten(dim, (x.shape[dim] // block, block))
    out = torch.empty_like(x)
    rows = list(zip(x.unbind(dim), out.unbind(dim)))
    before = None
    for x_i, out_i in reversed(rows) if reverse else rows:
        if before is None:
            out_i.zero_() if exclusive else out_i.copy_(x_i)
        else:
            torch.add(before[1], before[0] if exclusive else x_i, out=out_i)
        before = x_i, out_i
    return out.flatten(dim - 1, dim) if block else out
''',
    "_inside": '''
def _inside(x, steps, value, dim, own=False):
    """x with `value` in the rows (along `dim`, counted from the end) after the last step; own: x may be written to."""
    rows = x.shape[dim]
    left = steps - (x.shape[0] - 1) * rows
    if left >= rows:
        return x
    x = x if own else x.clone()
    x[-1].narrow(dim, left, rows - left).fill_(value)
    return x
''',
    "_product": PRODUCT,
    "_before": '''
def _before(first, x, dim):
    """x moved down by one row along `dim` (counted from the end), `first` as the first row."""
    first = first.unsqueeze(dim) if first.dim() else first
    return torch.cat([first.expand_as(x.narrow(dim, 0, 1)), x.narrow(dim, 0, x.shape[dim] - 1)], dim)
''',
    "_affine_scan": '''
def _affine_scan(a, b, start, dim, reverse=False, later=False, own=False, end=False, resets=False):
    """h[i] = a[i] h[i-1] + b[i] along `dim` (counted from the end), h[-1] = start; from the other end if reverse.

    start: None is zero; later: row i takes the coefficient of the row visited before it; own: the result may take the
    memory of b; end: only the last value is wanted; resets: a coefficient of 0 drops what was before, whatever it is.
    """
    a_rows, b_rows = a.unbind(dim), b.unbind(dim)
    row = torch.broadcast_shapes(a_rows[0].shape, b_rows[0].shape, () if start is None else start.shape)
    out = b if own or end else b.new_empty((*row[: len(row) + dim + 1], len(a_rows), *row[len(row) + dim + 1 :]))
    out_rows = out.unbind(dim)
    order = range(len(a_rows))
    h = start
    for i in reversed(order) if reverse else order:
        if h is None:
            h = b_rows[i] if own or end else out_rows[i].copy_(b_rows[i])
        else:
            step = i if not later else i + 1 if reverse else i - 1
            if resets:
                h = torch.where(a_rows[step] == 0, 0.0, h)
            h = torch.addcmul(b_rows[i], a_rows[step], h, out=None if end else out_rows[i])
    return h.expand(row) if end else out
''',
    "_max_scan": '''
def _max_scan(a, b, start, dim, end=False):
    """m[i] = max(m[i-1] + a[i], b[i]) along `dim`, m[-1] = start; end: only the last value is wanted."""
    m, out = start, []
    for a_i, b_i in zip(a.unbind(dim), b.unbind(dim)):
        m = torch.maximum(m + a_i, b_i)
        out.append(m)
    return m if end else torch.stack(out, dim)
''',
    "_draw": '''
def _draw(low, high, clock, element, site, word):
    """A multiple of 2^-24 in [0, 1) for whole numbers: a word of Threefry-2x32-20 (Salmon et al. 2011).

    The key is (low, high) with the bits of the site above, the counter (clock, element). All is done in int32, which wraps.
    """
    def whole(x):
        return x.to(torch.int32) if isinstance(x, torch.Tensor) else int(x)

    def upper(byte):
        byte = whole(byte)
        return byte << 24 if isinstance(byte, torch.Tensor) else (byte << 24) - ((byte >> 7) << 32)  # as a signed word

    site = site if isinstance(site, torch.Tensor) else int(site)
    k0, k1 = whole(low) ^ upper(site & 255), whole(high) ^ upper(site >> 8 & 255)
    ks = k0, k1, k0 ^ k1 ^ 0x1BD11BDA
    x0, x1 = k0 + whole(clock), k1 + whole(element)
    for group in range(5):
        for by in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << by) | ((x1 >> 32 - by) & (1 << by) - 1)) ^ x0
        x0 = x0 + ks[(group + 1) % 3]
        x1 = x1 + (ks[(group + 2) % 3] + (group + 1))
    return ((x1 if word else x0) >> 8 & 0xFFFFFF).to(low.dtype) * 2.0**-24
''',
    "_unit_lower_inverse": '''
def _unit_lower_inverse(x):
    """The inverse of I + (strictly lower part of x), over the last two axes."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve_triangular(x, eye.expand_as(x), upper=False, unitriangular=True)
''',
    "_refined_lower_inverse": '''
def _refined_lower_inverse(x):
    """The inverse of I + (strictly lower part of x), over the last two axes; a step of Newton takes most roundoff off."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    found = torch.linalg.solve_triangular(x, eye.expand_as(x), upper=False, unitriangular=True)
    return found + found @ (eye - torch.tril(x, -1) @ found - found)
''',
    "_solved": '''
def _solved(m, b, vector=False):
    """x with m x = b, over the last two axes of m; b is [..., n, columns], or [..., n] if vector."""
    b = b.unsqueeze(-1) if vector else b
    b = b[(None,) * (m.dim() - b.dim())]  # else torch takes a matrix for several vectors where the sizes would allow it
    x, _ = torch.linalg.solve_ex(m, b)
    return x.squeeze(-1) if vector else x
''',
    "_blocks_of": '''
def _blocks_of(a, b, d):
    """The matrix [[a, b], [0, d]], over the last two axes."""
    shape = torch.broadcast_shapes(a.shape, b.shape, d.shape)
    a, b, d = (x.expand(shape) for x in (a, b, d))
    return torch.cat([torch.cat([a, b], -1), torch.cat([torch.zeros_like(b), d], -1)], -2)
''',
    "_expm_slope": '''
def _expm_slope(x, d):
    """The gradient by x, given that by the exponential of x: a block of a larger exponential (Al-Mohy and Higham 2009)."""
    n, turned = x.shape[-1], x.transpose(-2, -1)
    return torch.matrix_exp(_blocks_of(turned, d, turned))[..., :n, n:]
''',
    "_phi": '''
def _phi(x):
    """The integral of exp(s x) over s in [0, 1], over the last two axes."""
    n, eye = x.shape[-1], torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.matrix_exp(_blocks_of(x, eye, torch.zeros_like(eye)))[..., :n, n:]
''',
    "_phi_slope": '''
def _phi_slope(x, d):
    """The gradient by x, given that by `_phi(x)`."""
    n, eye = x.shape[-1], torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    zero = torch.zeros_like(eye)
    return _expm_slope(_blocks_of(x, eye, zero), _blocks_of(zero, d, zero))[..., :n, :n]
''',
}
NEEDS = {
    "_pairs": ("_upper", "_lower"), "_shift_within": ("_shift",), "_expm_slope": ("_blocks_of",), "_phi": ("_blocks_of",),
    "_phi_slope": ("_expm_slope", "_blocks_of"), "_rows_at": ("_flat_places",),
    "_rows_added": ("_flat_places",), "_rows_put": ("_flat_places",),
}


def helper_texts(names: Iterable[str]) -> list[str]:
    """The definitions of `names` and of what they need."""
    wanted = set(names)
    wanted |= {n for name in wanted for n in NEEDS.get(name, ())}
    return [text.strip() for name, text in TEXTS.items() if name in wanted]
