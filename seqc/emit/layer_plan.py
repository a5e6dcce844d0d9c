"""What a layer around a recurrence is made of, as plain data: `driver.layers.layer_of` decides it, `emit.layer` prints it.

In: the signature of the recurrence's file, and what the spec declares of its inputs. Nothing here knows a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqc.emit.signature import Signature


@dataclass(frozen=True)
class Projected:
    """An input that the layer makes of its own input by a linear map. name, dims: as emitted; a dim is a Python expression.

    low, high: the range that the spec declares. unit: the axes, counted from the last, over which its 2-norm is 1. bias:
    what the map's bias begins with, from the first to the last element of its last dim.
    """

    name: str
    dims: tuple[str, ...]
    low: float = float("-inf")
    high: float = float("inf")
    unit: tuple[int, ...] = ()
    bias: tuple[float, float] = (0.0, 0.0)

    @property
    def mixes(self) -> bool:
        """Whether the short convolution takes it: it carries content, and is no gate with a declared range."""
        return self.low == float("-inf") and self.high == float("inf")


Slot = tuple[str, int]  # "ih" or "hh", and the number of the gate


@dataclass(frozen=True)
class Weights:
    """Where a module of `torch.nn` keeps what a cell's equations read, by the emitted names of params and inputs; `R@0@2` is
    position 2 along axis 0 of R, where one array has all gates.

    kind: LSTM, GRU or RNN; nonlinearity: "tanh" or "relu" of RNN. inputs: an input that the layer projects -> its gate.
    matrices: a param -> the slot of its weights. biases: a param -> the slots whose biases it holds, added; rest: a projected
    input -> the slots whose biases the projection's holds. hidden: the dim of `hidden_size`; single: dims that must have the
    size 1. both: the cell runs both ways.
    """

    kind: str
    nonlinearity: str
    gates: int
    inputs: Mapping[str, int]
    matrices: Mapping[str, Slot]
    biases: Mapping[str, tuple[Slot, ...]]
    rest: Mapping[str, tuple[Slot, ...]]
    hidden: str
    single: tuple[str, ...] = ()
    both: bool = False


@dataclass(frozen=True)
class LayerPlan:
    """A layer. direct: inputs that are the layer's own input, for the spec projects them itself. projected: the others, those
    without a range first. given: arguments of the recurrence that the caller of the layer passes: indices, params per batch,
    and inputs that were asked for. sizes: dims that a layer may be given, with the expression of the default. fixed: dims
    that follow, with their expression. second: the dim of a second axis, behind the steps of what the layer takes and gives.
    weights: how weights of torch.nn are taken, where the equations are the same.
    """

    sig: Signature
    direct: tuple[str, ...]
    projected: tuple[Projected, ...]
    given: tuple[str, ...]
    sizes: tuple[tuple[str, str], ...]
    fixed: tuple[tuple[str, str], ...] = ()
    second: tuple[str, ...] = ()
    weights: Weights | None = None
