"""What every layer's file holds alike: the cache, rows of ragged sequences, the short convolution, the stack.

In: nothing; {name} is the class of the recurrence, {spec} its function, {head}, {heads}, {pass} and {take} are the arguments
that a caller gives besides. Out: texts for `seqc.emit.layer`.
"""

from __future__ import annotations

CACHE = '''
class {name}Cache:
    """What a layer or a stack carries from one call to the next; empty before the first.

    states: by name, an entry for each sequence: [B, dims]; layers: of a stack, the caches of its layers.
    """

    def __init__(self) -> None:
        self.states: dict[str, Tensor] = {{}}
        self.layers: list[{name}Cache] = []

    def map(self, change: Callable[[Tensor], Tensor]) -> {name}Cache:
        """A new cache, with every tensor changed."""
        made = {name}Cache()
        made.states = {{name: change(x) for name, x in self.states.items()}}
        made.layers = [one.map(change) for one in self.layers]
        return made

    def select(self, sequences: Tensor) -> {name}Cache:
        """The cache of these sequences, by their numbers, each as often as it is named: beams, or a batch that shrinks."""
        return self.map(lambda x: x.index_select(0, sequences))

    def detach(self) -> {name}Cache:
        """The cache without its past, as far as gradients go: truncated backpropagation."""
        return self.map(Tensor.detach)

    def clone(self) -> {name}Cache:
        """A copy in memory of its own."""
        return self.map(Tensor.clone)
'''

ROWS = '''
class _Rows:
    """How sequences come and go: a batch [B, T, ..] as it is, what is ragged as one row [1, steps, ..] with its bounds."""

    def __init__(self, x: Tensor | PackedSequence, mask: Tensor | None, cu_seqlens: Tensor | None) -> None:
        self.like, self.mask, self.bounds = x, mask, cu_seqlens
        if not isinstance(x, PackedSequence) and not x.is_nested:
            if mask is not None:
                kind = getattr(mask, "dtype", type(mask).__name__)
                if kind != torch.bool or mask.shape != x.shape[:2] or cu_seqlens is not None:
                    found = f"it is {list(getattr(mask, 'shape', ()))} of {kind}"
                    raise ValueError(f"mask is [B, T] of torch.bool, and there is no cu_seqlens beside it; {found}")
                self.bounds = _bounds(mask.sum(1))
            return
        if mask is not None or cu_seqlens is not None:
            raise ValueError("a PackedSequence and a nested tensor have their own lengths: give no mask and no cu_seqlens")
        if isinstance(x, PackedSequence):
            sequences = torch.arange(int(x.batch_sizes[0]))[:, None]
            places = x.batch_sizes.cumsum(0) - x.batch_sizes + sequences  # [B, T], sequences by their length
            there = sequences < x.batch_sizes
            if x.unsorted_indices is not None:
                order = x.unsorted_indices.to("cpu")
                places, there = places[order], there[order]
            self.order = places[there].to(x.data.device)
            self.bounds = _bounds(there.sum(1)).to(x.data.device)
            return
        jagged: Any = x
        if x.layout != torch.jagged or jagged.lengths() is not None:
            raise ValueError("a nested tensor has the layout torch.jagged, without gaps: x.contiguous()")
        self.bounds = jagged.offsets()

    def take(self, x: Any) -> Tensor:
        """x, of the kind of the sequences, as the recurrence takes it."""
        if isinstance(x, PackedSequence):
            return x.data[self.order][None]
        if x.is_nested:
            return x.values()[None]  # type: ignore[no-any-return]
        return x if self.mask is None else x[self.mask][None]  # type: ignore[no-any-return]

    def give(self, y: Tensor) -> Tensor | PackedSequence:
        """A result as the sequences came: where a mask is False there are zeros."""
        if isinstance(self.like, PackedSequence):
            return self.like._replace(data=torch.empty_like(y[0]).index_copy(0, self.order, y[0]))
        if self.like.is_nested:
            return torch.nested.nested_tensor_from_jagged(y[0], self.bounds)
        if self.mask is None:
            return y
        places = self.mask.flatten().nonzero()[:, 0]
        rows = y.new_zeros((self.mask.numel(), *y.shape[2:])).index_copy(0, places, y[0])
        return torch.unflatten(rows, 0, self.mask.shape)


def _bounds(lengths: Tensor) -> Tensor:
    """The lengths of sequences as their bounds in one row: 0, then the sum so far."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
'''

