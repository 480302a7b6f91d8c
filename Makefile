# `make demo` and `make test` set up everything they need in .venv; nothing has to be run first.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# The first of these that is a working Python 3.11 or newer; `make PYTHON=...` overrides it.
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13, \
	$(shell $(name) -c 'import sys; print("$(name)") if sys.version_info >= (3, 11) else 0' \
	2>/dev/null | grep python)))

# Comparisons need exact float32 products, and no test or demo may reach for the network.
export MLX_ENABLE_TF32 := 0
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test slow golden lint setup

demo: $(STAMP)
	$(BIN)/python examples/minilm/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -n 2

golden: $(STAMP)
	$(BIN)/python -m pytest --update-golden -k golden
	git diff --stat -- golden

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/black --check --quiet compiler templates tests examples benchmarks
	$(BIN)/pyright

setup: $(STAMP)

# torch goes in first and alone, so that nothing chooses another build of it; torchvision and timm
# follow with --no-deps for the same reason.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(VENV): several minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps torchvision==0.28.0 timm==1.0.31
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
