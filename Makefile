# `make test` and `make demo` need Python 3.10 or newer, git and make, and set up everything else in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint format docs wheel clean

demo: $(READY)
	$(BIN)/python examples/digits.py

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A reference of the Python face and the library under it, from the docstrings: docs/api/index.html
docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(BIN)/python docs/reference.py

wheel: $(READY)
	$(BIN)/python -m build --wheel

$(READY): setup.cfg pyproject.toml
	@echo "setting up .venv (TensorFlow is about 600 MB: this takes a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info demo-output docs/api
