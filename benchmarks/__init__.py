"""Times of compiled recurrences beside what else there is: `python -m benchmarks`; on a CUDA machine `benchmarks.gpu`."""
