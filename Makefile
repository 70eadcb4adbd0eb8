# `make run` trains one night through a real Airflow; see README.md. Everything is kept inside this checkout.
.DEFAULT_GOAL := help
.PHONY: help run study ui test test-production soak bench lint audit sbom clean

# The first of these that starts and is a Python Nightshift runs on; a pyenv shim may exist and not start.
PYTHON := $(shell for python in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
	&& { echo "$$python"; break; }; done)
INSTALL = $(if $(PYTHON),$(PYTHON) runner/install.py,$(error Python: found none, expected 3.11 to 3.13 with venv))

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## One night: make run ARGS="--set train.epochs=2"
	@exec $(INSTALL) -- -m runner run $(ARGS)

study: ## Ways to train, side by side: make study ARGS="--seeds 0 --only frozen trainable"
	@test -f data/solar_cells/labels.csv || $(INSTALL) -- -m training sample --to data/solar_cells
	@exec $(INSTALL) -- -m training study --config dags/models/solar_cells.yaml --out studies/solar_cells $(ARGS)

ui: ## Airflow with its pages, until Ctrl-C
	@exec $(INSTALL) -- -m runner ui $(ARGS)

test: lint ## All checks and tests
	@exec $(INSTALL) --dev -- -m pytest -n 2 --dist loadfile $(ARGS)

test-production: ## Nights on real PostgreSQL, Redis and Celery workers, as docker/compose.yaml has them
	@sh tests/production/servers.sh
	@exec $(INSTALL) --production -- -m pytest -m production tests/production $(ARGS)

soak: ## The long tests that `make test` leaves out
	@exec $(INSTALL) --dev -- -m pytest -n 2 --dist loadfile -m soak $(ARGS)

bench: ## Every figure of docs/benchmarks.md; an hour or two of a machine that does nothing else
	@exec $(INSTALL) --bench -- benchmarks/bench.py $(ARGS)

lint: ## ruff, mypy, and a look for secrets
	@$(INSTALL) --dev -- -m ruff check .
	@$(INSTALL) --dev -- -m ruff format --check .
	@$(INSTALL) --dev -- -m mypy
	@$(INSTALL) --dev -- security/find_secrets.py

audit: ## Known vulnerabilities of what is pinned; needs the internet
	@exec $(INSTALL) --dev -- security/audit.py $(ARGS)

sbom: ## The software bill of materials, as build/sbom.json
	@exec $(INSTALL) --dev -- security/sbom.py $(ARGS)

clean: ## Remove what was made, except data/ and runs/
	@rm -rf .venv .venv-production .venv-bench .airflow build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
