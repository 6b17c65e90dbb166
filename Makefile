# Everything works in a virtual environment, .venv, which each target makes by itself when it is missing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo android test test-all lint format clean

help:
	@echo "make setup     install the project and everything it needs into .venv"
	@echo "make demo      EfficientNet-Lite0 to int8, compared with float on real photos: runs/demo/report.html"
	@echo "make android   the Android app, tested on the JVM and signed: android_demo/build/edge_cv-debug.apk"
	@echo "make test      the tests, some minutes"
	@echo "make test-all  the slow ones too"
	@echo "make lint      ruff and the direction of imports"

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test,corruptions,search,grain,jax,micro,ray]'
	touch $(READY)

setup: $(READY)

demo: $(READY)
	$(BIN)/edge-cv run recipes/demo.py --out runs/demo

android: $(READY)
	$(BIN)/python android_demo/build.py

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info runs android_demo/build android_demo/*/target
