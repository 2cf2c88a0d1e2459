"""What all tests of the operators share: the backends they run on, and hypothesis's settings."""

from __future__ import annotations

import os

# Beside other test processes a process has one thread, here and in those that it starts: torch's
# threads spin while they wait for each other. Read when torch is imported, so before that.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

from llmrec_kernels import backends, explain

pytest.register_assert_rewrite("cases", "oracle")

# CI draws the same examples each time; a slow machine is no failure anywhere.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


@pytest.fixture(params=("reference", "cpu"), scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn that runs on this machine; a module's OPS names what it must run.

    Where the compiled kernels are missing their tests are skipped with the reasons that a user
    would see, and fail instead where LLMREC_EXTENSION=require promises them.
    """
    try:
        for op in getattr(request.module, "OPS", backends.OPS):
            explain(op, backend=request.param)
    except ValueError as error:
        if os.environ.get("LLMREC_EXTENSION") == "require":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return str(request.param)
