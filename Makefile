# make demo: a VAE on handwritten digits, its account and figures.   make test: lint, types, tests.
# make combinations: every prior with every guide, every likelihood with every network: fitted, or refused with a reason.
# make notebooks: every notebook run in full, its outputs written into it, its numbers held against those kept.
# make bench: pyrovae and its peers timed side by side, about a quarter of an hour on 2 cores; with nothing else running.
# Each sets up .venv the first time, in any order, and leaves it alone afterwards.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test combinations notebooks lint bench clean
demo: .venv/.ready
	$(BIN)/pyrovae demo --out runs/demo

# Where Python keeps no bytecode, each process that tests start would compile the package anew.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.ready-to-test lint
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

combinations: .venv/.ready-to-test
	$(BIN)/python -m pytest tests/test_combinations.py tests/training/test_compiled.py tests/evidence/numerics/test_compiled.py \
		tests/training/test_guide_alone.py tests/strangers/test_left_alone.py \
		tests/training/objectives/test_objective.py tests/pairs/test_handlers.py --numprocesses logical --dist worksteal -m ''

notebooks: .venv/.ready-to-test
	$(BIN)/python tests/benchmarks/notebooks.py

lint: .venv/.ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.ready-to-bench
	$(BIN)/python tests/benchmarks/training_step.py
	$(BIN)/python tests/benchmarks/evidence_speed.py
	$(BIN)/python tests/benchmarks/scaling.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pyrovae needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.ready: .venv/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.ready-to-test: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

.venv/.ready-to-bench: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@
