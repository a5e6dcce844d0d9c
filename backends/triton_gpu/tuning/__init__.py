"""Tiles of Triton kernels: targets, models of kernels, verdicts of the toolchain, the choice."""
