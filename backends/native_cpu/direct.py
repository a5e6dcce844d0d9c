"""One token without Python in between: the step of a native library as a function that Python calls with tensors.

In: names and shapes of a step. Out: the C++ of that function (`ENTRY`, the same for every spec), and the Python that makes one
for each library (`DIRECT`, `entry_text`). Tensors are read through the table of functions that torch offers to other libraries
(DLPack's exchange interface), and Python is called through its stable interface: what either needs is declared in the text, so
that no header of torch or Python is compiled, or need be there. A call that is not of the kind below is declined by None, and
goes through torch's dispatcher.

Taken is a call of contiguous CPU tensors of the library's dtype and sizes, where nothing watches or changes what operators
do: no gradient is recorded, and no mode, transform, trace, autocast or profiler is active.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqc.emit.text import group, lay

ENTRY = r"""
#if SEQC_KERNELS & STEP
// The step as a function that Python calls with tensors. Declared is what it needs of Python's stable interface and of DLPack.
namespace {
struct Object;
struct Tensor {
  void* data;
  std::int32_t device, number, axes;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  const i64 *sizes, *strides;
  std::uint64_t offset;
};
struct Direct {  // made by Python: pointers, in this order
  Object* (*type)(Object*);
  void (*hold)(Object*);
  void (*drop)(Object*);
  Object* (*call)(Object*, Object*);
  Object* (*tuple)(std::ptrdiff_t);
  int (*put)(Object*, std::ptrdiff_t, Object*);
  Object* (*item)(Object*, std::ptrdiff_t);
  void (*forget)();
  i64 (*number)(Object*);
  Object* (*whole)(i64);
  void* (*unlock)();
  void (*lock)(void*);
  Object* (*no_memory)();
  int (*read)(Object*, Tensor*);
  int (*run)(i64, i64, i64, const i64*, i64, i64, void* const*);
  Object *none, *yes, *tensor, *parameter, *result, *empty_like, *is_neg, *changed, *threads;
  Object *watches[8], *answers[8];  // what tells whether something watches, and what it answers where nothing does
  const i64* counts;  // arguments; states, which are the last of them; outputs
  const i64* sizes;   // of arguments, then outputs: how many axes, and their extents; -1 is the batch
  const i64* shared;  // of each state: whether several programs of the kernel read what one of them writes
  const i64* alike;   // of each output: the argument that has its shape, or -1
  Object* const* fresh;  // of each output: what makes one for a batch
};
constexpr int MOST = 128;  // tensors
void* (*inside)(Object*, const char*);  // PyCapsule_GetPointer

bool calm(const Direct& d) {
  for (int i = 0; i < 8 && d.watches[i]; ++i) {
    Object* const answer = d.call(d.watches[i], nullptr);
    if (!answer) return d.forget(), false;
    d.drop(answer);
    if (answer != d.answers[i]) return false;
  }
  return true;
}

// Reads a tensor if it is of the kind that is taken: shape as `sizes` says, where B is -1 until the first tensor tells it.
bool taken(const Direct& d, Object* x, Tensor& t, const i64* sizes, i64& B, i64& bytes) {
  Object* const type = d.type(x);
  d.drop(type);  // a class lives on
  if (type != d.tensor && type != d.parameter) return false;
  if (d.read(x, &t)) return d.forget(), false;
  if (t.device != 1 || t.code != 2 || t.bits != 8 * sizeof(real) || t.lanes != 1 || !t.data || t.axes != *sizes) return false;
  i64 size = 1;
  for (i64 i = t.axes; i-- > 0;) {
    i64 wanted = sizes[1 + i];
    if (wanted < 0) {
      if (B < 0) B = t.sizes[i];
      wanted = B;
    }
    if (t.sizes[i] != wanted || (wanted != 1 && t.strides[i] != size)) return false;
    size *= wanted;
  }
  if (size == 0) return false;
  if (size == 1) {  // a view that stands for its negative is contiguous only where it has one element
    Object* const one = d.tuple(1);
    d.hold(x);
    d.put(one, 0, x);
    Object* const answer = d.call(d.is_neg, one);
    d.drop(one);
    if (!answer) return d.forget(), false;
    d.drop(answer);
    if (answer == d.yes) return false;
  }
  t.data = static_cast<char*>(t.data) + t.offset;
  bytes = size * i64(sizeof(real));
  return true;
}

Object* made(const Direct& d, Object* maker, Object* argument) {  // argument: ours
  Object* const one = d.tuple(1);
  d.put(one, 0, argument);
  Object* const x = d.call(maker, one);
  d.drop(one);
  return x;
}

struct Written {  // the tensors that the step writes; ours
  const Direct& d;
  Object* x[MOST];
  int count = 0;
  ~Written() {
    for (int i = 0; i < count; ++i) d.drop(x[i]);
  }
};
}  // namespace

extern "C" void seqc_direct_begin(void* (*pointer)(Object*, const char*)) { inside = pointer; }

