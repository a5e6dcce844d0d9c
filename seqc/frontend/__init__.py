"""From the text of a spec to a program: parsing, names, dims, lags, statements, and every message about them."""
