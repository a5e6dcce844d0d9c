"""The functions by which an emitted file takes a convolution, as texts that `convolution` fills in."""

from __future__ import annotations

CONVOLVED = '''
def _convolved(inputs, starts, **params):
    """The convolution. inputs: [B, T, dims]; starts: initial states, or None."""
    named = dict(zip({starts}, starts, strict=True))
    empty = {itself}(**{{x: u[:, :0] for x, u in zip({inputs}, inputs, strict=True)}}, **params, **named)
    given, dtype = {begun} or any([x is not None for x in starts]), inputs[{main}].dtype
    starts, steps = {stacked}(empty[{outputs}:]), inputs[{main}].shape[1]
    if steps == 0 or inputs[{main}].shape[0] == 0:
        return empty
    carry = starts[0].dtype
    inputs = [u.to(carry).flip(1) if {flipped} else u.to(carry) for u in inputs]
    inputs = [u.movedim(1, -1).contiguous().movedim(-1, 1) for u in inputs]  # as FFTs and sums over time read
    sizes, shapes = [u.shape[2:] for u in inputs], [x.shape[1:] for x in starts]

    def run(steps, rows, states):  # answers to rows [P, dims] of inputs at the first step, and to states [P, dims]
        still = [x.new_zeros(len(x), steps - 1, *x.shape[1:]) for x in rows]
        pair = [(x[:, None], s) for x, s in zip(rows, still, strict=True)]
        taken = [torch.cat((s, x) if {flipped} else (x, s), 1) for x, s in pair]
        result = {itself}(**dict(zip({inputs}, taken)), **params, **dict(zip({starts}, {given})))
        return [o.flip(1) if {flipped} else o for o in result[:{outputs}]], {stacked}(result[{outputs}:])

    own, mixed = len(sizes), [*_STRUCK[0], *_STRUCK[1], *{apart}]
    units, counts = _impulses([*sizes, *shapes, *shapes][: len(mixed)], mixed, starts[0])
    struck, moved, read = counts[:own], counts[own : own + len(shapes)], counts[-len(shapes) :]
    marked = [units[own + j :: len(shapes)] for j in range(len(shapes))]
    states = [sum(x[1:], x[0]) for x in marked]
    told, after = run(1, units[:own], states)  # of all impulses at once: inputs, states in steps, states as they are read
    few, first, batch = sum(struck), min({lag} + 1, steps), len(inputs[0])
    steppers = _maps([x[few : few + sum(moved)] for x in after], moved, shapes, _STRUCK[1])
    readers = _maps([o[len(o) - sum(read) :, 0] for o in told], read, shapes, _STRUCK[2])
    units, still = [x[:few] for x in units[:own]], [x.new_zeros(few, *x.shape[1:]) for x in starts]
    answers = [([o[:few] for o in told], [x[:few] for x in after])]
    answers += [run(count, units, still) for count in range(2, first + 1)]
    rounds, few = max(1, (steps - 1).bit_length()), few + given * batch
    many = batch + sum([x.numel() for row in readers for x in row]) // max(1, sum([n.numel() for n in shapes]))
    inner = min(rounds, (rounds + (many // few).bit_length()) // 2)  # steps 0, 1, .. 2^inner - 1 of the blocks
    blocks = -(-steps >> inner)
    squares = _squares(steppers, shapes, inner + max(1, (blocks - 1).bit_length() - 2))  # at most 8 joined blocks are left
    outer, shaped = squares[inner:], [o.shape[2:] for o in empty[:{outputs}]]
    readers = _read_back(outer, readers, shaped, blocks)
    after = _powers(squares[:inner], answers[-1][1])
    told = [y[:, : steps - first] for y in _told(readers, after, shaped)]
    outputs = _heard([torch.cat([o, y], 1) for o, y in zip(answers[-1][0], told, strict=True)], struck, inputs, sizes)
    cut = steps - first + 1
    ends = _joined(outer, _left(after, struck, [_cut(u[:, :cut], 1 << inner) for u in inputs], sizes), batch)
    if first > 1:  # what inputs of the last steps have added so far
        held = [torch.stack(x, 1) for x in zip(*[states for _, states in answers[:-1]], strict=True)]
        ends = [x + y for x, y in zip(ends, _left(held, struck, [u[:, cut:] for u in inputs], sizes), strict=True)]
    if given:
        told = [y[:, :steps] for y in _told(readers, _powers(squares[:inner], starts), shaped)]
        outputs = [o + y for o, y in zip(outputs, told, strict=True)]
        ends = [x + y for x, y in zip(ends, _moved(squares, starts, steps), strict=True)]
    outputs = [o.flip(1) if {flipped} else o for o in outputs]
    return {result}(*[o.to(dtype) for o in outputs], *{ends})


def _impulses(shapes, mixed, like):
    """For each array in turn a one at each place of its mixed axes, everywhere along the others; how many rows each takes."""
    counts = [math.prod([shape[i] for i in axes]) for shape, axes in zip(shapes, mixed, strict=True)]
    ones = torch.eye(sum(counts), dtype=like.dtype, device=like.device).split(counts, 1)
    sizes = [[n if i in axes else 1 for i, n in enumerate(shape)] for shape, axes in zip(shapes, mixed, strict=True)]
    return [x.reshape(-1, *n).expand(-1, *shape) for x, n, shape in zip(ones, sizes, shapes, strict=True)], counts


def _maps(results, counts, shapes, mixed):
    """What each array adds to each result: [places of its mixed axes, dims of the result], from the answers to its impulses."""
    places = [[shape[i] for i in axes] for shape, axes in zip(shapes, mixed, strict=True)]
    return [[x.reshape((*n, *x.shape[1:])) for n, x in zip(places, r.split(counts), strict=True)] for r in results]


def _sum(how, kernel, source):
    """`torch.einsum`; where nothing is summed, a product of arrays as they lie."""
    own, given, made = how.replace("...", "PT").replace(",", "->").split("->")
    inner = own.lstrip("Gt")
    if set(own + given) > set(made) or inner != made[-len(inner) :]:
        return torch.einsum(f"{{own}},{{given}}->{{made}}", kernel, source)
    source = source.permute([given.index(d) for d in made if d in given])
    kernel, source = [x[tuple([slice(None) if d in n else None for d in made])] for x, n in ((kernel, own), (source, given))]
    return kernel * source


def _mapped(maps, words, states, shapes):
    """Maps of states [P, steps, dims], added up for each result."""
    made = []
    for row, own, shape in zip(maps, words, shapes, strict=True):
        terms = [_sum(how, one, x) for one, how, x in zip(row, own, states, strict=True) if how]
        made.append(sum(terms[1:], terms[0]) if terms else states[0].new_zeros(*states[0].shape[:2], *shape))
    return made


def _squares(maps, shapes, count):
    """Maps of 1, 2, 4, .. steps, so many of them."""
    made = [maps]
    while len(made) < count:
        columns = [_columns(made[-1], [row[j] for row in made[-1]], shapes) for j in range(len(shapes))]
        made.append([[column[i] for column in columns] for i in range(len(shapes))])
    return made


def _powers(squares, states):
    """States [P, dims] after 0, 1, 2, .. times the steps of the first map, [P, 2^maps, dims]."""
    shapes = [x.shape[1:] for x in states]
    rows = [x[:, None] for x in states]
    for maps in squares:
        rows = [torch.cat([x, y], 1) for x, y in zip(rows, _mapped(maps, _CARRIED, rows, shapes), strict=True)]
    return rows


def _moved(squares, states, count):
    """States [P, dims] after so many steps."""
    shapes, rows = [x.shape[1:] for x in states], [x[:, None] for x in states]
    for power in reversed(range(len(squares))):
        while count >> power:
            rows, count = _mapped(squares[power], _CARRIED, rows, shapes), count - (1 << power)
    return [x[:, 0] for x in rows]


def _cut(rows, span):
    """[B, T, dims] in blocks of so many steps, zeros before the first: [B * blocks, span, dims], steps side by side."""
    rows = rows.movedim((0, 1), (-2, -1))
    full = torch.cat([rows.new_zeros(*rows.shape[:-1], -rows.shape[-1] % span), rows], -1)
    return full.reshape(*rows.shape[:-2], -1, span).movedim((-2, -1), (0, 1))


def _joined(squares, parts, batch):
    """States [B, dims] from what each block adds, [B * blocks, dims]: neighbours are joined, then all are added in turn."""
    shapes = [x.shape[1:] for x in parts]
    rows = [x.reshape(batch, -1, *x.shape[1:]).flip(1) for x in parts]  # the last block first
    for maps in squares[:-1]:
        pairs = zip([x[:, ::2] for x in rows], _mapped(maps, _CARRIED, [x[:, 1::2] for x in rows], shapes), strict=True)
        rows = [torch.cat([x[:, : y.shape[1]] + y, x[:, y.shape[1] :]], 1) for x, y in pairs]
    ends = [x[:, -1:] for x in rows]
    for i in range(rows[0].shape[1] - 2, -1, -1):
        moved = _mapped(squares[-1], _CARRIED, ends, shapes)
        ends = [x[:, i : i + 1] + y for x, y in zip(rows, moved, strict=True)]
    return [x[:, 0] for x in ends]


def _told(readers, states, shapes):
    """Outputs [P, blocks * steps, dims] of states [P, steps, dims], and of these so many blocks later."""
    made = []
    for row, words, shape in zip(readers, _READ, shapes, strict=True):
        rows = [x.permute((0, *range(1 + len(shape), x.dim()), *range(1, 1 + len(shape)))) for x in row]
        hows = [how and f"G{{how}}".replace("->...", "->PGT").replace("...", "PT") for how in words]
        terms = [_sum(how, one, x) for how, one, x in zip(hows, rows, states, strict=True) if how]
        whole = sum(terms[1:], terms[0]) if terms else states[0].new_zeros(len(states[0]), 1, 1, *shape)
        made.append(whole.flatten(1, 2))
    return made


def _read_back(squares, readers, shapes, count):
    """Readers [blocks, dims of the output, places] of states, and of these 1, 2, .. times the steps of the first map later.

    readers: [places, dims of the output]. Places lie side by side, as matrix products read them fastest.
    """

    def before(maps, rows, words):  # what rows read, of the states so many steps before
        terms = [[torch.einsum(how, rows[k], maps[k][j]) for k, how in enumerate(hows) if how] for j, hows in enumerate(words)]
        return [sum(own[1:], own[0]) if own else torch.zeros_like(x) for own, x in zip(terms, rows, strict=True)]

    made = []
    for row, words, shape in zip(readers, _BACK, shapes, strict=True):
        counts = [x.dim() - len(shape) for x in row]
        rows = [x.permute((*range(n, x.dim()), *range(n)))[None] for x, n in zip(row, counts, strict=True)]
        for maps in squares[:-1]:
            rows = [torch.cat(pair) for pair in zip(rows, before(maps, rows, words), strict=True)]
        parts = [rows]
        while len(parts) * len(rows[0]) < count:
            parts.append(before(squares[-1], parts[-1], words))
        made.append([torch.cat(x)[:count] for x in zip(*parts, strict=True)])
    return made


def _columns(maps, column, shapes):
    """The maps of one state's own maps [places, dims]."""
    flat = [x.reshape(x.shape[: x.dim() - len(n)].numel(), 1, *n) for x, n in zip(column, shapes, strict=True)]
    return [y.reshape(x.shape) for x, y in zip(column, _mapped(maps, _CARRIED, flat, shapes), strict=True)]


def _length(least):
    """The next length of at least so many steps that FFTs are fast at."""
    return min([odd << (-(-least // odd) - 1).bit_length() for odd in (1, 3, 5, 9)])


def _spectrum(rows, length):
    """The real FFT over steps of [P, T, dims], as [P, frequencies, dims], frequencies side by side."""
    count, steps, *dims = rows.shape
    made = torch.fft.rfft(rows.reshape(count, steps, math.prod(dims)).mT, length)  # padded, so copied already
    return made.reshape(count, *dims, length // 2 + 1).movedim(-1, 1)


def _heard(kernels, counts, inputs, sizes):
    """Outputs [B, T, dims]: kernels [P, T, dims] on inputs [B, T, dims], FFTs of as many sequences as a cache holds."""
    batch, steps = inputs[0].shape[:2]
    length = _length(2 * steps - 1)
    wide = length * max([n.numel() for n in sizes])
    held = max(1, (1 << 17) // wide) if inputs[0].device.type == "cpu" else batch
    parts = [_spectrum(kernel, length).split(counts) for kernel in kernels]
    made = [[] for _ in kernels]
    for rows in zip(*[u.split(held) for u in inputs], strict=True):
        spectra = [_spectrum(u, length) for u in rows]
        for own, kernel, words, pieces in zip(made, kernels, _HEARD, parts, strict=True):
            taken = zip(pieces, words, spectra, sizes, _STRUCK[0], strict=True)
            terms = [_sum(how, k.reshape(*[n[i] for i in axes], *k.shape[1:]), u) for k, how, u, n, axes in taken if how]
            whole = torch.fft.irfft(sum(terms[1:], terms[0]).movedim(1, -1), length)[..., :steps] if terms else None
            own.append(whole if terms else kernel.new_zeros(len(rows[0]), *kernel.shape[2:], steps))
    return [torch.cat(rows).movedim(-1, 1) for rows in made]


def _left(kernels, counts, inputs, sizes):
    """Last states [B, dims]: the answers of states [P, T, dims] to inputs of so many steps before."""
    made = []
    for kernel, words in zip(kernels, _LEFT, strict=True):
        rows = zip(kernel.flip(1).split(counts), words, inputs, sizes, _STRUCK[0], strict=True)
        terms = [_sum(how, k.reshape(*[n[i] for i in axes], *k.shape[1:]), u) for k, how, u, n, axes in rows if how]
        made.append(sum(terms[1:], terms[0]) if terms else kernel.new_zeros(inputs[0].shape[0], *kernel.shape[2:]))
    return made
'''

