# Everything is installed into .venv, which `setup` keeps current. TORCH_BACKEND=cpu: a smaller torch,
# from PyTorch's own index.
BIN := .venv/bin
UV ?= $(or $(shell command -v uv),.venv-uv/bin/uv)
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest -n auto

define HELP
make demo         sets itself up, exports the shipped checkpoint, classifies two photographs
make test         sets itself up, runs the tests
make test-all     all tests: also the long ones, and those of other runtimes, engines and toolchains
make check        format, lint, types, import rules
make apk          the harness app for Android
make arm64-check  replays an export on an emulated arm64 processor
make accuracy     the accuracy tables, from exported files (IMAGES, CALIBRATION)
make networks     classifiers of many families, exported plain and corrected: docs/networks.md
make figure9      peers trained on TRAIN before MobileNetV2, and ours: recovered share against latency
make clean        removes what these made
endef
export HELP

.PHONY: help setup demo test test-all test-engines apk accuracy networks figure9 check gpu-env mediapipe-env tflite214-env arm64-check qemu-user clean
help:
	@echo "$$HELP"

setup: $(READY)

# uv finds Python 3.11 whatever `python3` is, or gets it. Bytecode: so that processes start faster.
$(READY): pyproject.toml constraints.txt | $(filter .venv-uv/%,$(UV))
	@echo "Setting up .venv, once: about 4 GB to download and 8 GB on disk, most of it torch and tensorflow."
	test -x $(BIN)/python3.11 || $(UV) venv --clear --python 3.11 .venv
	$(UV) pip install --python $(BIN)/python --compile-bytecode --constraint constraints.txt \
	  $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) --editable '.[dev]'
	@touch $@

.venv-uv/bin/uv:
	@echo "Getting uv, which sets up the rest."
	python3 -m venv .venv-uv || { echo "Install uv, or Python's venv (Debian: python3-venv), first." >&2; exit 1; }
	.venv-uv/bin/python -m pip install --quiet uv

demo: setup
	$(BIN)/afd-export --fuse --out exports/demo-corrected --force
	$(BIN)/afd-export --fuse --checkpoint none --backbone mobilenet_v2 --precision float32 --out exports/demo-plain --force
	$(BIN)/python -m afd_export.demo exports/demo-plain exports/demo-corrected exports/demo.png

test: setup
	$(PYTEST)

# Also what takes long, or needs other runtimes, engines, an Android toolchain or a browser; sets up
# what it can, and names the Debian packages that it lacks.
test-all: test test-engines

test-engines: apk gpu-env mediapipe-env tflite214-env arm64-check
	$(PYTEST) -m 'engine or long'

# The harness app for Android, tested and built: android_app/target/afd-harness-VERSION.apk.
apk: setup
	$(BIN)/python android_app/build_apk.py

# LiteRT with its GPU engine; newer than onnx2tf allows.
gpu-env: .venv-gpu/.ready
.venv-gpu/.ready: PACKAGES := ai-edge-litert==2.3.0 numpy==1.26.4

# MediaPipe, which reads the metadata; its numpy is newer than onnx2tf allows.
mediapipe-env: .venv-mediapipe/.ready
.venv-mediapipe/.ready: PACKAGES := mediapipe==1.2.2 numpy==2.4.6

# TensorFlow Lite as of 2023, which replays exports.
tflite214-env: .venv-tflite214/.ready
.venv-tflite214/.ready: PACKAGES := tflite-runtime==2.14.0 numpy==1.26.4

.venv-gpu/.ready .venv-mediapipe/.ready .venv-tflite214/.ready: Makefile | setup
	$(UV) venv --quiet --clear --python 3.11 $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python $(PACKAGES)
	@touch $@

# An export on an emulated arm64 processor: the old runtime on an old core, this LiteRT on one with
# dot products (SME is left out: see docs/runtimes.md). Needs Debian 12 and its package qemu-user.
EXPORT ?= exports/demo-corrected
ARM64 := .arm64-root
REPLAY := -L $(ARM64) $(ARM64)/usr/bin/python3.11 -I tests/runtimes/replay.py

arm64-check: qemu-user $(EXPORT)/manifest.json $(ARM64)/.ready
	qemu-aarch64 -cpu cortex-a57 $(REPLAY) tflite-runtime $(EXPORT)
	qemu-aarch64 -cpu max,sme=off $(REPLAY) ai-edge-litert $(EXPORT)

# First, since the root takes minutes.
qemu-user:
	@command -v qemu-aarch64 >/dev/null || { echo "arm64-check needs qemu-aarch64: apt-get install qemu-user" >&2; exit 1; }

$(ARM64)/.ready: tests/runtimes/arm64-root.sh constraints.txt | qemu-user setup
	tests/runtimes/arm64-root.sh $(ARM64) $(UV)

exports/demo-corrected/manifest.json:
	$(MAKE) demo

