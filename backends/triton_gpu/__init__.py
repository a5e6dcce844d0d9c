"""The Triton backend: block graphs in, `@triton.jit` kernels for NVIDIA and AMD GPUs out.

Nothing here is imported by the core. `device` holds the tile primitives that emitted kernels call, `toolchain`
compiles emitted kernels without a GPU and reads their resource figures.
"""
