# `make test` and `make demo` need Python 3.10 or newer, git and make, and set up everything else in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint types coverage format bench docs wheel clean

demo: $(READY)
	$(BIN)/python examples/digits.py

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# On a build, as it is installed: only there are nets/ and train/ parts of ckpt_tools.
types: $(READY)
	rm -rf build/typed build/lib
	$(BIN)/python -c "import setuptools; setuptools.setup()" --quiet build_py --build-lib build/typed
	cd build/typed && ../../$(BIN)/python -m mypy --config-file ../../mypy.ini

# The share of lines and branches that the tests run; the processes that tests start are not counted.
coverage: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov ckpt_tools --cov nets --cov train --cov-branch --cov-report term:skip-covered

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	mkdir -p build/bench
	$(BIN)/python benchmarks/bench_inspect.py tests/golden/tf115_v1_inception_v3_thin/inception_v3.ckpt --rounds 3
	$(BIN)/python benchmarks/bench_open.py --checkpoint tests/golden/tf115_v1_inception_v3_thin/inception_v3.ckpt --variables 100000 --repeat 1
	$(BIN)/python benchmarks/bench_surgery.py --folder build/bench --gigabytes 0.25 --rounds 2

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
