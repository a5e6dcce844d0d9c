"""Worked examples; run them from the root of the repository: `python -m examples.demo`."""

from time import perf_counter

STARTED = perf_counter()
"""When this process began with the examples: heavy imports count too."""
