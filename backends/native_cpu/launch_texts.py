"""What the Python side of native kernels consists of, as text: the same for every recurrence, or with words to be replaced."""

from __future__ import annotations

KERNEL = '''
def _native_source():
    """The C++ text of the library: around the kernels what is the same for every recurrence."""
    return AROUND


def _native_defines(dtype, *sizes):
    """The macros of the kernels for dims of these sizes."""
    defines = {macro: str(int(size)) for macro, size in zip(_NATIVE_SIZES, sizes, strict=True)}
    return {**defines, "SEQC_REAL": "double" if dtype == torch.float64 else "float"}


@_functools.cache
def _native_kernel(dtype, *sizes):
    """The kernels for dims of these sizes, built on first use, and the number of panels that the last free dim is cut into."""
AHEAD    library = _native_library(_native_source(), _native_defines(dtype, *sizes))
    for function in (FUNCTIONS):
        whole, pointer = _ctypes.c_int64, _ctypes.c_void_p
        function.argtypes = [whole, whole, whole, pointer, whole, whole, pointer]
    library.seqc_large_pages.argtypes = [_ctypes.c_void_p, _ctypes.c_int64]
    library.seqc_large_pages.restype = None
    panels = library.seqc_panels()
ENTRY    return library, panels
'''

CALL = '''
def _native_run(function, B, T, way, bounds, save, *arrays):
    """Call a kernel on contiguous tensors; None is an array that it does not write. bounds: of a pack's sequences, or None."""
    pointer = None if bounds is None else bounds.data_ptr()
    if function(B, T, way, pointer, torch.get_num_threads(), save, _native_pointers(arrays)):
        raise MemoryError("a native kernel found no memory for its buffers")


def _native_new(library, like, *shape):
    """A new array. A large one begins on a large page: the first touch of each small page would cost more than writing it."""
    count, size = math.prod(shape), like.element_size()
    if count * size < 1 << 21:
        return like.new_empty(shape)
    page = (1 << 21) // size
    whole = like.new_empty(count + page)
    made = like.new_empty(0).set_(whole.untyped_storage(), -(whole.data_ptr() // size) % page, shape)
    library.seqc_large_pages(made.data_ptr(), made.nbytes)
    return made
'''

ROWS = '''
# Kernels take 4 to 1 rows of the batch at a time. Those that a batch needs are built for it (SEQC_BATCHES=all: for every one).
_NATIVE_ALL_ROWS = _os.environ.get("SEQC_BATCHES") == "all"


def _native_rows(B):
    """Which kernels B rows take: 4 if some take four at a time, + the rows that remain; 8: all. An extent that is open in a
    trace stays as it is."""
    return B if type(B) is not int else 8 if _NATIVE_ALL_ROWS else 4 * (B > 3) + B % 4 or 1
'''

# A library that was built ahead serves every batch.
AHEAD = """\
    every = (8, *sizes[1:])
    if sizes != every and _native_prebuilt(_native_source(), _native_defines(dtype, *every)):
        return _native_kernel(dtype, *every)
"""

READY = {
    True: '''
def _native_ready(dtype, *sizes):
    """Whether native code runs with dims of these sizes: not where one is 0. What cannot be built or loaded is an error."""
    return 0 not in sizes
''',
    False: '''
def _native_ready(dtype, *sizes):
    """Whether native code runs with dims of these sizes: not where one is 0, nor where it cannot be built or loaded."""
    return not all(type(size) is int for size in sizes) or _native_usable(dtype, *sizes)  # open in a trace: known at the call


@_functools.cache
def _native_usable(dtype, *sizes):
    """The same, tried once; told where it fails."""
    try:
        return 0 not in sizes and _native_kernel(dtype, *sizes) is not None
    except (RuntimeError, OSError, AttributeError) as problem:
        words = _native_words(zip(_NATIVE_SIZES, sizes, strict=True))
        _native_tell(f"no native kernels for {words or 'this spec'} in {dtype}: CPU tensors take the plain torch form, "
                     f"for {problem}")
        return False
''',
}

ADDED = '''
def _native_added(x, count):
    """x summed over its first axes, which number contributions; no copy where there is one."""
    for _ in range(count):
        x = x[0] if x.shape[0] == 1 else x.sum(0)
    return x
'''

KEPT = '''
def _native_kept(library, word, left, right, kept):
    """What the einsum `word` of left [B, T, .., rows] and right [B, T, .., columns] gives, for the elements that are kept."""
    if 4 * torch.count_nonzero(kept) > kept.numel():
        return torch.einsum(word, left, right)
    out, count = torch.zeros_like(kept), left.shape[0] * left.shape[1]
    *heads, rows, columns = kept.shape
    arrays = [_ctypes.c_void_p(x.data_ptr()) for x in (left, right, kept, out)]
    sizes = [_ctypes.c_int64(x) for x in (torch.get_num_threads(), count, math.prod(heads), rows, columns)]
    if library.seqc_outer_kept(*sizes, *arrays):
        raise MemoryError("the gradient of a sparse parameter found no memory for its buffers")
    return out
'''
