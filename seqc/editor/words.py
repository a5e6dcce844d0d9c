"""One line on each word of the language, for those who read or write a spec in an editor.

In: nothing (only data). Out: `STATEMENT_HELP`, `MARK_HELP`, `FUNCTION_HELP` and `CONSTANT_HELP`, each word -> (how it is
written, what it means). `docs/language.md` is the reference; tests hold the words to those that the front end knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Help: TypeAlias = Mapping[str, tuple[str, str]]

STATEMENT_HELP: Help = {
    "spec": ("spec NAME", "The name of the spec; a documentation string in triple quotes may follow."),
    "dim": ("dim H, K = 64, N {16, 32}, W in 1..8", "Named dims: open, with a default, one of a set of sizes, one of a range."),
    "axis": ("axis t, u", "The name of the time axis, or of two axes."),
    "scan": ("scan forward | backward | both [sum] [shared]", "The direction of the recurrence."),
    "input": ("input x[D] in [lo, hi]", "A value for each batch element and step."),
    "param": ("param W[M, D] init EXPR", "A trainable value, the same at every step; a square matrix repeats its dim."),
    "buffer": ("buffer M[D, D] init EXPR", "A value like a param that nothing trains."),
    "const": ("const c[H] = EXPR", "A value made of numbers, dims and other constants."),
    "state": ("state S[H, K] = EXPR", "A carried value, and what it is before the first step (0 unless said)."),
    "output": ("output o[H] = EXPR", "A result for each step."),
    "eigenvalues": ("eigenvalues S in [0, 1]", "A claim about the transition of a state, for the compiler to prove."),
    "sparse": ("sparse R by band 8", "What is kept of params that a product contracts."),
    "schedule": ("schedule chunk {32, 64}", "The chunk sizes to choose from, or the form."),
    "tile": ("tile V {32, 64}", "The tile sizes of a dim to choose from."),
    "checkpoint": ("checkpoint 128", "Keep the states every so many steps; the backward pass computes those between again."),
    "history": ("history x 3", "The last values of an input before the first step are arguments."),
    "before": ("before t, u: h = EXPR", "What a state is before the first place of an axis, or of both."),
    "every": ("every 128: S = EXPR", "At fixed boundaries, what is carried of a state is replaced."),
    "down": ("down 4: g = EXPR", "The new value of a state at every 4th step; in between it is held."),
    "feedback": ("feedback x = EXPR", "What an input is at steps where the caller does not give it."),
}
"""Words that begin a statement."""

MARK_HELP: Help = {
    "in": ("in [lo, hi]", "A promise: every value lies in this range."),
    "index": ("index V", "Whole numbers, positions of the dim V; as a value, `index[N]` is 0, 1, 2, ... along N."),
    "unit": ("unit[K]", "A promise: the 2-norm over these dims is 1."),
    "definite": ("definite", "A promise: a symmetric matrix whose eigenvalues are above 0."),
    "complex": ("complex", "A complex value: two real arrays, NAME_re and NAME_im."),
    "init": ("init EXPR", "The initial value of a param or buffer."),
    "per": ("per batch", "One value for each batch element."),
    "lag": ("lag 2", "How many steps back a state is read."),
    "by": ("by band 8 | blocks 16 | lower | graph g(..) | mask | magnitude", "What a sparse param keeps."),
    "over": ("by graph g(..) over D, E", "The layers of a graph: matrices are the blocks between two of them."),
    "keep": ("keep 10% | keep 2 of 4", "How much of a sparse param is kept."),
    "block": ("block 16", "Sparse params are kept in squares of so many rows and columns."),
}
"""Words that stand behind a declared name."""

_ELEMENTWISE = {
    "exp": "e to the power of x.", "expm1": "exp(x) - 1, exact near 0.", "log": "The natural logarithm.",
    "log1p": "log(1 + x), exact near 0.", "log2": "The logarithm to base 2.", "log10": "The logarithm to base 10.",
    "exp2": "2 to the power of x.", "sqrt": "The square root.", "rsqrt": "1 / sqrt(x).",
    "safe_sqrt": "The square root, whose derivative is at most c, 1000 unless said.", "abs": "The size of x.",
    "sign": "-1, 0 or 1, with derivative 0.", "cos": "The cosine.", "sin": "The sine.", "tan": "The tangent.",
    "atan": "The inverse tangent.", "tanh": "The hyperbolic tangent.", "sinh": "The hyperbolic sine.",
    "cosh": "The hyperbolic cosine.", "sigmoid": "1 / (1 + exp(-x)).", "logsigmoid": "log(sigmoid(x)).",
    "softplus": "log(1 + exp(x)).", "erf": "The error function.", "relu": "max(x, 0), with derivative 0 at 0.",
    "lgamma": "The logarithm of the gamma function, x > 0.", "digamma": "The derivative of lgamma, x > 0.",
    "silu": "x * sigmoid(x).", "gelu": "x times the normal distribution function, exact.", "mish": "x * tanh(softplus(x)).",
    "selu": "The scaled exponential linear unit.", "softsign": "x / (1 + |x|).", "relu6": "x cut to [0, 6].",
    "hardsigmoid": "x / 6 + 1/2 cut to [0, 1].", "hardswish": "x * hardsigmoid(x).",
    "floor": "The next whole number below, with derivative 0.", "ceil": "The next whole number above, with derivative 0.",
    "round": "The nearest whole number, even on a tie, with derivative 0.",
    "trunc": "x without its fraction, with derivative 0.",
}

FUNCTION_HELP: Help = {
    **{name: (f"{name}(x)", words) for name, words in _ELEMENTWISE.items()},
    "down": ("down[P](y)", "The values of y at the steps of a group, the oldest first, along P."),
    "up": ("up[P](u[t-1])", "Of a slow state with the dim P, the part of this step of its group."),
    "mod": ("mod(a, b)", "The rest of a / b, with the sign of b."),
    "clamp": ("clamp(x, lo, hi)", "x cut to [lo, hi]."),
    "hardtanh": ("hardtanh(x, lo, hi)", "x cut to [lo, hi], [-1, 1] unless said, with derivative 0 at the ends."),
    "elu": ("elu(x, alpha)", "x, or alpha * (exp(x) - 1) below 0."),
    "celu": ("celu(x, alpha)", "x, or alpha * (exp(x / alpha) - 1) below 0."),
    "leaky_relu": ("leaky_relu(x, slope)", "x, or slope * x below 0; the slope is 0.01 unless said."),
    "re": ("re(x)", "The real part."),
    "im": ("im(x)", "The imaginary part."),
    "conj": ("conj(x)", "The complex conjugate."),
    "logaddexp": ("logaddexp(a, b)", "log(exp(a) + exp(b))."),
    "max": ("max(a, b) or max[K](x)", "The larger value, or the largest over dims; gradients of a tie are shared."),
    "min": ("min(a, b) or min[K](x)", "The smaller value, or the smallest over dims; gradients of a tie are shared."),
    "where": ("where(c, a, b)", "a where c holds, else b; what is not chosen has no effect and no derivative."),
    "sum": ("sum[K](x)", "The sum over dims."),
    "mean": ("mean[K](x)", "The mean over dims."),
    "var": ("var[K](x)", "The mean square distance from the mean."),
    "std": ("std[K](x)", "The root of the variance, with derivative 0 at 0."),
    "cumsum": ("cumsum[K](x)", "The sum of the elements up to each one."),
    "flip": ("flip[K](x)", "The elements of a dim in the other order."),
    "prod": ("prod[K](x)", "The product over dims of fixed size."),
    "cumprod": ("cumprod[K](x)", "The product of the elements up to each one; K has a fixed size."),
    "shift": ("shift[K](x, by, fill)", "The element so many positions before each one; 0, or fill, where there is none."),
    "roll": ("roll[K](x, by)", "The element so many positions before each one, around a ring."),
    "position": ("position[V](x)", "A number as a position of V, an index: rounded down, and cut to those that there are."),
    "argmax": ("argmax[K](x)", "The position of the largest value, an index; it has no gradient."),
    "argmin": ("argmin[K](x)", "The position of the smallest value, an index; it has no gradient."),
    "sample": ("sample[K](logits)", "A position drawn with the probabilities softmax(logits); it has no gradient."),
    "softmax": ("softmax[K](x)", "exp(x) divided by its sum over dims."),
    "logsumexp": ("logsumexp[K](x)", "log of the sum of exp(x); -inf of nothing but -inf."),
    "layernorm": (
        "layernorm[D](x, gain, bias)", "Centred, divided by the root of variance + 1e-5; gain and bias may be left out."
    ),
    "rmsnorm": ("rmsnorm[D](x, gain)", "Divided by the root of mean square + 1e-5; gain may be left out."),
    "l2norm": ("l2norm[K](x)", "Divided by the root of the sum of squares + 1e-6."),
    "norm": ("norm[K](x)", "The 2-norm over dims, with derivative 0 at 0."),
    "stopgrad": ("stopgrad(x)", "The value, with derivative 0."),
    "grad": ("grad(E, x)", "The derivative of E by x, summed over the dims of E; it has the dims of x."),
    "gradclip": ("gradclip(x, c)", "The value; its gradient in a step is cut to [-c, c]."),
    "withgrad": ("withgrad(a > b, slope)", "1 or 0, with the derivative `slope` with respect to a - b."),
    "fold": ("fold[J](start, x -> EXPR)",
             "As many steps within a step as J has positions; `a, b = fold[J](a = A, b = B, a, b -> E, F)` gives both values."),
    "scan": ("scan[J](start, x -> EXPR)",
             "As many steps within a step as J has positions, and what x is after each of them; `a, b = scan[J](..)` of two."),
    "solve": ("solve(M, b)", "x with M @ x = b."),
    "inv": ("inv(M)", "The inverse of a square matrix."),
    "logdet": ("logdet(M)", "The logarithm of the determinant's size."),
    "expm": ("expm(A)", "The matrix exponential."),
    "zoh": ("zoh(A, dt) or zoh(A, B, dt)", "Zero-order hold: the transition of x' = A x, or the matching input weight."),
    "bilinear": ("bilinear(A, dt) or bilinear(A, B, dt)", "The bilinear rule: the transition, or the matching input weight."),
    "normal": ("normal[D]()", "A standard normal number, drawn in the step; `once` a sequence."),
    "uniform": ("uniform[D]()", "A number from [0, 1), drawn in the step; `once` a sequence."),
    "bernoulli": ("bernoulli[D](p)", "1 with probability p, else 0, drawn in the step; `once` a sequence."),
}
"""Functions, called as `f(x)` or `f[DIMS](x)`."""

ONCE_HELP: Help = {"once": ("normal[D](once)", "One draw for a whole sequence, and not one a step.")}
"""Words that stand where noise is drawn."""

CONSTANT_HELP: Help = {
    "pi": ("pi", "3.14159..."),
    "inf": ("inf", "Infinity."),
    "eye": ("eye[N]", "The square identity along N."),
}
"""Built-in values."""
