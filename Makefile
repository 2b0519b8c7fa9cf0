# The project's commands. `make` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Everything that is made while working lies under var/.
VENV ?= var/venv
# Their tools pin what others need in another version.
DOCS_VENV ?= var/venv-docs
GALAXY_VENV ?= var/venv-galaxy
# Empty: scripts/find-python chooses.
PYTHON ?=
PYTEST_ARGS ?=
SCENARIO ?=
ANSIBLE_TEST_ARGS ?=
UV_VERSION := 0.13.9

# ansible, ssh's control sockets and the rest are started by name from inside the tests.
export PATH := $(abspath $(VENV))/bin:$(PATH)
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/var/cache/hypothesis
# Compiled modules go to one place under var/. Without them, whatever is started compiles all that it imports.
export PYTHONPYCACHEPREFIX := $(CURDIR)/var/cache/pycache
unexport PYTHONDONTWRITEBYTECODE

python := $(VENV)/bin/python
on_all_processors := --numprocesses=auto --dist=worksteal
# A lab, or a fleet in a registry, is built once for a file.
file_by_file := --numprocesses=auto --dist=loadfile

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: system
system: ## Install the system packages that are missing (Debian, as root), or list them
	@scripts/system-packages base

.PHONY: system-systemd
system-systemd: ## The same for the tests on nodes with a real systemd
	@scripts/system-packages base systemd

.PHONY: system-database
system-database: ## The same for the tests on PostgreSQL
	@scripts/system-packages database

.PHONY: system-lint
system-lint: ## The same for the linters
	@scripts/system-packages lint

.PHONY: venv
venv: ## Make the virtual environment (VENV, PYTHON), quick when nothing changed
	@scripts/venv $(VENV) requirements/dev.txt $(PYTHON)

.PHONY: demo
demo: system venv ## Two servers, three devices, a fleet run from its registry, and the proof that it works
	@$(python) -m tests.demo

# Measured are the unit tests on SQLite, and the servers that are called over HTTP with all that they start. Elsewhere it
# would be the same code again, on PostgreSQL, with a failure at each point, or in playbooks, which take half as long again.
.PHONY: test
test: system-systemd system-database venv ## All tests: unit, end to end in the lab, on real systemd; and what they reach
	rm -rf var/coverage && mkdir -p var/coverage
	$(python) -m coverage run -m pytest $(on_all_processors) tests/unit -k "not (exhaustive or postgresql)" $(PYTEST_ARGS)
	$(python) -m pytest $(on_all_processors) tests/unit -k "exhaustive or postgresql" $(PYTEST_ARGS)
	SERVERS_COVERAGE=$(CURDIR)/pyproject.toml $(python) -m pytest $(file_by_file) tests/e2e tests/contract $(PYTEST_ARGS)
	$(python) -m pytest tests/systemd $(PYTEST_ARGS)
	$(python) -m coverage combine --quiet
	$(python) -m coverage html --quiet --directory var/coverage/html
	$(python) -m coverage report

.PHONY: unit
unit: system-database venv ## Unit tests alone, on SQLite and PostgreSQL: no root, no lab
	$(python) -m pytest $(on_all_processors) tests/unit $(PYTEST_ARGS)

.PHONY: e2e
e2e: system system-database venv ## End-to-end tests in the lab over SSH and HTTP (root)
	$(python) -m pytest $(file_by_file) tests/e2e tests/contract $(PYTEST_ARGS)

.PHONY: molecule
molecule: system-systemd venv ## Scenarios on nodes with a real systemd, by molecule (root; SCENARIO=default: one of them)
	@scripts/molecule $(VENV) $(SCENARIO)

.PHONY: serve
serve: system venv ## The HTTP interface on the lab with SQLite, and a curl line to try it
	@$(python) -m tests.serve

.PHONY: bench
bench: system venv ## Ratios measured side by side; JSON on stdout and under var/bench/
	@$(python) -m tests.bench

