# make setup | demo | test | accuracy | check. Everything is installed into .venv, which `setup` keeps current.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test accuracy check gpu-env clean
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

# The whole accuracy table, from the exported float32 files; IMAGES: folders named by wnid.
IMAGES ?= ../shared/images/imagenet_dev
CHECKPOINTS := afd-mobilenet_v2-mobile afd-mobilenet_v2-paper afd-squeezenet1_1-mobile
RESULTS := $(foreach c,$(CHECKPOINTS),$(foreach k,jpeg repeated avif,exports/accuracy/$(c)-$(k).json))
jpeg := --qualities 25 18 15 10 7
repeated := --qualities clean --times 1 2 3 4 5
avif := --codec avif $(jpeg)

accuracy: setup $(RESULTS)
	$(BIN)/afd-eval table $(RESULTS) --out docs/accuracy.md --plot docs/accuracy.png

exports/accuracy/plain-%/manifest.json: models/backbones/%.safetensors
	$(BIN)/afd-export --fuse --checkpoint none --backbone $* --precision float32 --out $(@D) --force

exports/accuracy/afd-%/manifest.json: models/afd-%.safetensors
	$(BIN)/afd-export --fuse --checkpoint afd-$* --precision float32 --out $(@D) --force

# afd-BACKBONE-PRESET is compared with plain-BACKBONE, both as exported.
.SECONDEXPANSION:
plain = exports/accuracy/plain-$(firstword $(subst -, ,$(1)))
define result
exports/accuracy/afd-%-$(1).json: exports/accuracy/afd-%/manifest.json $$$$(call plain,$$$$*)/manifest.json
	$(BIN)/afd-eval exports/accuracy/afd-$$* --against $$(call plain,$$*) --images $(IMAGES) $($(1)) --json $$@
endef
$(foreach k,jpeg repeated avif,$(eval $(call result,$(k))))
.PRECIOUS: exports/accuracy/plain-%/manifest.json exports/accuracy/afd-%/manifest.json

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv pip check --quiet --python $(BIN)/python

clean:
	rm -rf .venv .venv-gpu exports .pytest_cache .mypy_cache .ruff_cache *.egg-info
