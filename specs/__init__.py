"""The specs that ship with seqc, as package data: one `.seq` file a system."""
