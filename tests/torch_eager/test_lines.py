"""Long statements, broken over lines, mean what they meant on one."""

import ast
from random import Random

from seqc.backends.torch_eager.lines import laid


def expression(rng: Random, depth: int) -> str:
    """A random expression of long names, printed as the backend prints: sums and products without needless brackets."""
    if not depth:
        return rng.choice(("decay_of_the_memory", "rate", "0.25", "keys_of_heads[:, 0]", "x.sum(-1)"))
    parts = [expression(rng, depth - 1) for _ in range(rng.randint(2, 4))]
    kind = rng.randrange(4)
    if kind == 0:
        return f"torch.where({', '.join(parts)})"
    if kind == 1:
        return parts[0] + "".join(rng.choice((" + ", " - ")) + p for p in parts[1:])
    signs = (" * ", " / ", " @ ")
    return f"({parts[0]})" + "".join(f"{rng.choice(signs)}({p})" for p in parts[1:])


def test_a_broken_statement_means_what_it_meant() -> None:
    broken = 0
    for seed in range(120):
        line = ("h = ", "return ", "h, c = ")[seed % 3] + expression(Random(seed), 1 + seed % 4)
        text = "\n".join(["def f():", *laid(line, 4)])
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(f"def f():\n    {line}")), text
        broken += text.count("\n") > 1
    assert broken > 50
