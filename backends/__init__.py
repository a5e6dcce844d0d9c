"""The backends: each takes a lowered program and gives the text of the kernels; none knows another."""
