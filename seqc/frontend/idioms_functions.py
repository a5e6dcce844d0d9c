"""Functions of other languages and tools, and how a spec says what they do.

In: nothing. Out: `ELSEWHERE`, name -> what to write. A function that the language has is never listed
(`tests/frontend/test_idioms.py`).
"""

from __future__ import annotations

_ORDER = "`argmax[N](x)` picks the largest, `softmax[N](x)` weighs all; a rank is `sum[N'](x[N -> N'] > x)`, 0 for the largest"
_DENSE = "`solve(M, b)`, `inv(M)` and `logdet(M)` are there; what else decomposes a matrix is passed as a value"
_NAMED = "dims have names: `sum[K](a * b)` contracts, `a * b` spreads, `W @ x` is a matrix product"
_SHAPES = "dims have names, and values spread by name: nothing is reshaped or copied"
_PARTS = "declare the parts as values of their own, or as a dim: `input x[G, D]`, read `x[G = 0]`"
_GROUPS = "the groups are a dim: `input x[G, C]`, and `layernorm[C](x)`"
_FILLED = "numbers spread to the dims that are declared: `state S[H, K] = 0`, `output o[D] = 1`"
_MASK = "write `bernoulli[D](keep) / keep * x`, or `bernoulli[D](keep, once)` for one mask a sequence"
_NOISE = "write `normal[D]()` or `uniform[D]()`, drawn anew in every step"
_TURNED = "a transpose is a renaming: `S[K -> K', K' -> K]`"
_CELLS = "a cell is written out, gate by gate: see `specs/lstm.seq` and `specs/gru.seq`"

ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("sort", "argsort", "topk", "median", "rank", "quantile"), _ORDER),
    **dict.fromkeys(("log_softmax", "logsoftmax"), "write `x - logsumexp[K](x)`"), "softmin": "write `softmax[K](-x)`",
    **dict.fromkeys(("reverse", "rev"), "along a dim, `flip[K](x)`; over time, `scan backward`"),
    **dict.fromkeys(("logcumsumexp", "cumlogsumexp"), "over time, a state: `z = logaddexp(z[t-1], x)`; along a dim of fixed "
                    "size, `scan[K](-inf, z -> logaddexp(z, x))`"),
    "count": "write `sum[K](1 * (x > 0))`", "lerp": "write `a + w * (b - a)`", "hypot": "write `sqrt(a^2 + b^2)`",
    "logit": "write `log(x / (1 - x))`", "erfc": "write `1 - erf(x)`", "sech": "write `1 / cosh(x)`", "cube": "write `x^3`",
    "cbrt": "write `sign(x) * abs(x)^(1 / 3)`", "asinh": "write `log(x + sqrt(x^2 + 1))`",
    "cross": "with a dim N of 3 places: `roll[N](a, -1) * roll[N](b, -2) - roll[N](a, -2) * roll[N](b, -1)`",
    "frac": "write `x - floor(x)`",
    "sinc": "write `where(x == 0, 1, sin(x) / x)`",
    **dict.fromkeys(("pad", "pool", "maxpool"), "along a dim, `shift[N](x, 1)` has what lies beside; over time, `x[t-1]`"),
    **dict.fromkeys(("det", "slogdet", "eig", "svd", "qr", "cholesky", "pinv", "linsolve", "lstsq"), _DENSE),
    **dict.fromkeys(("einsum", "matmul", "dot", "outer", "mm", "bmm", "inner", "tensordot", "kron", "vecdot", "mv"), _NAMED),
    **dict.fromkeys(("linear", "dense"), "write `W @ x + b`, with `param W[M, D], b[M]`"),
    **dict.fromkeys(("reshape", "view", "unsqueeze", "squeeze", "expand", "broadcast", "tile", "repeat", "flatten", "rearrange",
                     "expand_dims", "repeat_interleave"), _SHAPES),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "split", "chunk", "slice", "glu"), _PARTS),
    **dict.fromkeys(("transpose", "permute", "swapaxes", "trans"), _TURNED),
    **dict.fromkeys(("zeros", "ones", "full", "zeros_like", "ones_like", "empty", "array", "tensor"), _FILLED),
    **dict.fromkeys(("groupnorm", "group_norm"), _GROUPS),
    **dict.fromkeys(("batchnorm", "batch_norm"), "a step sees one sample: pass mean and variance as params or inputs"),
    "instancenorm": "write `layernorm[D](x)` over the dims that are meant",
    "layer_norm": "write `layernorm[D](x, gain, bias)`", "rms_norm": "write `rmsnorm[D](x, gain)`",
    "normalize": "write `l2norm[K](x)`",
    **dict.fromkeys(("conv", "conv1d", "causal_conv1d"), "over time, a sum of taps: `sum[L](w * x[t - index[L]])`"),
    **dict.fromkeys(("cummax", "associative_scan"), "over time, a state: `m = max(m[t-1], x)`; along a dim of fixed size, "
                    "`scan[K](-inf, m -> max(m, x))`"),
    "ema": "over time, a state: `m = m[t-1] + a * (x - m[t-1])`",
    **dict.fromkeys(("searchsorted", "digitize", "bucketize"), "of bins of one width `position[V]((x - lo) / width)`; else "
                    "count the edges below, `sum[V](1 * (edges < x))`"),
    **dict.fromkeys(("tril", "triu", "diag", "trace", "diagonal"), "compare positions: `where(index[N] >= index[N'], M, 0)`, "
                    "`sum[N'](where(index[N] == index[N'], M, 0))`"),
    **dict.fromkeys(("arange", "linspace", "iota", "range", "enumerate"), "positions are `index[N]`: 0, 1, 2, ..."),
    **dict.fromkeys(("eye_like", "eye", "identity"), "write `eye[N]`"),
    **dict.fromkeys(("one_hot", "onehot", "gather", "scatter", "embedding", "take", "index_select"),
                    "with an input `w index N`, or a choice `w = argmax[N](x)`, `E[w]` reads a row, `M[w] = x` writes one"),
    "feedback": "what an input is where a caller gives none is a line of its own: `feedback x = y[t-1]`",
    **dict.fromkeys(("randn", "rand", "randint", "normal_", "gaussian"), _NOISE), "dropout": _MASK,
    **dict.fromkeys(("lstm", "gru", "rnn", "lstmcell", "grucell", "rnncell"), _CELLS),
    **dict.fromkeys(("heaviside", "step", "threshold", "indicator"), "write `where(x > 0, 1, 0)`"),
    **dict.fromkeys(("gradient", "autograd", "vjp", "backward", "jacobian", "jacrev", "derivative"),
                    "write `grad(E, W[t-1])`; a row of a Jacobian is `grad(f[N = 0], x)`"),
    **dict.fromkeys(("detach", "stop_gradient", "sg", "no_grad"), "write `stopgrad(x)`"),
    **dict.fromkeys(("clip", "clamp_", "clip_by_value"), "write `clamp(x, lo, hi)`"),
    **dict.fromkeys(("pow", "power"), "write `x^y`"), **dict.fromkeys(("square", "sq"), "write `x^2`"),
    **dict.fromkeys(("ln", "loge"), "write `log(x)`"), "reciprocal": "write `1 / x`",
    **dict.fromkeys(("fmod", "remainder", "rem"), "write `mod(a, b)`, which has the sign of b"),
    **dict.fromkeys(("swish", "silu_"), "write `silu(x)`"), "logistic": "write `sigmoid(x)`",
    **dict.fromkeys(("hard_tanh", "htanh"), "write `hardtanh(x)`"), "hard_sigmoid": "write `hardsigmoid(x)`",
    **dict.fromkeys(("σ", "sigma", "sigm"), "write `sigmoid(x)`"), "prelu": "write `leaky_relu(x, slope)`",
    **dict.fromkeys(("Σ", "reduce_sum", "nansum"), "write `sum[K](x)`"),
    **dict.fromkeys(("maximum", "fmax", "amax", "reduce_max"), "write `max(a, b)`, or `max[K](x)` over a dim"),
    **dict.fromkeys(("minimum", "fmin", "amin"), "write `min(a, b)`, or `min[K](x)` over a dim"),
    **dict.fromkeys(("average", "reduce_mean"), "write `mean[K](x)`"), "variance": "write `var[K](x)`",
    **dict.fromkeys(("absolute", "fabs", "magnitude"), "write `abs(x)`"), "sgn": "write `sign(x)`",
    **dict.fromkeys(("real",), "write `re(x)`"), "imag": "write `im(x)`", "conjugate": "write `conj(x)`",
    "angle": "write `atan(im(x) / re(x))` where re(x) > 0", "atan2": "write `atan(y / x)` where x > 0",
    **dict.fromkeys(("gammaln", "loggamma"), "write `lgamma(x)`"), "psi": "write `digamma(x)`",
    "asin": "write `2 * atan(x / (1 + sqrt((1 - x) * (1 + x))))`",
    "acos": "write `pi / 2 - 2 * atan(x / (1 + sqrt((1 - x) * (1 + x))))`",
    **dict.fromkeys(("arctan",), "write `atan(x)`"), "sec": "write `1 / cos(x)`",
    **dict.fromkeys(("logical_and", "all"), "write `a and b`; over a dim, `min[K](c)`"),
    **dict.fromkeys(("logical_or", "any"), "write `a or b`; over a dim, `max[K](c)`"), "logical_not": "write `not c`",
    **dict.fromkeys(("if", "ifelse", "select", "cond", "iif", "piecewise"), "write `where(c, a, b)`"),
    **dict.fromkeys(("product", "Π"), "over a dim of fixed size, `prod[N](x)`"),
    **dict.fromkeys(("lambda", "def"), "a definition is a line `NAME = ...`, without arguments"),
    **dict.fromkeys(("diff", "delta"), "over time, `x - x[t-1]`"),
    **dict.fromkeys(("len", "size", "shape"), "the size of a dim is its bare name: `K`"),
    **dict.fromkeys(("multinomial", "categorical", "gumbel_softmax"), "write `sample[V](logits)`"),
    "int": "write `trunc(x)`", "float": "leave it out: values have no type",
}
