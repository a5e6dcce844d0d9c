"""Recurrences with matrices that are solved, inverted or exponentiated: see `by_hand`."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.hard.by_hand import Given, by_hand, definite, stacked


@by_hand("""spec kalman_filter
dim N, M = 2
input y[M]
param F[N, N], Z[M, N], Q[N, N], R[M, M]
state a[N] = 0, P[N, N'] = eye[N]
spread = F @ P[t-1] @ F[N -> N', N' -> N] + Q
seen = spread @ Z
S = Z @ seen[M -> M'] + R
wrong = y - Z @ (F @ a[t-1])
a = F @ a[t-1] + seen @ solve(S, wrong)
P = spread - seen @ solve(S, Z @ spread)
output o[N] = a, score = -0.5 * sum[M](wrong * solve(S, wrong))
""", {"Q": definite, "R": definite, "P_0": definite}, N=3)
def _(g: Given) -> Given:
    F, Z = g["F"], g["Z"]
    a, P, rows = g["a_0"], g["P_0"], []
    for y in g["y"].unbind(1):
        spread = F @ P @ F.T + g["Q"]
        inverse = torch.linalg.inv(Z @ spread @ Z.T + g["R"])
        gain, wrong = spread @ Z.T @ inverse, y - a @ F.T @ Z.T
        a = a @ F.T + torch.einsum("bnm,bm->bn", gain, wrong)
        P = spread - gain @ Z @ spread
        rows.append((a, -0.5 * torch.einsum("bi,bij,bj->b", wrong, inverse, wrong)))
    o, score = stacked(rows)
    return {"o": o, "score": score, "a_T": a, "P_T": P}


@by_hand("""spec recursive_least_squares
dim K = 3, V, H
input q[H, K], k[H, K], v[H, V], g[H] in [-1, 0]
param ridge in [0.5, 1]
state A[H, K, K'] = 0, G[H, K, V] = 0
A = exp(g) * A[t-1] + k * k[K -> K']
G = exp(g) * G[t-1] + k * v
output o[H, V] = sum[K](solve(A + ridge * eye[K], q) * G)
""", {"A_0": definite}, V=2, H=2)
def _(g: Given) -> Given:
    """MesaNet's memory (arXiv:2506.05233), solved exactly."""
    A, G, rows = g["A_0"], g["G_0"], []
    for q, k, v, decay in zip(*(g[x].unbind(1) for x in ("q", "k", "v", "g")), strict=True):
        A = decay.exp()[..., None, None] * A + k[..., :, None] * k[..., None, :]
        G = decay.exp()[..., None, None] * G + k[..., :, None] * v[..., None, :]
        read = torch.linalg.solve(A + g["ridge"] * torch.eye(3, dtype=A.dtype), q)
        rows.append((torch.einsum("bhk,bhkv->bhv", read, G),))
    return {"o": stacked(rows)[0], "A_T": A, "G_T": G}


def _discretised(kind: str, A: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    n, eye = A.shape[0], torch.eye(A.shape[0], dtype=A.dtype)
    if kind == "zoh":
        wide = torch.cat([torch.cat([A, B], 1), torch.zeros(B.shape[1], n + B.shape[1], dtype=A.dtype)], 0)
        found = torch.matrix_exp(dt * wide)
        return found[:n, :n], found[:n, n:]
    below = torch.linalg.inv(eye - dt / (2 if kind == "bilinear" else 1) * A)
    return below @ (eye + dt / 2 * A) if kind == "bilinear" else below, below @ B * dt


def _system(kind: str, transition: str, weight: str) -> None:
    @by_hand(f"""spec system_by_{kind}
dim N, M, K
input u[M]
param A[N, N], W[N, M], C[K, N], dt in [0.2, 0.4]
state x[N] = 0
x = {transition} @ x[t-1] + {weight} @ u
output y[K] = C @ x[t-1]
""", N=4, M=2, K=3)
    def _(g: Given) -> Given:
        Ad, Bd = _discretised(kind, g["A"], g["W"], g["dt"])
        x, rows = g["x_0"], []
        for u in g["u"].unbind(1):
            rows.append((x @ g["C"].T,))
            x = x @ Ad.T + u @ Bd.T
        return {"y": stacked(rows)[0], "x_T": x}


_system("zoh", "zoh(A, dt)", "zoh(A, W, dt)")
_system("bilinear", "bilinear(A, dt)", "bilinear(A, W, dt)")
_system("euler_backward", "inv(eye[N] - dt * A)", "inv(eye[N] - dt * A) @ (dt * W)")


@by_hand("""spec double_integrator
dim N = 2
input u
const A[N, N'] = where(index[N] + 1 == index[N'], 1, 0), W[N] = index[N]
param dt in [0.2, 0.4]
state x[N] = 0
x = zoh(A, dt) @ x[t-1] + zoh(A, W, dt) * u
output y = x[N = 0]
""")
def _(g: Given) -> Given:
    """A singular matrix: position and speed."""
    dt, (place, speed), rows = g["dt"], g["x_0"].unbind(-1), []
    for u in g["u"].unbind(1):
        place, speed = place + dt * speed + dt**2 / 2 * u, speed + dt * u
        rows.append((place,))
    return {"y": stacked(rows)[0], "x_T": torch.stack((place, speed), -1)}


@by_hand("""spec implicit_step
dim N = 3, H
input u[H, N], dt[H] in [0.1, 0.3]
param A[H, N, N]
state x[H, N] = 0
x = solve(eye[N] - dt * A, x[t-1] + dt * u)
output x
""", H=2)
def _(g: Given) -> Given:
    x, rows = g["x_0"], []
    for u, dt in zip(g["u"].unbind(1), g["dt"].unbind(1), strict=True):
        x = torch.linalg.solve(torch.eye(3, dtype=x.dtype) - dt[..., None, None] * g["A"], x + dt[..., None] * u)
        rows.append((x,))
    return {"x": stacked(rows)[0]}


@by_hand("""spec zero_on_the_diagonal
dim N = 3
input m[N, N'], b[N]
state x[N] = 0
x = tanh(x[t-1] + solve(where(index[N] == index[N'], 0, m + 3), b))
output x
""")
def _(g: Given) -> Given:
    """A system whose equations must be taken in another order than they are written."""
    x, rows = g["x_0"], []
    for m, b in zip(g["m"].unbind(1), g["b"].unbind(1), strict=True):
        x = torch.tanh(x + torch.linalg.solve((m + 3) * (1 - torch.eye(3, dtype=x.dtype)), b))
        rows.append((x,))
    return {"x": stacked(rows)[0]}


@by_hand("""spec rotations
dim N
input u[N], w[N, N']
state x[N] = 0
x = expm(w - w[N -> N', N' -> N]) @ x[t-1] + u
output x
""", N=3)
def _(g: Given) -> Given:
    """The axis and the angle of a turn are inputs."""
    x, rows = g["x_0"], []
    for u, w in zip(g["u"].unbind(1), g["w"].unbind(1), strict=True):
        x = torch.einsum("bij,bj->bi", torch.matrix_exp((w - w.mT).contiguous()), x) + u
        rows.append((x,))
    return {"x": stacked(rows)[0]}


@by_hand("""spec extended_kalman_filter
dim N = 3, M = 2
input y[M], u[N]
param W[N, N], Z[M, N], q[N] in [0.1, 1], r[M] in [0.1, 1]
state a[N] = 0, P[N, N'] = eye[N]
ahead = tanh(W @ a[t-1] + u)
J = (1 - ahead^2) * W
spread = J @ P[t-1] @ J[N -> N', N' -> N] + q * eye[N]
S = Z @ (spread @ Z)[M -> M'] + r * eye[M]
K = spread @ Z @ inv(S)
a = ahead + K @ (y - Z @ ahead)
P = (eye[N] - K @ Z[N -> N']) @ spread
output o[N] = a
""", {"P_0": definite})
def _(g: Given) -> Given:
    """An inverse for each sequence, of which there are as many here as there are equations."""
    a, P, rows = g["a_0"], g["P_0"], []
    W, Z, eye = g["W"], g["Z"], torch.eye(3, dtype=torch.float64)
    for y, u in zip(g["y"].unbind(1), g["u"].unbind(1), strict=True):
        ahead = torch.tanh(a @ W.T + u)
        J = (1 - ahead**2)[:, :, None] * W
        spread = J @ P @ J.mT + torch.diag(g["q"])
        K = spread @ Z.T @ torch.linalg.inv(Z @ spread @ Z.T + torch.diag(g["r"]))
        a = ahead + torch.einsum("bnm,bm->bn", K, y - ahead @ Z.T)
        P = (eye - K @ Z) @ spread
        rows.append((a,))
    return {"o": stacked(rows)[0], "P_T": P}