SIDES = '''

def _stacked(states):
    """States side by side as one: [P, shared dims, places]."""
    rows = [x.permute(0, *[i + 1 for i in (*shared, *mixed)]) for x, (shared, mixed) in zip(states, _BESIDE, strict=True)]
    ahead = 1 + len(_BESIDE[0][0])
    return [torch.cat([x.reshape(*x.shape[:ahead], math.prod(x.shape[ahead:])) for x in rows], -1)]


def _unstacked(states, like):
    """Each state [P, dims] of states side by side."""
    shapes = [x.shape[1:] for x in like]
    made, counts = [], [math.prod([n[i] for i in mixed]) for n, (_, mixed) in zip(shapes, _BESIDE, strict=True)]
    for x, n, (shared, mixed) in zip(states[0].split(counts, -1), shapes, _BESIDE, strict=True):
        axes = [*shared, *mixed]
        rows = x.reshape(len(x), *[n[i] for i in axes])
        made.append(rows.permute(0, *[axes.index(i) + 1 for i in range(len(n))]))
    return made
'''

PAYS = '''
CONVOLUTION = {always}  # whether a call may take the convolution, where that takes less by the model


def _convolution_pays(device, batch, steps, states, inputs, outputs, impulses, links):
    """Whether the convolution takes less time than the recurrence, by a model of seconds on one core, or on a GPU.

    states, inputs, outputs: elements a step of a sequence; impulses: runs that answer them; links: elements of the transition.
    """
    if steps < {least}:
        return False
    cpu = device == "cpu"
    call, element = (4e-6, 1e-9) if cpu else (7e-6, 2e-11)
    work = batch * states * {work}
    native = {native} if cpu else False
    one = work * 4e-11 + 5e-8 if native else {calls} * call + work * element  # a step
    length = _length(2 * steps - 1)
    rounds = steps.bit_length()
    doubling = rounds * ({links} * 24 * call + links * 16 * element) + impulses * steps * states * element / 2
    transforms = length * rounds * (batch * (inputs + outputs) + 2 * impulses * outputs) * element
    sums = length * batch * impulses * outputs * element + batch * steps * impulses * states * element / 2
    return doubling + transforms + sums < steps * one
'''
