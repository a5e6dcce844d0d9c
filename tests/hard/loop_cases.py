"""Specs with a closed loop, for `test_closed_loops` and for the process that runs Triton's interpreter."""

from __future__ import annotations

AR = '''spec ar_net
"""An autoregressive process: y_t = c + sum_l a_l x_{t-l}, where x is y once no data is given."""
dim L = 3
input x
param a[L], c
y = c + sum[L](a * x[t - 1 - index[L]])
output y
feedback x = y
'''
SHALLOW = '''spec shallow_plrnn
"""A shallow piecewise-linear network, z_t = A z + W1 relu(W2 z + h2) + h1, forced through its first units."""
dim N, H, Z
input obs[N]
param A[Z], W1[Z, H], W2[H, Z], h1[Z], h2[H], Bo[N, Z]
const first[Z, N] = where(index[Z] == index[N], 1, 0)
state z[Z] = 0
forced = where(index[Z] < N, sum[N](first * obs), z[t-1])
z = A * forced + W1 @ relu(W2 @ forced + h2) + h1
output x[N] = Bo @ z
feedback obs = sum[Z](first * z[t-1])
'''
CELL = '''spec fed_cell
"""Elman's network with a drive from outside and noise, which takes its own output."""
dim D, M
input x[M], u
param W[D, M], R[D, D], C[M, D]
state h[D] = 0
h = tanh(R @ h[t-1] + W @ x + u + 0.1 * normal[D]())
y = C @ h
output y
feedback x = y[t-1]
'''
PLRNN = '''spec mixed_plrnn
"""A piecewise-linear network that is forced by a weighted mean of data and its own state."""
dim Z
input x[Z], alpha in [0, 1]
param A[Z], W[Z, Z], h[Z]
state z[Z] = 0
used = alpha * x + (1 - alpha) * z[t-1]
z = A * used + W @ relu(used) + h
output z
feedback x = z[t-1]
'''
TOKENS = '''spec tokens
"""A language model of one cell whose tokens are one-hot; the next is the likeliest, or drawn by the maximum of Gumbel noise."""
dim V, D
input w[V], greedy
param E[D, V], R[D, D], C[V, D], b[V]
state h[D] = 0
h = tanh(R @ h[t-1] + E @ w)
score = C @ h + b - where(greedy > 0, 0, log(-log(uniform[V]())))
output chosen[V] = where(score == max[V](score), 1, 0)
feedback w = chosen[t-1]
'''
WORDS = '''spec words
"""A language model of one cell over words: it keeps a note for each word, and reads the one of the word that it chose last."""
dim V, D
input w index V
param E[V, D], R[D, D], C[V, D], b[V]
state h[D] = 0, notes[V, D] = 0
h = tanh(E[w] + R @ h[t-1] + 0.5 * notes[t-1, w] + 0.1 * E[argmin[V](notes[t-1, D = 0])])
score = C @ h + b
chosen = argmax[V](score)
notes[chosen] = h
output chosen, score
feedback w = chosen[t-1]
'''
DRAWN = '''spec drawn_words
"""A language model of one cell whose next word is drawn."""
dim V, D
input w index V
param E[V, D], R[D, D], C[V, D], b[V]
state h[D] = 0
h = tanh(E[w] + R @ h[t-1])
word = sample[V](C @ h + b)
output word
feedback w = word[t-1]
'''
