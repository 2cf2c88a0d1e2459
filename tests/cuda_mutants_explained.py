"""Changes of the CUDA kernels that no test can see, and why: for `cuda_mutants.py`."""

EXPLAINED: dict[tuple[str, str], str] = {}
