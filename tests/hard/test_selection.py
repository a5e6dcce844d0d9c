"""Selection is selection: what `where`, a maximum, a mask or a reset drops has no effect, whatever it holds.

Values and gradients on plain torch, native code and Triton's interpreter, in every form that the spec can take.
"""
