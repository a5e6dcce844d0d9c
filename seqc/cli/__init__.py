"""The command `seqc`: `main` reads the command line; each command is a module of `commands`."""

from seqc.cli.main import main

__all__ = ["main"]
