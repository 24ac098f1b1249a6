# make venv    .venv with everything installed          make demo    run the quickstart sweep, pull its best checkpoint
# make check   format, lint, types, fast tests (< 1 min) make test    all tests that fit 45 minutes on two cores
# make bench   the benchmarks behind docs/performance.md

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: venv demo test check bench clean
venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/python -m raysweep sweeps/quickstart.yaml
	$(BIN)/python -m raysweep pull sweeps/quickstart.yaml

test: venv
	$(BIN)/python -m pytest $(ARGS)

check: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

bench: venv
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
