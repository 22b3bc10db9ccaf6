# make demo: install into .venv and run the main job on the embedded suite.   make test: the tests.   make lint: ruff, pyright.
# make check-methods: the contract of every registered method.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint check-methods study gpu clean

demo: $(VENV)/.installed
	$(BIN)/rbft run --method zero-shot --method ft --method wise-ft --method lipsum --suite shapes --seeds 0-1 --out runs/demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile  # a process for each core

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

check-methods: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/rbft check method --all

# The numbers and pictures of the README and of docs/: about an hour on two busy cores.
study: $(VENV)/.installed
	BIN=$(BIN) bash docs/study.sh

# The tests that need a GPU, then the benchmark of full-size models on it: docs/results/gpu.md.
gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu
	BIN=$(BIN) bash docs/gpu.sh

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@ $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); echo "no venv: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1)

clean:
	rm -rf $(VENV) build dist *.egg-info
