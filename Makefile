# Two commands are enough: `make train`, then `make test`. Everything else is a part of them.
# Nothing outside this folder is written, but for packages of Debian where this runs as root and one is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: install train test test-all check docs bench numerics clean system

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest

install: .venv/installed        ## .venv with everything that training and the tests need

# torch first and alone: it is the big one, and a broken connection then costs the least.
.venv/installed: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory system
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing torch"
	@$(PIP) torch
	@echo "installing the rest"
	@$(PIP) hatchling editables numpy fsspec
	@$(PIP) -e '.[dev]'
	@touch $@

# git: runs record the code they ran. g++ and the headers of Python: torch.compile builds kernels on the CPU. venv: Debian splits it off.
# chromium: tests look at reports in it. zsh and fish: tests press Tab in them.
# iproute2: tests make hosts of network namespaces.
system:
	@missing=(); \
	command -v git >/dev/null || missing+=(git); \
	command -v g++ >/dev/null || missing+=(g++); \
	command -v chromium >/dev/null || missing+=(chromium); \
	command -v zsh >/dev/null || missing+=(zsh); \
	command -v fish >/dev/null || missing+=(fish); \
	command -v ip >/dev/null || missing+=(iproute2); \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv); \
	$(PYTHON) -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null || missing+=(python3-dev); \
	if [ $${#missing[@]} -gt 0 ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $${missing[*]}"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get -qq update >/dev/null && apt-get -qq install -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	  else \
	    echo "missing on this machine: $${missing[*]} (as root on Debian: apt-get install $${missing[*]})" >&2; \
	  fi; \
	fi

train: install                  ## a small language model, two processes, under three minutes
	$(BIN)/mltrain launch recipe=gpt/tiny

test: install check             ## everything but the long counts and what needs an accelerator
	$(PYTEST) -m "not full and not gpu"

test-all: install check         ## the long counts, too
	$(PYTEST) -m "not gpu"

check: install                  ## style, types, and who may know whom
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: install                   ## every code block of README.md and docs/ is run
	$(PYTEST) tests/integration/test_docs.py

bench: install                  ## one table a question, to be pasted into benchmarks/RESULTS.md
	@for script in $$(ls benchmarks/*.py | grep -Ev "/(harness|turns)\.py"); do $(BIN)/python "$$script" || exit 1; done

numerics: install               ## literal digests: has a change of the code changed a bit of the weights?
	$(PYTEST) tests/golden

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
