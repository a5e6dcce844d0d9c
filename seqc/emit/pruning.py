"""Pruning, as methods of an emitted file's Module. In: a signature. Out: the table of what may be pruned, the functions that
choose what stays, and the methods that call them; nothing where no mask is a buffer.

Magnitude pruning with a threshold for each matrix or for all (Han et al. 2015, arXiv:1506.02626), the cubic schedule (Zhu and
Gupta 2017, arXiv:1710.01878), and regrowth by the magnitude of gradients (Evci et al. 2020, arXiv:1911.11134).
"""

from __future__ import annotations

from seqc.emit.signature import Signature


def pruned(sig: Signature) -> dict[str, list[str]]:
    """Mask -> the parameters that it selects from, of every mask that is a buffer."""
    found: dict[str, list[str]] = {}
    for p in sig.params:
        if p.support is not None and p.support.pruning is not None and not p.per_batch:
            found.setdefault(p.support.mask, []).append(p.name)
    return found


def pruning_text(sig: Signature) -> str:
    """The table of masks and the functions; "" where nothing can be pruned."""
    rows = []
    for mask, names in pruned(sig).items():
        support = next(p.support for p in sig.params if p.name == names[0])
        assert support is not None
        assert support.pruning is not None
        how = support.pruning
        rule = f"_kept_{names[0]}" if support.rules else "None"
        said = f'"{how.by}", {how.keep}, {how.block}, {how.pattern}, {rule}'
        rows.append(f'    "{mask}": _Pruning(({"".join(f"{chr(34)}{name}{chr(34)}, " for name in names).rstrip()}), {said}),')
    if not rows:
        return ""
    return "\n".join([_FUNCTIONS.strip("\n"), "", "", "_PRUNED = {", *rows, "}"])


def methods_text(sig: Signature) -> list[str]:
    """The lines of the Module's methods."""
    if not pruned(sig):
        return []
    example = next(iter(pruned(sig).values()))[0]
    return [f"    {line}".rstrip() for line in _METHODS.format(example=example).strip("\n").splitlines()]


_FUNCTIONS = '''
class _Pruning(NamedTuple):
    """How the spec prunes: the parameters of a mask, by what, the share that stays, the block, n of m, the rules."""

    params: tuple[str, ...]
    by: str
    keep: float | None
    block: int
    pattern: tuple[int, int] | None
    rules: Callable | None


def _with_rows(x):
    """x with rows and columns; a vector is one row."""
    return x[None] if x.dim() == 1 else x


def _block_sums(x, block):
    """Sums over squares of `block` rows and columns, [.., blocks]; beyond the edge there is nothing."""
    x = _with_rows(x)
    x = torch.nn.functional.pad(x, [0, -x.shape[-1] % block, 0, -x.shape[-2] % block])
    return x.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).sum((-3, -1)).flatten(-2)


def _of_blocks(chosen, block, like):
    """What was chosen of blocks, for every element."""
    rows, columns = _with_rows(like).shape[-2:]
    chosen = chosen.unflatten(-1, (-(-rows // block), -(-columns // block)))
    chosen = chosen.repeat_interleave(block, -1).repeat_interleave(block, -2)
    return chosen[..., :rows, :columns].reshape(like.shape)


def _largest_of_rows(scores, count):
    """Where the `count` largest scores of each row are, of equal ones the first; count: for each row, or for all."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    count = torch.as_tensor(count, device=scores.device).expand(scores.shape[:-1])
    first = torch.arange(scores.shape[-1], device=scores.device) < count[..., None]
    return torch.zeros_like(first).scatter_(-1, order, first)


def _neighbours(x, m):
    """x with every m neighbours along the last dim in a dim of their own; behind the last ones -inf."""
    return torch.nn.functional.pad(x, [0, -x.shape[-1] % m], value=-math.inf).unflatten(-1, (-1, m))


def _n_of_m(scores, n, m):
    """Where the n largest of every m neighbours along the last dim are; n: for each m neighbours, or for all."""
    return _largest_of_rows(_neighbours(scores, m), n).flatten(-2)[..., : scores.shape[-1]]
'''