// given: the arguments of a step, whether it is in place, and the earlier result that is written, or None.
extern "C" Object* seqc_direct(Object* self, Object* const* given, std::ptrdiff_t count) {
  const Direct& d = *static_cast<const Direct*>(inside(self, "seqc"));
  const i64 arguments = d.counts[0], states = d.counts[1], outputs = d.counts[2], results = outputs + states;
  const auto declined = [&] { return d.hold(d.none), d.none; };
  if (count != arguments + 2 || arguments + results > MOST || !calm(d)) return declined();
  const bool in_place = given[arguments] == d.yes;
  Object* const out = given[arguments + 1] == d.none ? nullptr : given[arguments + 1];
  if (out) {
    Object* const type = d.type(out);
    d.drop(type);
    if (type != d.result) return declined();
  }
  Tensor t[MOST];
  void* arrays[MOST];
  i64 B = -1, bytes[MOST], sum = 0;
  const i64 *sizes = d.sizes, *starts[MOST];
  for (i64 i = 0; i < arguments + outputs; ++i, sizes += 1 + *sizes) {
    starts[i] = sizes;
    if (i >= arguments) continue;
    if (!taken(d, given[i], t[i], sizes, B, bytes[i])) return declined();
    arrays[i] = t[i].data;
    sum += bytes[i];
  }
  if (!serves(B)) return declined();
  Written written{d};
  bool old = out || in_place;  // whether what is written was there before
  for (i64 i = 0; i < results; ++i) {
    const i64 at = arguments + i, state = i - outputs, before = arguments - states + state;
    Object* x;
    if (state >= 0 && in_place) {
      x = given[before];
      d.hold(x);
    } else if (out) {
      x = d.item(out, i);
      d.hold(x);
    } else if (const i64 like = state >= 0 ? before : d.alike[i]; like >= 0) {
      d.hold(given[like]);
      x = made(d, d.empty_like, given[like]);
    } else {
      x = made(d, d.fresh[i], d.whole(B));
    }
    if (!x) return d.forget(), declined();
    written.x[written.count++] = x;
    if (!taken(d, x, t[at], starts[state >= 0 ? before : at], B, bytes[at])) return declined();
    arrays[at] = t[at].data;
    for (i64 j = 0; old && j < at; ++j) {  // no other array may lie where this one is written
      const char *a = static_cast<char*>(arrays[at]), *b = static_cast<char*>(arrays[j]);
      if (a < b + bytes[j] && b < a + bytes[at] && !(j == before && a == b)) return declined();
    }
  }
  thread_local std::unique_ptr<char[]> aside;  // new states, where several programs read the old ones
  thread_local i64 room = 0;
  i64 used = 0;
  const auto overwritten = [&](i64 state) {
    return d.shared[state] && arrays[arguments + outputs + state] == arrays[arguments - states + state];
  };
  for (i64 s = 0; s < states; ++s) used += overwritten(s) ? bytes[arguments - states + s] : 0;
  if (used > room) aside.reset(new (std::nothrow) char[used]), room = aside ? used : 0;
  if (used > room) return declined();
  used = 0;
  for (i64 s = 0; s < states; ++s) {
    if (!overwritten(s)) continue;
    arrays[arguments + outputs + s] = aside.get() + used;
    used += bytes[arguments - states + s];
  }
  Object* const told = d.call(d.threads, nullptr);
  if (!told) return d.forget(), declined();
  const i64 threads = d.number(told);
  d.drop(told);
  const bool large = sum > i64(1) << 20;  // other threads may run meanwhile
  void* const held = large ? d.unlock() : nullptr;
  const int failed = d.run(B, 1, 1, nullptr, threads, 0, arrays);
  for (i64 s = 0; used && !failed && s < states; ++s) {
    const i64 at = arguments + outputs + s;
    if (arrays[at] != t[at].data) std::memcpy(t[at].data, arrays[at], bytes[at]);
  }
  if (large) d.lock(held);
  if (failed) return d.no_memory();
  bool same = out;  // whether all that is written is the earlier result's
  for (i64 i = outputs; out && i < results; ++i) same &= written.x[i] == d.item(out, i);
  Object* const tensors = d.tuple(results);
  for (i64 i = 0; i < results; ++i) d.hold(written.x[i]), d.put(tensors, i, written.x[i]);
  if (old) {
    d.hold(tensors);
    Object* const counted = made(d, d.changed, tensors);
    if (!counted) return d.drop(tensors), nullptr;
    d.drop(counted);
  }
  Object* const result = same ? (d.hold(out), out) : d.call(d.result, tensors);
  d.drop(tensors);
  return result;
}
#endif
"""

DIRECT = '''
_NATIVE_STEPS: list[Callable] = []  # the step of each library as a function: for calls that need nothing of torch's dispatcher
_native_held: list[Any] = []  # what these functions point to

_NATIVE_PYTHON = (
    "PyObject_Type Py_IncRef Py_DecRef PyObject_CallObject PyTuple_New PyTuple_SetItem PyTuple_GetItem PyErr_Clear "
    "PyLong_AsLongLong PyLong_FromLongLong PyEval_SaveThread PyEval_RestoreThread PyErr_NoMemory"
).split()


class _NativeMethod(_ctypes.Structure):
    """A function as Python keeps it."""

    _fields_ = [("name", _ctypes.c_char_p), ("call", _ctypes.c_void_p), ("flags", _ctypes.c_int), ("doc", _ctypes.c_char_p)]


@_functools.cache
def _native_watches() -> dict[Any, Any]:
    """What tells whether something watches or changes what operators do, and its answer where nothing does."""
    return {
        torch.is_grad_enabled: False,
        torch._C._are_functorch_transforms_active: False,
        torch._C._len_torch_dispatch_stack: 0,
        torch._C._len_torch_function_stack: 0,
        torch._C._get_tracing_state: None,
        torch._C._is_any_autocast_enabled: False,
        torch._C._autograd._profiler_enabled: False,
    }


@_functools.cache
def _native_exchange() -> int:
    """Where torch's function lies that describes a tensor to other libraries; 0 if it, or Python's interface, is not there."""
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None or _platform.python_implementation() != "CPython":
        return 0
    get = _ctypes.PYFUNCTYPE(_ctypes.c_void_p, _ctypes.py_object, _ctypes.c_char_p)(("PyCapsule_GetPointer", _ctypes.pythonapi))
    table = (_ctypes.c_void_p * 6).from_address(get(capsule, b"dlpack_exchange_api"))
    version = (table[0] or 0) & 0xFFFFFFFF  # the table begins with the version of the interface; pointers follow
    return table[5] or 0 if version == 1 else 0


def _native_place(function: Any) -> int:
    """Where a function lies."""
    return _ctypes.cast(function, _ctypes.c_void_p).value or 0


def _native_numbers(*values: int) -> Any:
    return (_ctypes.c_int64 * len(values))(*values)


def _native_direct(library: Any, result: Any, dtype: torch.dtype, states: int, shapes: Sequence[Any], shared: Any) -> None:
    """Add the step of a library to `_NATIVE_STEPS`. shapes: of the arguments, then of the outputs; -1 is the batch."""
    read = _native_exchange()
    if not read:
        return
    outputs = len(result._fields) - states
    count = len(shapes) - outputs
    given, made = shapes[: count - states], shapes[count:]
    alike = [next((i for i, x in enumerate(given) if x == shape), -1) for shape in made]
    fresh = [_functools.partial(_native_fresh, dtype, shape[1:]) for shape in made]
    objects = [None, True, torch.Tensor, torch.nn.Parameter, result, torch.empty_like, torch.is_neg,
               torch._C._increment_version, torch.get_num_threads]
    watches = _native_watches()
    sizes = [n for shape in shapes for n in (len(shape), *shape)]
    tables = [*(_native_numbers(*row) for row in ((count, states, outputs), sizes, shared, alike)),
              (_ctypes.c_void_p * outputs)(*map(id, fresh))]
    words = [*(_native_place(getattr(_ctypes.pythonapi, name)) for name in _NATIVE_PYTHON), read]
    words += [_native_place(library.seqc_step), *map(id, objects), *[*map(id, watches), 0, 0][:8]]
    words += [*[*map(id, watches.values()), 0, 0][:8], *map(_ctypes.addressof, tables)]
    entry = (_ctypes.c_void_p * len(words))(*words)
    library.seqc_direct_begin.argtypes = [_ctypes.c_void_p]
    library.seqc_direct_begin(_native_place(_ctypes.pythonapi.PyCapsule_GetPointer))
    name, pointer, thing = _ctypes.create_string_buffer(b"seqc"), _ctypes.c_void_p, _ctypes.py_object
    capsule = _ctypes.PYFUNCTYPE(thing, pointer, pointer, pointer)(("PyCapsule_New", _ctypes.pythonapi))(
        _ctypes.addressof(entry), _ctypes.addressof(name), None
    )
    method = _NativeMethod(b"seqc_direct", _native_place(library.seqc_direct), 0x80, None)  # METH_FASTCALL
    function = _ctypes.PYFUNCTYPE(thing, pointer, thing, pointer)(("PyCFunction_NewEx", _ctypes.pythonapi))(
        _ctypes.addressof(method), capsule, None
    )
    _native_held.append((entry, name, method, tables, fresh, objects, watches))
    _NATIVE_STEPS.append(function)


def _native_fresh(dtype: torch.dtype, sizes: Sequence[int], B: int) -> Tensor:
    """A new tensor of a batch of B."""
    return torch.empty((B, *sizes), dtype=dtype, device="cpu")
'''


def entry_text(module: str, dims: Sequence[str], shapes: Sequence[Sequence[str]], shared: Sequence[str], states: int) -> str:
    """The function that makes the entry of one library. module: the Module's name; shapes: of arguments and outputs; shared:
    for each state, whether several programs read what one writes; both as Python expressions of the dims."""
    rows = [group(["-1" if axis == "B" else axis for axis in shape]) for shape in shapes]
    return "\n".join([
        lay("def _native_entry(", ["library", "panels", "dtype", *dims], "):"),
        '    """Add the step of a library, for dims of these sizes, to the functions that take tensors."""',
        "    _native_direct(",
        f"        library, {module}Result, dtype, {states},",
        f"{lay('[', rows, '],', 8)}",
        f"        [{', '.join(shared)}],",
        "    )",
    ])
