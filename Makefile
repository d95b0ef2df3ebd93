# Every target does its own set-up in .venv (see scripts/setup) and says so.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PYTHON

BIN := .venv/bin
DATA := attrib-data/demo
MODEL := efficientnet-lite0-clipart
IMAGE := examples/generated/object-37-homes/media-1.png
PICTURE := demo-out/answer.png
CACHE := benchmarks/.cache
JOBS := 2
# Where the tests draw the states of the service's page.
export ATTRIB_SCREENSHOTS ?= $(CURDIR)/demo-out/screenshots
N := 100000

.PHONY: help demo test lint bench docs docs-check clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## ingest examples/training, then ask what influenced a generated image
	@scripts/setup
	@export PATH="$$PWD/$(BIN):$$PATH"; \
	run() { printf '\n$$ %s\n' "$$*"; "$$@"; }; \
	run attrib ingest examples/training --data $(DATA) --model $(MODEL); \
	run attrib query $(IMAGE) --data $(DATA) --k 12 --picture $(PICTURE); \
	printf '\nThe generated image: %s\nThe answer as a picture: %s\n' "$$PWD/$(IMAGE)" "$$PWD/$(PICTURE)"

test: ## run the tests, then check the documentation
	@scripts/setup test
	@mkdir -p "$(ATTRIB_SCREENSHOTS)" && rm -f "$(ATTRIB_SCREENSHOTS)"/page-*.png
	@failed=0; $(BIN)/python -m pytest -n $(JOBS) --dist loadfile || failed=$$?; \
	echo "Pictures of the page in all its states: $(ATTRIB_SCREENSHOTS)"; exit $$failed
	@$(MAKE) docs-check

lint: ## ruff, its formatter and mypy
	@scripts/setup dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: ## measure ingest, query, evaluation, service, audits and datasets; see benchmarks/README.md
	@scripts/setup bench
	$(BIN)/python -m benchmarks.cli --cache $(CACHE)
	$(BIN)/python -m benchmarks.ingest --cache $(CACHE) --memory
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.query --cache $(CACHE) --n $(N)
	$(BIN)/python -m benchmarks.evaluate --n $(N)
	$(BIN)/python -m benchmarks.service --cache $(CACHE) --n $(N)
	$(BIN)/python -m benchmarks.audit --memory
	$(BIN)/python -m benchmarks.dataset

docs: ## write docs/commands.md anew from the help texts
	@scripts/setup
	$(BIN)/python -m attrib.reference

docs-check: ## is docs/commands.md what the help texts say, do links and commands hold?
	@scripts/setup test
	$(BIN)/python -m attrib.reference --check
	$(BIN)/python -m pytest -q tests/test_docs.py

clean: ## remove .venv, the demo's data and all caches
	rm -rf .venv $(DATA) demo-out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rmdir attrib-data 2>/dev/null || true
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