SEQUENCES = '''
class _Sequences(torch.nn.Module):
    """What a layer and a stack have in common: the kinds of sequences that a call takes."""

    d_model: int

    def sized(self, d_model: int, **sizes: int | None) -> None:
        """Keep the width; ValueError where a size is no size. None is one that the layer finds itself."""
        _whole_sizes(1, d_model=d_model, **{{name: size for name, size in sizes.items() if size is not None}})
        self.d_model = d_model

    def fit(self, x: Tensor, axes: str) -> Tensor:
        """x, where it has these axes and then d_model; ValueError where it has others."""
        if x.dim() != len(axes.split()) + 1 or x.shape[-1] != self.d_model:
            want = f"{{axes}}, d_model = {{self.d_model}}"
            raise ValueError(f"{{type(self).__name__}}: x has shape {{list(x.shape)}}; it is [{{want}}]")
        return x

    def cache(self) -> {name}Cache:
        """A new cache, for the calls of one batch of sequences."""
        return {name}Cache()

    def run(self, x: Tensor, {head}cache: {name}Cache, cu_seqlens: Tensor | None) -> Tensor:
        """A batch, or a pack with its bounds."""
        raise NotImplementedError

    @overload
    def forward(
        self, x: Tensor, {heads}cache: {name}Cache | None = None, *, mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def forward(self, x: PackedSequence, {heads}cache: {name}Cache | None = None) -> PackedSequence: ...

    def forward(
        self, x: Tensor | PackedSequence, {heads}cache: {name}Cache | None = None, *, mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor | PackedSequence:
        """x: [B, T, d_model], a PackedSequence or a jagged tensor; the result is of the same kind.

        cache: what the sequences begin with, and then what they end with. mask: [B, T] of bool, True where a step counts;
        others are left out, and 0 in the result. cu_seqlens: x is a pack [1, steps, d_model] with these bounds, see `{spec}`.
        """
        own = {name}Cache() if cache is None else cache
        if not isinstance(x, (Tensor, PackedSequence)) or not isinstance(own, {name}Cache):
            found = f"x is a {{type(x).__name__}}, cache a {{type(own).__name__}}"
            raise TypeError(f"x is a tensor or a PackedSequence, and cache what `cache()` gives; {{found}}")
        rows = _Rows(x, mask, cu_seqlens)
        return rows.give(self.run(self.fit(rows.take(x), "B, T{second}"){take}, cache=own, cu_seqlens=rows.bounds))

    if TYPE_CHECKING:
        __call__ = forward
'''

CONVOLUTION = '''
def _convolved(
    x: Tensor, weight: Tensor, past: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """sum_i weight[i] * x[t-i], of each channel and sequence by itself, and the last steps for the next call.

    x: [B, T, .., C], or a pack with its bounds; weight: [taps, C]; past: [B, taps - 1, .., C], zeros unless given.
    """
    B, T = (x.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1), x.shape[1]
    before = len(weight) - 1
    past = x.new_zeros((B, before, *x.shape[2:])) if past is None else past.to(x.dtype)
    if cu_seqlens is None:
        row = torch.cat([past, x], 1)
        y = sum((w * row[:, before - i : before - i + T] for i, w in enumerate(weight)), torch.zeros_like(x))
        return y, row[:, T:].clone()  # the row itself is not kept
    # each sequence lies behind its own past; what stands behind the last one, behind nothing
    sequences, steps, ago = (torch.arange(n, device=x.device) for n in (B, T, before))
    places = steps + (torch.bucketize(steps, cu_seqlens[1:], right=True) + 1) * before
    starts = cu_seqlens[:-1] + sequences * before
    row = x.new_zeros((T + (B + 1) * before, *x.shape[2:]))
    row = row.index_copy(0, (starts[:, None] + ago).flatten(), past.flatten(0, 1)).index_copy(0, places, x[0])
    y = sum((w * row[places - i] for i, w in enumerate(weight)), torch.zeros_like(x[0]))
    return y[None], row[(cu_seqlens[1:] + sequences * before)[:, None] + ago]


def _normed(norm: torch.nn.RMSNorm | None, x: Tensor) -> Tensor:
    """x after a norm, in the dtype of its weight: under autocast that is the wider one."""
    return x if norm is None else norm(x.to(norm.weight.dtype))


def _unit(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x over its 2-norm along some axes."""
    size: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True)
    return x / size.clamp_min(1e-6)
'''

STACK = '''
class {name}Stack(_Sequences):
    """Layers one above the other: x + layer(norm(x)) for each, and a norm at the end.

    residual=False: each layer takes what the one below gives, without norms, as the layers of torch.nn.LSTM do. options: of
    every {name}Layer.
    """

    def __init__(self, d_model: int, layers: int, *, residual: bool = True, **options: Any) -> None:
        super().__init__()
        self.sized(d_model, layers=layers)
        made: dict[str, Any] = {{"device": options.get("device"), "dtype": options.get("dtype")}}
        self.layers, size = torch.nn.ModuleList(), d_model
        for _ in range(layers):
            layer = {name}Layer(size, **options)
            self.layers.append(layer)
            size = layer.d_out
        if residual and size != d_model:
            raise ValueError(f"a residual adds what a layer gives, {{size}} numbers, to what it takes, {{d_model}}")
        norms = layers + 1 if residual else 0
        self.norms = torch.nn.ModuleList(torch.nn.RMSNorm(d_model, eps=1e-5, **made) for _ in range(norms))

    def run(self, x: Tensor, {head}cache: {name}Cache, cu_seqlens: Tensor | None) -> Tensor:
        """All layers, over a batch or a pack."""
        return self.through(x, cache, lambda layer, y, own: layer.run(y{pass}, own, cu_seqlens))

    def step(self, x: Tensor, {head}cache: {name}Cache, inplace: bool = False) -> Tensor:
        """x [B, d_model] -> [B, d_model]: one step more."""
        return self.through(self.fit(x, "B{second}"), cache, lambda layer, y, own: layer.step(y{pass}, own, inplace))

    def through(self, x: Tensor, cache: {name}Cache, call: Callable[..., Tensor]) -> Tensor:
        """What comes of x; call: a layer, its input and its cache -> its result."""
        while len(cache.layers) < len(self.layers):
            cache.layers.append({name}Cache())
        if not self.norms:
            for layer, own in zip(self.layers, cache.layers, strict=True):
                x = call(layer, x, own)
            return x
        *norms, last = (norm for norm in self.norms if isinstance(norm, torch.nn.RMSNorm))
        for layer, norm, own in zip(self.layers, norms, cache.layers, strict=True):
            x = x + call(layer, _normed(norm, x), own)
        return _normed(last, x)
'''
