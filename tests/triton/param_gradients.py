"""Gradients of parameters that meet only each other, in Triton's interpreter, against torch's own of a loop written by hand.

In: nothing. Out: a line for each recurrence whose gradient is wrong; none where all are right. It is a process of its own,
because the interpreter is chosen when Triton is first imported. The loops share nothing with the compiler: no graph, no
derivative.

A parameter has no batch and no time. What is made of parameters alone must count once in each step of each sequence, whether a
kernel adds it up or a product over batch and time does afterwards. Tolerance: fp32 roundoff times the roundings on the
longest path, 7 steps of sums of 16, is below 2e-5 of the largest element.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.triton import interpreter

HEAD = "spec meeting\ndim D, R\ninput x[D]\n"
SIZES = {"D": 6, "R": 3}
Loop = Callable[..., torch.Tensor]
STEPS, BATCH = 7, 3


def over(x: torch.Tensor, first: torch.Tensor, step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """All values of a state."""
    h, values = first, []
    for t in range(x.shape[1]):
        h = step(h, x[:, t])
        values.append(h)
    return torch.stack(values, 1)


def zeros(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x[:, 0])


# text after HEAD; parameters and their axes ("B": one for each sequence); the loop
CASES: dict[str, tuple[str, dict[str, str], Loop]] = {
    "a matrix times a vector": (
        "param W[D, D], U[D, D], b[D]\nstate h[D] = 0\nh = tanh(x + U @ h[t-1] + W @ b)\noutput o = h\n",
        {"W": "DD", "U": "DD", "b": "D"},
        lambda x, W, U, b: over(x, zeros(x), lambda h, y: torch.tanh(y + h @ U.T + W @ b)),
    ),
    "the same vector twice, and a sign": (
        "param W[D, D], U[D, D], b[D]\nstate h[D] = 0\nh = tanh(x + U @ h[t-1] - W @ (b * b) - 0.5 * (W @ b))\noutput o = h\n",
        {"W": "DD", "U": "DD", "b": "D"},
        lambda x, W, U, b: over(x, zeros(x), lambda h, y: torch.tanh(y + h @ U.T - W @ (b * b) - 0.5 * (W @ b))),
    ),
    "a matrix with a mask, and one below another": (
        "param W[D, D], M[D, D], P[D, R], Q[R, D]\nstate h[D] = 0\n"
        "h = tanh(x + (W * sigmoid(M)) @ h[t-1] + P @ (Q @ h[t-1]))\noutput o = h\n",
        {"W": "DD", "M": "DD", "P": "DR", "Q": "RD"},
        lambda x, W, M, P, Q: over(x, zeros(x), lambda h, y: torch.tanh(y + h @ (W * torch.sigmoid(M)).T + h @ Q.T @ P.T)),
    ),
    "a matrix made of two": (
        "param P[D, R], Q[R, D]\nstate h[D] = 0\n"
        "h = tanh(x + sum[D'](sum[R](P * Q[D -> D']) * h[t-1, D -> D']))\noutput o = h\n",
        {"P": "DR", "Q": "RD"},
        lambda x, P, Q: over(x, zeros(x), lambda h, y: torch.tanh(y + h @ (P @ Q).T)),
    ),
    "functions of parameters alone": (
        "param a[D], s[D], c[D], unused[D]\nstate h[D] = 0\n"
        "h = exp(-exp(a) * softplus(s)) * h[t-1] + exp(a) * c * x + s * c\noutput o = h + 0 * sum[D](unused) \n",
        {"a": "D", "s": "D", "c": "D", "unused": "D"},
        lambda x, a, s, c, unused: over(
            x, zeros(x),
            lambda h, y: torch.exp(-torch.exp(a) * torch.nn.functional.softplus(s)) * h + torch.exp(a) * c * y + s * c,
        ),
    ),
    "beside a matrix, and stopped": (
        "param U[D, D], a[D], c[D], d[D]\nstate h[D] = 0\n"
        "h = tanh(exp(a) * (U @ h[t-1]) + (a * c) * x + stopgrad(d) * c)\noutput o = h * d\n",
        {"U": "DD", "a": "D", "c": "D", "d": "D"},
        lambda x, U, a, c, d: d * over(
            x, zeros(x), lambda h, y: torch.tanh(torch.exp(a) * (h @ U.T) + a * c * y + d.detach() * c)
        ),
    ),
    "the state before the first step": (
        "param U[D, D], W[D, D], b[D], c[D]\nstate h[D] = tanh(exp(c) * b)\nh = tanh(x + U @ h[t-1] + W @ b)\noutput o = h\n",
        {"U": "DD", "W": "DD", "b": "D", "c": "D"},
        lambda x, U, W, b, c: over(
            x, torch.tanh(torch.exp(c) * b).expand(BATCH, -1), lambda h, y: torch.tanh(y + h @ U.T + W @ b)
        ),
    ),
    "one for each sequence": (
        "param U[D, D], W[D, D], b[D] per batch, c[D]\n"
        "state h[D] = 0\nh = tanh(x + U @ h[t-1] + W @ (b * c) + b)\noutput o = h\n",
        {"U": "DD", "W": "DD", "b": "BD", "c": "D"},
        lambda x, U, W, b, c: over(x, zeros(x), lambda h, y: torch.tanh(y + h @ U.T + (b * c) @ W.T + b)),
    ),
    "what no state reads": (
        "param W[D, D], b[D], a[D]\nstate h[D] = 0\nh = sigmoid(a) * h[t-1] + x\noutput o = h + W @ b + exp(a) * b\n",
        {"W": "DD", "b": "D", "a": "D"},
        lambda x, W, b, a: over(x, zeros(x), lambda h, y: torch.sigmoid(a) * h + y) + W @ b + torch.exp(a) * b,
    ),
    "a block's decay and its gain": (
        "param a[R], c[R], u[D], v[D]\nstate S[R, D] = 0\nS = exp(-exp(a)) * S[t-1] + (c * exp(a)) * x\n"
        "output o[D] = sum[R](c * S) + u * v\n",
        {"a": "R", "c": "R", "u": "D", "v": "D"},
        lambda x, a, c, u, v: (
            over(
                x, torch.zeros(BATCH, SIZES["R"], SIZES["D"], dtype=x.dtype),
                lambda S, y: torch.exp(-torch.exp(a))[:, None] * S + (c * torch.exp(a))[:, None] * y[:, None],
            ) * c[:, None]
        ).sum(2) + u * v,
    ),
}  # fmt: skip


def wrong(name: str, form: str | None) -> str:
    """What is wrong with the gradients of a case; nothing where all are right."""
    import seqc
    from seqc.diagnostics import Unsupported

    text, params, loop = CASES[name]
    generator = torch.Generator().manual_seed(0)
    sizes = {**SIZES, "B": BATCH}

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    given = [drawn(BATCH, STEPS, SIZES["D"]), *(0.5 * drawn(*(sizes[d] for d in axes)) for axes in params.values())]
    try:
        call = seqc.compile(HEAD.replace(", R", ", R" if "R" in text else "") + text, backend="triton", form=form)
    except Unsupported:
        assert form is not None, f"{name}: the compiler's own choice is refused"
        return ""
    call.module._form = lambda *_: call.module._TRITON
    results = []
    for run, dtype in ((loop, torch.float64), (lambda *args: call(*args)[0], torch.float32)):
        args = [x.to(dtype).requires_grad_() for x in given]
        o = run(*args)
        weights = torch.linspace(-1, 2, o.numel(), dtype=torch.float64).reshape(o.shape).to(dtype)
        found = torch.autograd.grad((o * weights).sum(), args, allow_unused=True)
        results.append([torch.zeros_like(x) if d is None else d for x, d in zip(args, found, strict=True)])
    said = []
    for arg, want, got in zip(("x", *params), *results, strict=True):
        error, scale = float((got - want).abs().max()), max(float(want.abs().max()), 1.0)
        said += [f"{name} ({form}): gradient of {arg}: {error:.2g} beside {scale:.2g}"] if not error <= 2e-5 * scale else []
    return "\n".join(said)


if __name__ == "__main__":
    interpreter.choose()
    for case, (spec, _, _) in CASES.items():
        for form in (None,) if "tanh(x" in spec else (None, "step"):  # a nonlinear step has one form
            if found := wrong(case, form):
                print(found, flush=True)