.PHONY: lab
lab: system venv ## Build the lab and leave it running (root)
	@$(python) -m tests.lab up

.PHONY: lab-down
lab-down: venv ## Take the lab down
	@$(python) -m tests.lab down

linters := ruff mypy shell yaml openapi changelog docs galaxy ansible sanity
.PHONY: lint $(addprefix lint-,$(linters))
lint: $(addprefix lint-,$(linters)) ## All linters, what Galaxy asks for, and ansible-test sanity in full

lint-ruff: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The collection is checked under the name that it is imported by.
collection := collections/ansible_collections/vpnfleet/wireguard
mypy_paths := $(addprefix $(collection)/plugins/,\
	module_utils plugin_utils modules action inventory lookup) \
	collection/roles/*/files/*.py api_shim tests
lint-mypy: venv
	$(VENV)/bin/mypy $(mypy_paths)

lint-shell: system-lint
	shellcheck --external-sources $$(git ls-files scripts .ci tests | xargs grep -lE '^#!/bin/(ba)?sh')

lint-yaml: venv
	$(VENV)/bin/yamllint --strict .

lint-openapi: venv
	@$(python) scripts/openapi | diff --unified docs/openapi.json - || \
		{ echo "docs/openapi.json is not what the HTTP interface says of itself: make openapi" >&2; exit 1; }

lint-changelog: venv
	@scripts/changelog $(VENV) check

lint-docs:
	@scripts/venv $(DOCS_VENV) requirements/docs.txt $(PYTHON)
	PATH=$(abspath $(DOCS_VENV))/bin:$$PATH ANSIBLE_HOME=$(CURDIR)/var/cache/ansible antsibull-docs \
		lint-collection-docs --plugin-docs --validate-collection-refs self $(collection)

lint-galaxy: venv
	@scripts/venv $(GALAXY_VENV) requirements/galaxy.txt $(PYTHON)
	@scripts/galaxy-check $(VENV) $(GALAXY_VENV)

lint-ansible: venv
	scripts/ansible-lint $(VENV)

lint-sanity: system-lint venv
	scripts/sanity $(VENV) $(ANSIBLE_TEST_ARGS)

.PHONY: openapi
openapi: venv ## Write docs/openapi.json, the HTTP interface's document
	$(python) scripts/openapi > docs/openapi.json

.PHONY: changelog
changelog: venv ## Write CHANGELOG.rst out of the fragments in collection/changelogs, for a release
	@scripts/changelog $(VENV) write

.PHONY: dist
dist: venv ## Build the packages into dist/: the wheel, and the collection for Galaxy
	@rm -rf dist
	@$(python) -m build --wheel --no-isolation --outdir dist . > /dev/null
	@$(python) scripts/galaxy-tarball dist > /dev/null
	@sha256sum dist/*

.PHONY: docs
docs: ## Build the documents' site under var/docs, every link in it checked
	@scripts/venv $(DOCS_VENV) requirements/docs.txt $(PYTHON)
	@scripts/docs $(DOCS_VENV)

.PHONY: requirements
requirements: ## Pin and hash the requirements anew from pyproject.toml (UPGRADE=1: to the newest)
	@test -x var/venv-uv/bin/uv || { "$$(scripts/find-python $(PYTHON))" -m venv var/venv-uv; }
	@var/venv-uv/bin/pip install -qq --disable-pip-version-check uv==$(UV_VERSION)
	@scripts/lock-requirements var/venv-uv/bin/uv $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Take the lab and the scenarios' nodes down, and remove all that was made (var/)
	@if [ -x $(python) ] && [ -d var/lab ]; then $(python) -m tests.lab down; fi
	@for nodes in var/cache/ansible/tmp/molecule.*/systemd.json; do \
		if [ -x $(python) ] && [ -e "$$nodes" ]; then $(python) -m tests.systemd down "$${nodes%/*}"; fi; done
	rm -rf var dist build
