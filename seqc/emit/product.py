"""A product of two arrays over all steps at once, as text of an emitted file: what plain torch and native code both call.

In: nothing. Out: `PRODUCT`, the definition of `_product`.
"""

from __future__ import annotations

PRODUCT = '''
def _product(word, x, y):
    """torch.einsum of two arrays. A large float32 product on a CPU goes to oneDNN, for other libraries use half of the vectors
    of some processors; not where autograd is to follow it, nor where there are several products side by side."""
    if x.numel() * y.numel() < 1 << 24:
        return torch.einsum(word, x, y)
    first, second, out = word.replace("->", ",").split(",")
    size = {**dict(zip(first, x.shape)), **dict(zip(second, y.shape))}
    beside, summed = [c for c in out if c in first and c in second], [c for c in first if c not in out]
    rows, columns = [c for c in out if c not in second], [c for c in out if c not in first]
    order = [c for c in out if c not in beside]
    if order == columns + rows:
        first, second, x, y, rows, columns = second, first, y, x, columns, rows
    M, N, K = (math.prod(size[c] for c in axes) for axes in (rows, columns, summed))
    followed = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    plain = x.device.type == "cpu" and x.dtype == y.dtype == torch.float32 and order == rows + columns
    plain = plain and all(size[c] == 1 for c in beside)
    if not plain or followed or min(M, N, K) < 16 or M * N * K < 1 << 20 or not torch.backends.mkldnn.is_available():
        return torch.einsum(f"{first},{second}->{out}", x, y)
    x = x.permute([first.index(c) for c in beside + rows + summed]).reshape(M, K)
    y = y.permute([second.index(c) for c in beside + columns + summed]).reshape(N, K)
    # one matrix or its transpose, without gaps: others meet loops that are a thousand times slower
    x, y = (z if z.is_contiguous() or z.mT.is_contiguous() else z.contiguous() for z in (x, y))
    return torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "").view([size[c] for c in out])
'''
