# make venv    .venv with everything installed          make demo    run the quickstart sweep, pull its best checkpoint
# make check   format, lint, types, fast tests (< 1 min) make test    all tests that fit 45 minutes on two cores
# make bench   the benchmarks behind docs/performance.md   make faults  the damage of docs/reliability.md, in full
# make cluster-test  clusters of several hosts on this machine (needs root), each test under ten minutes

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# Ends a process that does not answer to pytest's own time limit, because it hangs in C, and says where it was.
HANGS := -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

.PHONY: venv demo test cluster-test check faults bench clean
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
	$(BIN)/python -m pytest --numprocesses auto -m 'not slow and not cluster' $(HANGS) $(ARGS)
	$(BIN)/python -m pytest -m 'slow and not cluster' $(HANGS) $(ARGS)

cluster-test: venv
	$(BIN)/python -m pytest tests/hosts $(ARGS)

check: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses auto -m 'not slow and not cluster' $(ARGS)

faults: venv
	RAYSWEEP_FAULTS=1 $(BIN)/python -m pytest tests/faults --timeout 3600 $(ARGS)

bench: venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
