"""What all tests of the operators share: the backends they run on, and hypothesis's settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Beside other test processes a process has one thread, here and in those that it starts: torch's
# threads spin while they wait for each other. Read when torch is imported, so before that.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

from llmrec_kernels import backends, explain

pytest.register_assert_rewrite("cases", "oracle", "replayed_energy", "reports")

# CI draws the same examples each time; a slow machine is no failure anywhere.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m gpu` compiles kernels: no module may turn Triton's interpreter on in its process."""
    interprets = collection_path.name.startswith(("test_triton_", "triton_"))
    marked = config.getoption("markexpr")
    return True if interprets and "gpu" in marked and "not gpu" not in marked else None


@pytest.fixture(params=("reference", "cpu"), scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn that runs on this machine; a module's OPS names what it must run."""
    return _available(request, request.param)


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> str:
    """The compiled kernels alone, for tests that compare them with the reference."""
    return _available(request, "cpu")


@pytest.fixture
def races() -> Iterator[None]:
    """Within the test a Triton kernel may not depend on the order of its programs."""
    import triton_interpreter

    with triton_interpreter.checked():
        yield


def _available(request: pytest.FixtureRequest, backend: str) -> str:
    """The backend's name; where it cannot run, skip with the reasons that a user would see.

    Fail instead where LLMREC_EXTENSION=require promises the compiled kernels.
    """
    try:
        for op in getattr(request.module, "OPS", backends.OPS):
            explain(op, backend=backend)
    except ValueError as error:
        if os.environ.get("LLMREC_EXTENSION") == "require":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return backend
