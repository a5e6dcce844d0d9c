"""The intermediate representation: named-dim graphs, programs, blocks, their text and their verifier."""
