"""From the step to a block of many steps: the forms that a recurrence can take, and the choice among them.

`form` lowers a program to a block, with `chunkwise` for states that are only read through contractions and `decay` for
the numerical plan of their transitions; `choose` prices what can be lowered.
"""