# The whole accuracy table, from the exported files; IMAGES: folders named by wnid; CALIBRATION: other
# pictures, for int8.
IMAGES ?= ../shared/images/imagenet_dev
CALIBRATION ?= ../shared/images/train
CHECKPOINTS := afd-mobilenet_v2-mobile afd-mobilenet_v2-paper afd-squeezenet1_1-mobile afd-tf_efficientnet_lite0-mobile
RESULTS := $(foreach c,$(CHECKPOINTS),$(foreach k,jpeg repeated avif,exports/accuracy/$(c)-$(k).json))
jpeg := --qualities 25 18 15 10 7
repeated := --qualities clean --times 1 2 3 4 5
avif := --codec avif $(jpeg)

INT8 := $(foreach m,afd-mobilenet_v2-mobile plain-mobilenet_v2 afd-tf_efficientnet_lite0-mobile,exports/accuracy/$(m)-int8.json)

# The table $(1) as a page of docs/, under a title.
page = printf '\# %s\n\nBy `make accuracy`; back to the [README](../README.md\#where-it-stands).\n\n' '$(2)' | cat - exports/accuracy/$(1) > docs/$(1)

accuracy: setup $(RESULTS) $(INT8)
	$(BIN)/afd-eval table $(RESULTS) --out exports/accuracy/accuracy.md --plot docs/accuracy.png
	$(BIN)/afd-eval table $(INT8) --out exports/accuracy/int8.md
	$(call page,accuracy.md,Accuracy: plain classifiers (reference) and corrected ones (model))
	$(call page,int8.md,Accuracy: float32 (reference) and int8 (model))

exports/accuracy/plain-%/manifest.json: models/backbones/%.safetensors
	$(BIN)/afd-export --fuse --checkpoint none --backbone $* --precision float32 int8 --images $(CALIBRATION) --out $(@D) --force

exports/accuracy/afd-%/manifest.json: models/afd-%.safetensors
	$(BIN)/afd-export --fuse --checkpoint afd-$* --precision float32 int8 --images $(CALIBRATION) --out $(@D) --force

# afd-BACKBONE-PRESET is compared with plain-BACKBONE, both as exported.
.SECONDEXPANSION:
plain = exports/accuracy/plain-$(firstword $(subst -, ,$(1)))
define result
exports/accuracy/afd-%-$(1).json: exports/accuracy/afd-%/manifest.json $$$$(call plain,$$$$*)/manifest.json
	$(BIN)/afd-eval exports/accuracy/afd-$$* --against $$(call plain,$$*) --images $(IMAGES) $($(1)) --json $$@
endef
$(foreach k,jpeg repeated avif,$(eval $(call result,$(k))))
# int8 is compared with its own float32.
exports/accuracy/%-int8.json: exports/accuracy/%/manifest.json
	$(BIN)/afd-eval exports/accuracy/$*/*_int8.tflite --against exports/accuracy/$* --images $(IMAGES) $(jpeg) --json $@

.PRECIOUS: exports/accuracy/plain-%/manifest.json exports/accuracy/afd-%/manifest.json

# Goes on from what docs/networks.json holds.
networks: setup
	$(BIN)/python -m afd_export.network_table --images $(CALIBRATION) --out docs/networks.json --page docs/networks.md

# The paper's Fig. 9, measured: peers as preprocessing before MobileNetV2 beside our module in it.
TRAIN ?= $(CALIBRATION)
PEERS := arcnn dncnn
FIGURE9 := $(PEERS:%=restored-%) afd-mobilenet_v2-mobile

figure9: setup $(FIGURE9:%=exports/accuracy/%-jpeg.json)
	$(BIN)/afd-bench run $(FIGURE9:%=exports/accuracy/%/*_float32.tflite) --against exports/accuracy/plain-mobilenet_v2/*_float32.tflite --runs 10 --out benchmarks/figure9
	$(BIN)/afd-bench report benchmarks/figure9 --accuracy $(FIGURE9:%=exports/accuracy/%-jpeg.json) --out docs/figure9.png

exports/peers/%.safetensors:
	mkdir -p $(@D)
	$(BIN)/python -m afd_export.peers.train $* --images $(TRAIN) --out $@ $(if $(wildcard $(@:.safetensors=.state)),--resume)

exports/accuracy/restored-%/manifest.json: exports/peers/%.safetensors
	$(BIN)/afd-export --checkpoint none --backbone afd_export.peers.restored:$* --backbone-weights $< --mean 0 0 0 --std 1 1 1 \
	  --fuse --precision float32 --out $(@D) --force

exports/accuracy/restored-%-jpeg.json: exports/accuracy/restored-%/manifest.json exports/accuracy/plain-mobilenet_v2/manifest.json
	$(BIN)/afd-eval exports/accuracy/restored-$* --against exports/accuracy/plain-mobilenet_v2 --images $(IMAGES) $(jpeg) --json $@

.PRECIOUS: exports/peers/%.safetensors exports/accuracy/restored-%/manifest.json

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(UV) pip check --quiet --python $(BIN)/python

clean:
	rm -rf .venv .venv-* .arm64-root android_app/target exports .pytest_cache .mypy_cache .ruff_cache *.egg-info
