"""The old name of `seqc.reference`; goes away when nothing imports it."""

from seqc.reference import arrays_of_input, gradients, initial_states, run, sizes_of

__all__ = ["arrays_of_input", "gradients", "initial_states", "run", "sizes_of"]
