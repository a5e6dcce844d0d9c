"""The commands of `seqc`, one module each; `seqc.cli.main` lists them and imports the one that is called."""
