# Two commands do everything on a fresh machine: `make test` and `make demo`. Each makes .venv when it is missing or
# older than the pins. PYTHON is the interpreter that the environment is made from (3.11 or later).
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.stamp
BIN := $(VENV)/bin

.DEFAULT_GOAL := test
.PHONY: test test-all demo site clean

# torch is named with its version, so that pip takes the build that its configuration offers for this machine (on one
# without a GPU, the CPU build) and never looks for a newer one. pip itself comes first: older ones read an index slowly.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("seqc needs Python 3.11 or later: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0 -e '.[dev]'
	touch $@

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The tests that repeat, as well, and native code of all of them built as users build it: about half an hour.
test-all: $(STAMP)
	OMP_NUM_THREADS=1 SEQC_TEST_OPTIMISED=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m ""

demo: $(STAMP)
	$(BIN)/python -m examples.demo

# The documentation as a site, in site/.
site: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
