"""What the Python side of native kernels consists of, as text: the same for every recurrence, or with words to be replaced."""

from __future__ import annotations

KERNEL = '''
def _native_source():
    """The C++ text of the library: around the kernels what is the same for every recurrence."""
    return AROUND


def _native_defines(kernels, dtype, *sizes):
    """The macros of a library of these kernels for dims of these sizes."""
    defines = {macro: str(int(size)) for macro, size in zip(_NATIVE_SIZES, sizes, strict=True)}
    return {**defines, "SEQC_KERNELS": kernels.upper(), "SEQC_REAL": "double" if dtype == torch.float64 else "float"}


@_functools.cache
def _native_kernel(kernels, dtype, *sizes):
    """The library of the kernels "forward", "backward" or "step" for dims of these sizes, or of "all" of them, built on first
    use; and the number of panels that the last free dim is cut into."""
    every = EVERY
    if (kernels, dtype, *sizes) != every:  # a library of all kernels, which was built ahead, serves every batch
        if _NATIVE_ALL or _native_prebuilt(_native_source(), _native_defines(*every)):
            return _native_kernel(*every)
    library = _native_library(_native_source(), _native_defines(kernels, dtype, *sizes))
    for name in _NATIVE_FUNCTIONS if kernels == "all" else [kernels]:
        whole, pointer = _ctypes.c_int64, _ctypes.c_void_p
        getattr(library, f"seqc_{name}").argtypes = [whole, whole, whole, pointer, whole, whole, pointer]
    library.seqc_large_pages.argtypes = [_ctypes.c_void_p, _ctypes.c_int64]
    library.seqc_large_pages.restype = None
    panels = library.seqc_panels()
ENTRY    return library, panels
'''

CALL = '''
# A call builds the kernels that it needs, for the rows of its batch. SEQC_BATCHES=all: one library has all of them.
_NATIVE_ALL = _os.environ.get("SEQC_BATCHES") == "all"


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
def _native_rows(B):
    """Kernels take 4 to 1 rows of the batch at a time. Which of them B rows take: 4 if some take four at a time, + the rows
    that remain; 8: all. An extent that is open in a trace stays as it is."""
    return B if type(B) is not int else 8 if _NATIVE_ALL else 4 * (B > 3) + B % 4 or 1
'''

READY = {
    True: '''
def _native_ready(_kernels, _dtype, *sizes):
    """Whether native code runs with dims of these sizes: not where one is 0. What cannot be built or loaded is an error."""
    return 0 not in sizes
''',
    False: '''
def _native_ready(kernels, dtype, *sizes):
    """Whether native code runs with dims of these sizes: not where one is 0, nor where it cannot be built or loaded."""
    known = all(type(size) is int for size in sizes)
    return not known or _native_usable(kernels, dtype, *sizes)  # open in a trace: known at the call


_native_failed = set()  # sizes for which some kernels were tried in vain: no others are


@_functools.cache
def _native_usable(kernels, dtype, *sizes):
    """The same, tried once; told where it fails."""
    if (dtype, *sizes) in _native_failed:
        return False
    try:
        return 0 not in sizes and all(_native_each([_functools.partial(_native_kernel, one, dtype, *sizes) for one in kernels]))
    except (RuntimeError, OSError, AttributeError) as problem:
        _native_failed.add((dtype, *sizes))
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
