"""The native CPU backend: a block as C++17 loops over raw pointers, built by the system compiler on first use."""
