"""The plain torch backend: a block as ordinary torch operators, for every device and dtype; the others rely on it."""
