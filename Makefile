# make setup | demo | test | apk | accuracy | check. Everything is installed into .venv, which `setup` keeps current.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test apk accuracy check gpu-env mediapipe-env tflite214-env arm64-check clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@# So that processes start faster; some packages hold files that do not compile.
	$(BIN)/python -m compileall -q -j 2 .venv/lib >/dev/null 2>&1 || true
	touch $@

demo: setup
	$(BIN)/afd-export --fuse --out exports/demo-corrected --force
	$(BIN)/afd-export --fuse --checkpoint none --backbone mobilenet_v2 --precision float32 --out exports/demo-plain --force
	$(BIN)/python -m afd_export.demo exports/demo-plain exports/demo-corrected exports/demo.png

# More workers than two cores have, for many tests wait for adb; the app's own tests too, or a line that says what they lack.
test: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/python android_app/build_apk.py --test-only

# The harness app for Android: android_app/target/afd-harness-VERSION.apk.
apk: setup
	$(BIN)/python android_app/build_apk.py

# LiteRT with its GPU engine, for the one test that drives it; newer than onnx2tf allows.
gpu-env: setup
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	$(BIN)/uv pip install --quiet --python .venv-gpu/bin/python ai-edge-litert==2.3.0 numpy==1.26.4

# MediaPipe, for the test that has it read the metadata; its numpy is newer than onnx2tf allows.
mediapipe-env: setup
	test -x .venv-mediapipe/bin/python || $(PYTHON) -m venv .venv-mediapipe
	$(BIN)/uv pip install --quiet --python .venv-mediapipe/bin/python mediapipe==1.2.2 numpy==2.4.6

# TensorFlow Lite as of 2023, for the test that replays exports there.
tflite214-env: setup
	test -x .venv-tflite214/bin/python || $(PYTHON) -m venv .venv-tflite214
	$(BIN)/uv pip install --quiet --python .venv-tflite214/bin/python tflite-runtime==2.14.0 numpy==1.26.4

# An export on an emulated arm64 processor: the old runtime on an old core, this LiteRT on one with
# dot products (SME is left out: see docs/runtimes.md). Needs Debian 12 and its package qemu-user.
EXPORT ?= exports/demo-corrected
ARM64 := .arm64-root
REPLAY := -L $(ARM64) $(ARM64)/usr/bin/python3.11 -I tests/runtimes/replay.py

arm64-check: setup $(ARM64)/.ready
	qemu-aarch64 -cpu cortex-a57 $(REPLAY) tflite-runtime $(EXPORT)
	qemu-aarch64 -cpu max,sme=off $(REPLAY) ai-edge-litert $(EXPORT)

$(ARM64)/.ready: tests/runtimes/arm64-root.sh constraints.txt | setup
	tests/runtimes/arm64-root.sh $(ARM64)

# The whole accuracy table, from the exported files; IMAGES: folders named by wnid; CALIBRATION: other
# pictures, for int8.
IMAGES ?= ../shared/images/imagenet_dev
CALIBRATION ?= ../shared/images/train
CHECKPOINTS := afd-mobilenet_v2-mobile afd-mobilenet_v2-paper afd-squeezenet1_1-mobile
RESULTS := $(foreach c,$(CHECKPOINTS),$(foreach k,jpeg repeated avif,exports/accuracy/$(c)-$(k).json))
jpeg := --qualities 25 18 15 10 7
repeated := --qualities clean --times 1 2 3 4 5
avif := --codec avif $(jpeg)

INT8 := $(foreach m,afd-mobilenet_v2-mobile plain-mobilenet_v2,exports/accuracy/$(m)-int8.json)

accuracy: setup $(RESULTS) $(INT8)
	$(BIN)/afd-eval table $(RESULTS) --out docs/accuracy.md --plot docs/accuracy.png
	$(BIN)/afd-eval table $(INT8) --out docs/int8.md

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

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/uv pip check --quiet --python $(BIN)/python

clean:
	rm -rf .venv .venv-gpu .venv-mediapipe .venv-tflite214 .arm64-root android_app/target exports .pytest_cache .mypy_cache .ruff_cache *.egg-info
