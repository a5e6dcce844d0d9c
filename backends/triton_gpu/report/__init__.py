"""What is told of Triton kernels: figures of each for each target."""
