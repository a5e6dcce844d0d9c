"""The functions of convolutions along time, in plain torch, for all backends.

In: stages that sum taps (`seqc.passes.plan.taps`). Out: the text of `_NAME` and `_NAME_backward` of each, and what these
share: a direct convolution, and one by FFT for those whose spec says `schedule convolution`. The direct one keeps causality to
the bit: a step's sum has its own products alone. Gradients of weights, sums over all steps, take FFTs where that is cheaper.
Packs are laid out with zeros between sequences, as many as taps reach, or with what was before each sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seqc.driver.compose.around import header
from seqc.emit import safe_name
from seqc.emit.expressions import Names
from seqc.emit.names import emitted_name
from seqc.emit.text import lay, returned
from seqc.ir.arguments import argument_table
from seqc.ir.graph import Node
from seqc.ir.plan import Stage
from seqc.ir.program import Program
from seqc.passes.plan.lag_reads import lag_reads, lines_of
from seqc.passes.plan.taps import Tapped, tapped

RUNTIME = '''
def _tap_axes(how):
    """(axes of x, w and y that are alone in x, in all three, in x and w, in w and y), and those of each, from `ab,kb->ab`."""
    own, given, made = how.replace("->", ",").split(",")
    alone, groups = [a for a in made if a not in given], [a for a in made if a in given and a in own]
    return own, given, made, alone, groups, [a for a in own if a in given and a not in made], [a for a in made if a not in own]


def _tap_laid(x, axes, order, flat):
    """x with its axes in an order, those that the order lacks summed; those of each word of `flat` are one."""
    lost = [i for i, a in enumerate(axes) if a not in order]
    x = x.sum(lost) if lost else x
    left = [a for a in axes if a in order]
    x = x.permute([left.index(a) for a in order])
    sizes = dict(zip(order, x.shape, strict=True))
    return x.reshape([math.prod([sizes[a] for a in word]) for word in flat])


def _tap_back(x, axes, order, sizes):
    """The gradient of what `_tap_laid` has laid out, with the axes as they were."""
    x = x.reshape([sizes[a] for a in order])
    left = [a for a in axes if a in order]
    x = x.permute([order.index(a) for a in left])
    for i, a in enumerate(axes):
        x = x if a in order else x.unsqueeze(i)
    return x.expand([sizes[a] for a in axes])


class _TapRows(NamedTuple):
    """An input in the order of time, with what precedes it.

    rows: [B, S, ..]; lead: how many of the rows of a batch precede its steps; far: lags of so many steps reach nothing;
    places: of the steps of a pack among the rows, which have room between sequences; before, last: the places [N, P] of what
    precedes these, and of the last so many rows; turned: whether time runs from the last step back.
    """

    rows: torch.Tensor
    lead: int
    far: int
    places: torch.Tensor | None
    before: torch.Tensor | None
    last: torch.Tensor | None
    turned: bool


def _tap_rows(x, reach, cu_seqlens, turned, before=None):
    """x [B, T, ..] with the rows before it [B, P, ..], of a pack with room before each sequence and behind it."""
    steps, lead = x.shape[1], 0 if before is None else before.shape[1]
    x = x if before is None else x.to(before.dtype)
    if cu_seqlens is None:
        x = x.flip(1) if turned else x
        return _TapRows(torch.cat([before, x], 1) if lead else x, lead, lead + steps, None, None, None, turned)
    far = lead + (steps if x.is_cuda else max([0, *cu_seqlens.diff().tolist()]))  # a GPU would have to be waited for
    gap = max(lead, min(reach, far))
    t, bounds = torch.arange(steps, device=x.device), torch.cat([cu_seqlens.long(), cu_seqlens.new_full((1,), steps).long()])
    own = torch.searchsorted(bounds[:-1], t, right=True) - 1
    places = gap * (own + 1) + (bounds[own] + bounds[own + 1] - 1 - t if turned else t)
    rows = x.new_zeros(1, steps + gap * (len(bounds) + 1), *x.shape[2:]).index_copy_(1, places, x)
    if before is None:
        return _TapRows(rows, 0, far, places, None, None, turned)
    room = gap * (torch.arange(len(before), device=x.device) + 1)
    first, last = (
        (y + room)[:, None] + torch.arange(-lead, 0, device=x.device) for y in (bounds[:-2], bounds[1:-1])
    )
    rows = rows.index_copy_(1, first.flatten(), before.flatten(0, 1)[None])
    return _TapRows(rows, 0, far, places, first, last, turned)


def _tap_steps(d, given, dtype):
    """The gradient of x, from that of its rows; and of what was before it."""
    if given.places is not None:
        return d.index_select(1, given.places).to(dtype), None if given.before is None else d[0, given.before]
    x = d[:, given.lead :]
    return (x.flip(1) if given.turned else x).to(dtype), d[:, : given.lead]


def _tap_last(x, before, cu_seqlens, turned):
    """The last rows [B, P, ..] of what was before x and x."""
    given = _tap_rows(x, before.shape[1], cu_seqlens, turned, before)
    last = given.rows[0, given.last] if given.places is not None else given.rows[:, given.rows.shape[1] - given.lead :]
    return last.clone()


def _tap_ends(d, given):
    """The gradient of rows, from that of the last ones."""
    whole = torch.zeros_like(given.rows)
    if given.places is None:
        whole[:, whole.shape[1] - given.lead :] = d
    else:
        whole.index_add_(1, given.last.flatten(), d.flatten(0, 1)[None].to(whole.dtype))
    return whole


def _tap_at(given, lag):
    """x [B, T, ..] so many steps before, of rows that begin before it."""
    if given.places is not None:
        return given.rows.index_select(1, given.places - lag)
    x = given.rows[:, given.lead - lag : given.rows.shape[1] - lag]
    return (x.flip(1) if given.turned else x).contiguous()


def _tap_at_back(d, given, lag):
    """The gradient of rows that `_tap_at` reads."""
    whole = torch.zeros_like(given.rows)
    if given.places is not None:
        return whole.index_copy_(1, given.places - lag, d.to(whole.dtype))
    whole[:, given.lead - lag : whole.shape[1] - lag] = d.flip(1) if given.turned else d
    return whole


def _taps(given, w, how, lags, fft=False):
    """y[:, t] = sum over k of w[k] * x[:, t - lags[k]], axes as `how` says: x [B, T, ..], w [.., k, ..] and y [B, T, ..].

    given: x as `_tap_rows`; outside of its sequence it is 0. fft: whether FFTs may be taken where the sizes say so.
    """
    x, (own, taken, made, alone, groups, summed, new) = given.rows, _tap_axes(how)
    sizes, (lags, kept) = _tap_sizes(x, w, own, taken), _tap_reached(lags, given.far)
    rows = _tap_laid(x, "BT" + own, ["B", *alone, *groups, *summed, "T"], [["B", *alone], [*groups, *summed], "T"])
    kernel = _tap_laid(w.to(x.dtype), taken, [*groups, *new, *summed, "k"], [[*groups, *new], summed, "k"])[..., kept]
    y = _tap_sum(rows, kernel, lags, math.prod([sizes[a] for a in groups]), fft, given.lead)
    y = y if given.places is None else y.index_select(-1, given.places)
    y = y.flip(-1) if given.turned and given.places is None else y
    order, sizes["T"] = ["B", *alone, *groups, *new, "T"], y.shape[-1]
    return y.reshape([sizes[a] for a in order]).permute([order.index(a) for a in "BT" + made]).contiguous()


def _taps_backward(d, given, w, how, lags, fft=False, needs=(True, True)):
    """The gradients of x as `_tap_rows` and of w, or None: a convolution with the lags turned around, and a correlation."""
    x, (own, taken, made, alone, groups, summed, new) = given.rows, _tap_axes(how)
    sizes, (lags, kept) = _tap_sizes(x, w, own, taken), _tap_reached(lags, given.far)
    count, d = math.prod([sizes[a] for a in groups]), d.to(x.dtype)
    if given.places is None:
        d = torch.nn.functional.pad(d.flip(1) if given.turned else d, (0, 0) * (d.dim() - 2) + (given.lead, 0))
    else:
        d = d.new_zeros(1, x.shape[1], *d.shape[2:]).index_copy_(1, given.places, d)
    d = _tap_laid(d, "BT" + made, ["B", *alone, *groups, *new, "T"], [["B", *alone], [*groups, *new], "T"])
    d_x = d_w = None
    if needs[0]:
        kernel = _tap_laid(w.to(d.dtype), taken, [*groups, *summed, *new, "k"], [[*groups, *summed], new, "k"])
        d_x = _tap_sum(d, kernel[..., kept].flip(-1), [-lag for lag in lags[::-1]], count, fft)
        d_x = _tap_back(d_x, "BT" + own, ["B", *alone, *groups, *summed, "T"], sizes)
    if needs[1]:
        rows = _tap_laid(x, "BT" + own, ["B", *alone, *groups, *summed, "T"], [["B", *alone], [*groups, *summed], "T"])
        found = _tap_products(d, rows, lags, count)
        d_w = found.new_zeros(*found.shape[:-1], sizes["k"])
        d_w[..., kept] = found
        d_w = _tap_back(d_w, taken, [*groups, *new, *summed, "k"], sizes).to(w.dtype)
    return d_x, d_w


def _tap_sizes(x, w, own, taken):
    """Extents by axis: B and T of a batch and its rows, and those of x and w."""
    return {**dict(zip("BT" + own, x.shape, strict=True)), **dict(zip(taken, w.shape, strict=True))}


def _tap_reached(lags, far):
    """The lags that reach a row, rising, and which of all they are."""
    kept = [k for k, lag in enumerate(lags) if abs(lag) < far][:: 1 if lags.step > 0 else -1]
    return [lags[k] for k in kept], kept


def _tap_direct(x, w, **how):
    """A convolution that a library sums product by product: on a GPU in fp32 at least, and the same on each run."""
    if not x.is_cuda:
        return torch.nn.functional.conv1d(x, w, **how)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return torch.nn.functional.conv1d(x, w, **how)


def _tap_sum(x, w, lags, groups, fft, lead=0):
    """[N, groups * given, T] and [groups * made, given, lags] -> [N, groups * made, T]: the sum over lags, and over given; from
    step `lead` on."""
    if not lags or x.shape[-1] == lead or 0 in x.shape or 0 in w.shape:
        return x.new_zeros(x.shape[0], w.shape[0], x.shape[-1] - lead)
    if fft and _tap_fft_pays(x, w, groups):
        return _tap_sum_fft(x, w, lags, groups)[..., lead:]
    padded, apart = torch.nn.functional.pad(x, (lags[-1] - lead, -lags[0])), lags[-1] - lags[-2] if lags[1:] else 1
    return _tap_direct(padded, w.flip(-1), dilation=apart, groups=groups)


def _tap_products(d, x, lags, groups):
    """[N, groups * made, T] and [N, groups * given, T] -> [groups * made, given, lags]: of each, over rows and steps.

    No step stands before another in such a sum, so it may be taken by FFT in any case.
    """
    made, given = d.shape[1] // groups, x.shape[1] // groups
    whole = d.new_zeros(groups * made, given, len(lags))
    if not lags or 0 in x.shape or 0 in whole.shape:
        return whole
    if _tap_fft_pays(x, whole, groups):
        return _tap_products_fft(d, x, lags, groups)
    padded, apart = torch.nn.functional.pad(x, (lags[-1], -lags[0])), lags[-1] - lags[-2] if lags[1:] else 1
    padded = padded.view(len(x), groups, given, -1).permute(2, 1, 0, 3).flatten(1, 2)
    return _tap_direct(padded, d.transpose(0, 1), stride=apart, groups=groups).transpose(0, 1).flip(-1)


def _tap_length(least):
    """The next length of at least so many steps that FFTs are fast at."""
    return min([odd << (-(-least // odd) - 1).bit_length() for odd in (1, 3, 5, 9)])


def _tap_fft_pays(x, w, groups):
    """Whether FFTs take less time than products, by a model of their operations: those of an FFT take three times as long."""
    rows, wide, steps = x.shape
    made, given, taps = w.shape
    length = _tap_length(steps + taps)
    products = 2 * rows * made * given * taps * steps
    transforms = 2.5 * length * length.bit_length() * (rows * (wide + made) + made * given)
    return 3 * (transforms + 4 * length * rows * made * given) < products


def _tap_spectra(x, lags):
    """Spectra of rows [.., T], and of how many steps. Sums run in fp32 at least."""
    length = _tap_length(x.shape[-1] + max(0, lags[-1]) + max(0, -lags[0]))
    return torch.fft.rfft(x if x.dtype == torch.float64 else x.float(), length), length


def _tap_sum_fft(x, w, lags, groups):
    """`_tap_sum` by FFT."""
    spectra, length = _tap_spectra(x, lags)
    kernel = w.new_zeros(*w.shape[:-1], length)
    kernel[..., torch.tensor(lags, device=w.device) % length] = w
    kernel = _tap_spectra(kernel, (0,))[0].unflatten(0, (groups, -1))
    y = torch.einsum("ngif,goif->ngof", spectra.unflatten(1, (groups, -1)), kernel).flatten(1, 2)
    return torch.fft.irfft(y, length)[..., : x.shape[-1]].to(x.dtype)


def _tap_products_fft(d, x, lags, groups):
    """`_tap_products` by FFT, of the lags that reach."""
    (spectra, length), (other, _) = _tap_spectra(x, lags), _tap_spectra(d, lags)
    both = other.unflatten(1, (groups, -1)), spectra.unflatten(1, (groups, -1)).conj()
    found = torch.fft.irfft(torch.einsum("ngof,ngif->goif", *both), length).flatten(0, 1)
    return found[..., torch.tensor(lags, device=x.device) % length].to(x.dtype)
'''


def tap_functions(stages: Iterable[Stage]) -> str:
    """The functions of some stages, each once."""
    own: Mapping[str, Stage] = {stage.name: stage for stage in stages}
    return "\n\n\n".join(text for stage in own.values() for text in _pair(stage))


def _pair(stage: Stage) -> list[str]:
    """`_NAME` and `_NAME_backward`."""
    part, table = stage.program, argument_table(stage.program)
    reads, moved = lag_reads(part), [a for a in table if a.gradient]
    (x,), arguments = map(safe_name, part.inputs), [emitted_name(a) for a in table]
    sums = {safe_name(name): (name, tapped(reads, n)) for name, n in part.outputs.items()}
    before, ends = ([f"{safe_name(s)}_{at}" for s in part.states] for at in "0T")
    names = Names((*arguments, *sums, *ends, *(f"d_{y}" for y in (*arguments, *sums, *ends)), "needs", "cu_seqlens", "reverse"))
    rows, needed = names.fresh("rows"), {emitted_name(a): f"needs[{i}]" for i, a in enumerate(moved)}
    reach = max(abs(lag) for _, one in sums.values() if one for lag in one.read.lags)
    turned = "not reverse" if part.direction == "backward" else "reverse"
    laid = "    " + f"{rows} = _tap_rows({', '.join([x, str(reach), 'cu_seqlens', turned, *before])})"
    told = ", ".join(f"{len(one.read.lags)} lags of {one.read.name}" for _, one in sums.values() if one)
    forward = [*header(f"_{stage.name}", arguments, f"Sums for all steps at once: {told}.", packs=True), laid]
    more = [f"needs=(True,) * {len(moved)}"]
    back = header(f"_{stage.name}_backward", [*arguments, *(f"d_{y}" for y in (*sums, *ends))], "Gradients of it.", True, more)
    asked = " or ".join(needed[y] for y in (x, *before) if y in needed) or "False"
    terms = [f"_tap_ends(d_{end}, {rows})" for end in ends]
    back.append(laid)
    for y, (name, one) in sums.items():
        if one is None:
            lag = _lag(part, part.outputs[name])
            forward.append(f"    {y} = _tap_at({rows}, {lag}).to({x}.dtype)")
            terms.append(f"_tap_at_back(d_{y}, {rows}, {lag})")
            continue
        w, lags = safe_name(one.weights.text("name")), one.read.lags
        terms.append(names.fresh(f"d_{rows}"))
        how = [rows, w, f'"{_how(part, name, one)}"', f"range({lags.start}, {lags.stop}, {lags.step})"]
        how += ["fft=True"] * part.wishes.convolution
        forward.append(lay(f"{y} = _taps(", how, f").to({x}.dtype)", 4))
        given = [f"d_{y}", *how, f"needs=({asked}, {needed.get(w, 'False')})"]
        back.append(lay(f"{terms[-1]}, d_{w} = _taps_backward(", given, ")", 4))
    forward += [f"    {ends[0]} = _tap_last({x}, {before[0]}, cu_seqlens, {turned})"] if ends else []
    forward.append(returned([*sums, *ends], 4))
    steps = ", ".join([f"d_{x}", f"d_{before[0]}" if before else "_"])
    back.append(f"    {steps} = _tap_steps({' + '.join(terms)}, {rows}, {x}.dtype) if {asked} else (None, None)")
    back.append(returned([f"d_{emitted_name(a)}" for a in moved], 4))
    return ["\n".join(forward), "\n".join(back)]


def _lag(part: Program, n: Node) -> int:
    """The lag of a single read of the delay line."""
    (line,) = lines_of(part).values()
    return line.length - n.number("at")


def _how(part: Program, name: str, one: Tapped) -> str:
    """The axes of the input, the weights and the result, a letter each; k is that of the lags."""
    (x,) = part.inputs
    own, given = [one.names[d] for d in part.inputs[x].dims], part.params[one.weights.text("name")].dims
    letters = {one.read.dim: "k"}
    for d in (*own, *given):
        letters.setdefault(d, "abcdefghijlmnopqrstuvwxyz"[len(letters) - 1])
    words = ["".join(letters[d] for d in dims) for dims in (own, given, part.output_decls[name].dims)]
    return "{},{}->{}".format(*words)


__all__ = ["RUNTIME", "tap_functions"]
