"""What the compiler decided for a spec, in words: as data, as text, as a page; and what kernels cost on a GPU."""
