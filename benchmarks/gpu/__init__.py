"""The same on a CUDA machine: `python -m benchmarks.gpu`. It needs torch and Triton, and the emitted files; not seqc."""
