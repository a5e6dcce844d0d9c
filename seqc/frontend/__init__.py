"""From the text of a spec to a program: parsing, names, dims, lags, statements, and every message about them.

    sources, logical_lines, parse, read_line, syntax, syntax_errors     text -> syntax tree
    elaborate                   syntax tree -> program: declarations (`scope`, `declared`, `fills`), then the step graph
    expressions, names,         expressions (`trees`) -> values (`values`): names now and at other steps, functions, brackets
      functions, activations, operators, lags, positions, indexing, ahead, windows, delay_lines, choices, put_rows, written_out,
      complex_pairs, square_matrices, inner_gradients, noise
    statements, boundaries,     what a spec says besides definitions
      rates, planes, closed_loops, sparsity, graphs
    lint, lint_params           warnings
    idioms, idioms_functions    how a spec says what people bring from elsewhere
    format                      the formatter
"""
