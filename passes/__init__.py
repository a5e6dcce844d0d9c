"""The passes, one a file. `PIPELINE` lists those that a program goes through, in order; see docs/architecture.md."""
