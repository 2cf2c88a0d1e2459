"""Every kernel, through NVRTC, for the oldest and the newest architecture: a minute of compiling.

pytest tests/check_nvrtc.py
"""

from __future__ import annotations

import pytest
from nvrtc_stand_in import KERNELS
from test_nvrtc_compile import ARCHITECTURES, RELEASE, kernels_of

from llmrec_kernels.ops import nvrtc_compile


@pytest.mark.parametrize("architecture", [ARCHITECTURES[0], ARCHITECTURES[-1]])
@pytest.mark.parametrize("source", KERNELS)
def test_all_kernels_compile(
    source: str, architecture: int, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path_factory.mktemp("cache")))
    kernels = kernels_of(source)
    binary = nvrtc_compile.compiled(source, kernels, architecture, RELEASE)
    assert len(set(binary.names.values())) == len(kernels)
