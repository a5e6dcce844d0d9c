"""Simplification: algebraic laws, and the pass that applies them until nothing changes."""
