# make setup | demo | test | check. Everything is installed into .venv, which `setup` keeps current.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test check gpu-env clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/afd-export --fuse --out exports/demo-corrected --force
	$(BIN)/afd-export --fuse --checkpoint none --backbone mobilenet_v2 --precision float32 --out exports/demo-plain --force
	$(BIN)/python -m afd_export.demo exports/demo-plain exports/demo-corrected exports/demo.png

test: setup
	$(BIN)/python -m pytest

# LiteRT with its GPU engine, for the one test that drives it; newer than onnx2tf allows.
gpu-env: setup
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	$(BIN)/uv pip install --quiet --python .venv-gpu/bin/python ai-edge-litert==2.3.0 numpy==1.26.4

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv pip check --quiet --python $(BIN)/python

clean:
	rm -rf .venv .venv-gpu exports .pytest_cache .mypy_cache .ruff_cache *.egg-info
