"""Facts about graphs: normal forms, affine forms, ranges, norms, derivatives, costs. Nothing here changes a program."""
