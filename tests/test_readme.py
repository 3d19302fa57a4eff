"""The README's Python runs as it stands."""

import re
from pathlib import Path

import torch
from torch import nn

TEXT = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_every_block_runs() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.rand(10, 1, 8, 8), torch.arange(10)
    names: dict[str, object] = {"network": network, "x": x, "y": y, "__name__": "readme"}
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec", dont_inherit=True), names)
    adversarial = names["adversarial"]
    assert isinstance(adversarial, torch.Tensor)
    assert adversarial.shape == x.shape


def test_the_two_commands_are_there() -> None:
    assert "pip install . && robust run" in TEXT
    assert 'pip install -e ".[dev]" && pytest' in TEXT
