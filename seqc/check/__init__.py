"""Emitted files against the oracle: cases drawn, results compared, finite differences taken."""
