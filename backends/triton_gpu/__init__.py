"""The Triton backend: block graphs in, `@triton.jit` kernels for NVIDIA and AMD GPUs out. Nothing here is imported by the core.

A block on its way, as `emit` sends it:

    roles                       each dim: a program for each index, a tile in pieces, or a whole tile axis
    pairing, chains,            sums of products of two; products that do the work of two, or that forward saves
      shared_products, saved_products
    schedule                    which kernels there are, and which do whose work
      walks, forward_kernels,   the loop tree (`kernel`) of each: what it loads, computes and stores, by `bodies` and `arrays`;
      backward_kernels,         `gradients` of all blocks at once, shared out among kernels by `sharing` and `parting`
      gradients, pairs, outer, spans
      team, team_graph,         kernels in which several programs share out one head of a cell
      team_pieces
    uses, products, padding,    what is decided of a tree before it is printed
      segments, levels, order, positions, fetching
    print_kernel, print_items,  the text of a kernel: lines, values as expressions on tiles, where they lie, their names
      print_function, print_team, values, address, labels, names, texts
    device, device_*            the functions that kernels call, as tables of texts
    launcher, launch_team,      the Python around the kernels: sizes, launches, sums of what programs left in parts
      extents, gradient_sums, gradients_asked_for
    tuning/                     targets, tiles by the solver, models of kernels, what the toolchain said of them
    report/                     what a person is told of the choice
"""
