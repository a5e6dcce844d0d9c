"""The commands of `seqc`, one module each; `seqc.cli` lists them and imports the one that is called."""
