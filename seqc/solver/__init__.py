"""Choices among finite domains: `problem` and `expression` state one, `solve` answers it with z3 (its one owner), `enumerate`
answers it again by trying everything."""