_METHODS = '''
@torch.no_grad()
def prune(self, keep=None, *, by="magnitude", block=None, scope="gate", names=None):
    """Leave out the elements of sparse parameters that have the smallest scores; answers `sparsity()`.

    keep: the share of each matrix that stays, 0 to 1, of what the spec's rules allow; None: what the spec says. What has
        been left out stays so; `regrow` brings it back, or `fill_` of the mask.
    by: "magnitude", "random", or scores as large as the parameters: {{"{example}": tensor}}.
    block: squares of so many rows and columns stay or go together, by the sums of their squared magnitudes (or scores).
    scope: "gate": so much of each matrix of the last two dims; "all": so much of all matrices together.
    names: the parameters to prune; None: those that the spec prunes by magnitude.
    """
    if keep is not None and not 0 <= keep <= 1:
        raise ValueError(f"keep is {{keep}}, and a share is between 0 and 1")
    if scope not in ("gate", "all"):
        raise ValueError(f"scope is {{scope!r}}, and may be 'gate' or 'all'")
    found = []
    for mask, how in _PRUNED.items():
        if how.by != "magnitude" if names is None else not set(how.params) & set(names):
            continue
        x, scores = getattr(self, mask), self._scores(mask, by)
        if keep is None and how.pattern:
            left = x & self._allowed(mask)
            x.logical_and_(_n_of_m(scores.masked_fill(~left, -math.inf), *how.pattern) & left)
            continue
        share, size = how.keep if keep is None else keep, block or how.block
        if share is None:
            raise ValueError(f"the spec does not say how much of {{how.params[0]}} stays: prune(keep=0.1)")
        allowed, left = (_block_sums(y.to(scores.dtype), size) != 0 for y in (self._allowed(mask), x & self._allowed(mask)))
        rows = torch.where(left, _block_sums(scores, size), -math.inf)
        found.append((x, size, rows, left, share * allowed.sum(-1).double()))  # the last: how many blocks stay
    if scope == "all" and len({{size for _, size, *_ in found}}) > 1:
        raise ValueError("matrices with blocks of several sizes are pruned one by one, or with `block` given")
    if scope == "all" and found:
        count = round(sum(float(n.sum()) for *_, n in found))
        flat = _largest_of_rows(torch.cat([rows.flatten() for _, _, rows, *_ in found]), count)
        chosen = flat.split([rows.numel() for _, _, rows, *_ in found])
    else:
        chosen = [_largest_of_rows(rows, n.round()) for _, _, rows, _, n in found]
    for (x, size, rows, left, _), stays in zip(found, chosen, strict=True):
        x.logical_and_(_of_blocks(stays.view(rows.shape) & left, size, x))
    return self.sparsity()

@torch.no_grad()
def regrow(self, share, *, by=None, block=None):
    """Leave out the given share of what is kept of each matrix, the smallest, and take in as many others, at 0; answers
    `sparsity()`.

    by: scores of what may come: {{"{example}": tensor}}; None: the magnitudes of the parameters' `grad`, which a backward
        pass within `dense_gradients()` has left. block: as in `prune`. For all that the spec prunes by magnitude; of
        `keep 2 of 4` what comes stands among the neighbours of what goes.
    """
    for mask, how in _PRUNED.items():
        if how.by != "magnitude":
            continue
        x, params = getattr(self, mask), [getattr(self, name) for name in how.params]
        size = 1 if how.pattern else block or how.block
        gradients = {{name: p.grad.square() for name, p in zip(how.params, params)}} if by is None else by
        coming = self._scores(mask, gradients, True)
        old, allowed = (_block_sums(y.to(coming.dtype), size) != 0 for y in (x & self._allowed(mask), self._allowed(mask)))
        counts = old.sum(-1)
        smallest = torch.where(old, _block_sums(self._scores(mask, "magnitude"), size), -math.inf)
        stays = _largest_of_rows(smallest, counts - (share * counts).round()) & old
        best = torch.where(allowed & ~stays, _block_sums(coming, size), -math.inf)
        if how.pattern:
            gone = _neighbours((old & ~stays).to(best.dtype).reshape(x.shape), how.pattern[1]).clamp(min=0).sum(-1)
            stays |= _n_of_m(best.reshape(x.shape), gone, how.pattern[1]).reshape(stays.shape) & allowed
        else:
            stays |= _largest_of_rows(best, counts - stays.sum(-1)) & allowed
        new = _of_blocks(stays, size, x)
        for p in params:
            p.copy_(torch.where(new & ~x, 0.0, p))
        x.copy_(new)
    return self.sparsity()

@contextlib.contextmanager
def dense_gradients(self):
    """Within, what is left out counts as 0 and has its gradient all the same: what `regrow` decides by."""
    kept = {{mask: getattr(self, mask).clone() for mask in _PRUNED}}
    with torch.no_grad():
        for mask, how in _PRUNED.items():
            for p in (getattr(self, name) for name in how.params):
                p.copy_(torch.where(kept[mask], p, 0.0))
            getattr(self, mask).fill_(True)
    try:
        yield self
    finally:
        for mask, x in kept.items():
            getattr(self, mask).copy_(x)

@staticmethod
def keep_at(step, steps, keep, start=1.0):
    """The share to keep at a step of gradual pruning: from `start` at step 0 to `keep` from step `steps` on, along a cubic."""
    return keep + (start - keep) * (1.0 - min(max(step / steps, 0.0), 1.0)) ** 3

@torch.no_grad()
def sparsity(self):
    """The share of each parameter with a mask that is left out, by the mask and by the rules of the spec."""
    left = {{mask: getattr(self, mask) & self._allowed(mask) for mask in _PRUNED}}
    return {{name: 1.0 - float(left[mask].double().mean()) for mask, how in _PRUNED.items() for name in how.params}}

def _allowed(self, mask):
    """What the rules of the spec allow."""
    how, x = _PRUNED[mask], getattr(self, mask)
    return torch.ones_like(x) if how.rules is None else how.rules(getattr(self, how.params[0]))

def _scores(self, mask, by, everywhere=False):
    """The scores of a mask's elements; 0 where they are left out, or with `everywhere` where the rules leave them out."""
    how = _PRUNED[mask]
    params = [getattr(self, name) for name in how.params]
    if isinstance(by, str) and by not in ("magnitude", "random"):
        raise ValueError(f"by is {{by!r}}, and may be 'magnitude', 'random' or scores by name")
    if by == "magnitude":
        scores = sum(p.square() for p in params)
    elif by == "random":
        scores = torch.rand_like(params[0])
    else:
        scores = sum(by[name].to(p.dtype).expand(p.shape) for name, p in zip(how.params, params))
    kept = self._allowed(mask) if everywhere else self._allowed(mask) & getattr(self, mask)
    return torch.where(kept, scores, 0.0)
'''
