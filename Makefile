# Everything runs in .venv (test-floor: in .venv-floor), which the targets make and bring up to date themselves.
PYTHON ?= python3
VENV := .venv
# Files of pins that an environment is installed with.
PINS :=
# The interpreter by its path: right inside another activated environment too.
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-floor test-gpu bench lint docs clean
# Two installs into one environment at a time would break it.
.NOTPARALLEL:

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-test  ## maps of a synthetic scene from any input to any output, under out/quickstart
	rm -rf out/quickstart
	$(PY) examples/quickstart.py
	$(PY) examples/any_to_any.py --output out/quickstart/any_to_any.png

# Some processes side by side, one thread of torch each; a page of docs/ runs whole in one of them.
TEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n logical --maxprocesses 4 --dist loadfile

test: $(VENV)/.installed-test  ## the quick tests, doctests included
	$(TEST)

test-all: $(VENV)/.installed-test-all  ## every test, the slow ones and those of the extras too
	TERRAMIND_XR_TESTS=all $(TEST) -m ''

test-floor:  ## the quick tests on the oldest releases that pyproject.toml allows, in .venv-floor
	$(MAKE) test VENV=.venv-floor PINS=tests/floor.txt

test-gpu: $(VENV)/.installed-test  ## what takes a CUDA GPU, with its figures
	$(PY) -m pytest -q -s -m gpu tests/test_gpu.py

bench: $(VENV)/.installed-test $(VENV)/.installed-openvino  ## speed beside terratorch and beside its goals, to docs/benchmarks.md
	$(PY) -W ignore benchmarks/bench.py --markdown docs/benchmarks.md

lint: $(VENV)/.installed-lint  ## ruff (rules and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(VENV)/.installed-docs  ## the site, under site/
	$(PY) -m mkdocs build --strict

clean:  ## remove the environments, the caches and what was built
	rm -rf $(VENV) .venv-floor build dist site out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra, touched only after pip has succeeded.
.PRECIOUS: $(VENV)/.installed-%
$(VENV)/.installed-%: pyproject.toml $(PINS)
	@$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "terramind_xr needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)"; \
	    echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }; \
	  echo "Creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	$(PY) -m pip install $(PINS:%=-c %) -e '.[$*]'
	@touch $@
