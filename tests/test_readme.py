"""The README's examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_an_example_runs(block):
    result = subprocess.run([sys.executable, "-c", BLOCKS[block]], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_there_are_examples():
    assert len(BLOCKS) == 4
