"""The code of docs/layers.md runs."""

import re
from pathlib import Path

import torch
from torch.nn.utils.rnn import pack_sequence

from seqc import nn

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"


def test_the_code_of_the_page_runs() -> None:
    text = PAGE.read_text("utf-8").replace('nn.layer("gla", ', 'nn.layer("gla", backend="torch", ')
    text = text.replace('nn.module("lstm")', 'nn.module("lstm", backend="torch")').replace("range(100)", "range(2)")
    x, own = torch.randn(2, 5, 64), {"torch": torch, "nn": nn}
    own |= {"x": x, "mask": torch.ones(2, 5, dtype=torch.bool), "packed": pack_sequence(list(x)), "x1": x[:, 0], "prompt": x}
    own |= {"jagged": torch.nested.nested_tensor(list(x), layout=torch.jagged)}
    own |= {"row": x.flatten(0, 1)[None], "bounds": torch.tensor([0, 4, 10])}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, own)
    assert torch.cat(own["parts"], 1).shape == (2, 100, 8)
    assert type(own["stack"]).__name__ == "LSTMStack"
