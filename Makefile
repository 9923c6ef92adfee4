# Every target does its own set-up in .venv, once. `make` alone lists the targets.

PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
WORKERS ?= 2

BIN := .venv/bin
# Errors only. No byte code for all of 14,600 modules: Python compiles the quarter that is used when first imported
# (see unexport below), which takes a minute and 300 MB off the installation.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --constraint constraints.txt
# Against the pinned setuptools of .venv, not the newest of the day.
PIP_EDITABLE := $(PIP) --no-build-isolation --editable
INSTALL_FILES := setup.cfg setup.py constraints.txt

unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types cov clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s  %s\n", $$1, $$2}' Makefile

demo: .venv/.installed-run ## shrink a real BERT to half its latency on this machine (at most 10 minutes, set-up included)
	$(BIN)/rlnas demo --out runs/demo

test: .venv/.installed-test ## run the tests and check that they cover at least 90 % of rlnas/ (4 to 11 minutes on two cores)
	$(BIN)/pytest -n $(WORKERS) --cov --cov-report= --cov-fail-under=90

cov: test ## run the tests, then list the lines that none of them ran
	$(BIN)/coverage report

lint: .venv/.installed-test ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-test ## check the types strictly
	$(BIN)/mypy

clean: ## remove .venv and everything else that was made here, except runs/
	rm -rf .venv build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find rlnas tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@test -n "$(PYTHON)" || { echo "rlnas needs Python 3.11 or newer and found none: put it on PATH, or name it with" \
		"make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rlnas needs Python 3.11 or newer, and" \
		"$(PYTHON) is `$(PYTHON) --version`: name another with make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/.installed-run: .venv/.created $(INSTALL_FILES)
	@echo "Installing rlnas into .venv: about 1.4 GB, 1 to 3 minutes; done once."
	@$(PIP) pip setuptools
	@$(PIP_EDITABLE) '.[demo]'
	@touch $@

.venv/.installed-test: .venv/.installed-run
	@echo "Installing the test and lint tools into .venv: about 20 seconds; done once."
	@$(PIP_EDITABLE) '.[dev]'
	@touch $@
