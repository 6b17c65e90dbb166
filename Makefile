# Every target uses the virtual environment .venv and creates it if necessary, of the first of these Pythons that runs.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null && echo $$python && break; \
	done || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo android docs test test-slow test-all lint format clean

help:
	@echo "make setup     install the project with all extras into .venv"
	@echo "make demo      install what the demo needs, and run it: runs/demo/report.html"
	@echo "make android   build, test and sign the Android app: android_demo/build/edge_cv-debug.apk"
	@echo "make docs      build the documentation site: build/site/index.html"
	@echo "make test      run the quick tests, some minutes"
	@echo "make test-slow run the others"
	@echo "make test-all  run all tests"
	@echo "make lint      run ruff, import-linter and mypy"

# What is imported is compiled then: all of it takes a minute.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable
FOR_DEMO := $(VENV)/.ready-demo

$(READY): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[demo,compress,test,corruptions,search,grain,jax,micro,ethos-u,ray,docs]'
	touch $(FOR_DEMO) $(READY)

$(FOR_DEMO): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[demo]'
	rm -rf $(VENV)/lib/python3.*/site-packages/tensorflow/include  # C++ headers: a sixth of it all, and never read
	touch $(FOR_DEMO)

setup: $(READY)

# Only what the demo needs; after `make setup` nothing more is installed.
demo: $(FOR_DEMO)
	$(BIN)/edge-cv run recipes/demo.py --out runs/demo

android: $(READY)
	$(BIN)/python android_demo/build.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m slow

test-all: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info runs android_demo/build android_demo/*/target android_demo/gradle/check/target
