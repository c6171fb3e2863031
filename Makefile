# A fresh machine needs Python >= 3.11, git and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
BENCH_ARGUMENTS ?=
LOADTEST_ARGUMENTS ?=
# Compile what is installed once, and not in each of the hundred processes that the tests start.
export UV_COMPILE_BYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help serve test check format bench loadtest secrets constraints clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

serve: $(VENV)/.service ## serve the embedded bundle on 127.0.0.1:8000
	$(BIN)/purigate serve

test: $(VENV)/.dev ## run the whole test suite: a file on each processor, what needs a GPU one after the other
	$(BIN)/pytest -m "not cuda" -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m cuda $$(grep -rl --include='test_*.py' 'mark\.cuda' tests)

check: $(VENV)/.dev ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code in its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure the gateway, its parts, and what others serve the same classifier with; twenty minutes
	$(BIN)/python -m benchmarks $(BENCH_ARGUMENTS)

loadtest: $(VENV)/.dev ## start a gateway, load it for half a minute, and fail if it was too slow
	$(BIN)/python -m loadtest $(LOADTEST_ARGUMENTS)

secrets: ## write the secrets that docker-compose.yml mounts; those that are there are kept
	sh deploy/secrets.sh secrets

constraints: $(VENV)/.dev ## pin the newest versions that fit, without addresses
	{ echo "# Exact versions of everything that 'make' installs; 'make constraints' writes it."; \
	  printf '%s\n' uv hatchling | $(UV) pip compile -q --no-header --no-annotate --no-emit-index-url --all-extras \
	      pyproject.toml - ; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove the environment and everything that tools left
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Debian splits ensurepip off: there, an environment without pip is made and the system's pip fills it.
$(UV): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Purigate needs Python >= 3.11; name one with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } || \
		{ echo "install python3-venv or pip for $(PYTHON) and try again" >&2; exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	@touch $@

$(VENV)/.service: $(UV) pyproject.toml
	$(UV) pip install -q --python $(BIN)/python -c constraints.txt -b constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(UV) pyproject.toml
	$(UV) pip install -q --python $(BIN)/python -c constraints.txt -b constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.service
