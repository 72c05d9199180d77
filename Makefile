# Every target sets itself up: a virtual environment in .venv, from requirements.lock, nothing else.
PYTHON ?= python3
RUN := .venv/bin/python
PYTEST := $(RUN) -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder --max-worker-restart 0
.DEFAULT_GOAL := help
export AUDIO
.PHONY: help setup demo up down test test-all check snapshots docs lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:
	@$(PYTHON) scripts/bootstrap.py

demo: setup ## Show the whole loop: speech in, transcript out, a dead worker pages (AUDIO=file)
	@$(RUN) -m speakfit_ops.demo $${AUDIO:+--audio "$$AUDIO"}

up: setup ## Start everything locally and keep it running; Ctrl-C or `make down` ends it
	@$(RUN) -m speakfit_ops.stack up

down: setup ## Stop what `make up` started
	@$(RUN) -m speakfit_ops.stack down

test: setup ## Run the test suite
	@$(PYTEST) -m "not slow"

test-all: setup ## Run the suite and the slow proofs
	@$(PYTEST)

check: setup ## Lint, types, layers, layout, and known weaknesses of what is installed
	@$(RUN) -m pytest -q tests/test_house.py tests/test_layout.py
	@$(RUN) scripts/audit.py

snapshots: setup ## Rewrite the command transcripts and show what changed
	@UPDATE_SNAPSHOTS=1 $(RUN) -m pytest -q tests/alerts -k transcript
	@git --no-pager diff --stat -- tests/transcripts

docs: setup ## Rewrite the generated parts of the documents
	@$(RUN) -m speakfit_ops.graph --draw docs/graph.svg
	@$(RUN) -m cogapp -r -n utf-8 README.md docs/*.md runbooks/*.md
	@$(RUN) -m alerts runbooks --write

lock: ## Resolve the dependencies anew, and those of the images from them (needs uv)
	@uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --extra local --extra load --extra deploy --extra infra --extra dev pyproject.toml --output-file requirements.lock
	@$(MAKE) --no-print-directory setup
	@$(RUN) -m speakfit_ops.images
	@for image in api gpu-worker; do \
	  uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	    --constraint requirements.lock --no-annotate --custom-compile-command "make lock" \
	    docker/$$image/requirements.in --output-file docker/$$image/requirements.lock || exit 1; \
	done
