# make venv      .venv with everything installed        make demo   run the quickstart sweep, pull its best checkpoint
# make check     format, lint, types, imports, fast tests (a minute)
# make test      every behaviour: first what needs no Ray, on both cores, then what does, in turn
# make test-all  every test, for an hour and more
# make vendor    the plotting library of the report page, as raysweep/report/assets/vendor/VERSION names it
# make slurm-test  sweeps under a real Slurm, on hosts that die (ten minutes, as root)
# make faults    the damage of docs/reliability.md, in full      make bench  the figures of docs/performance.md
# make editor    the language server of tests/sweepfile/test_editor.py, by npm
# make image     the container image raysweep, by docker; BUILDER=podman or buildah, ARGS='--build-arg EXTRAS=aws,wandb'
# make reference docs/sweep_file.md, from the models      make pictures  docs/pictures, from a real run

PYTHON ?= python3
BUILDER ?= docker
BIN := .venv/bin
STAMP := .venv/installed
# pytest's own time limit cannot end a test that hangs in C; this ends its process after 15 minutes, and says where it was.
HANGS := -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true
PYTEST := $(BIN)/python -m pytest $(HANGS)

.PHONY: venv demo check test test-all slurm-test faults bench editor image reference pictures vendor clean
venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/python -m raysweep sweeps/quickstart.yaml
	$(BIN)/python -m raysweep pull sweeps/quickstart.yaml

check: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) --numprocesses auto -m 'not slow and not long' $(ARGS)

test: venv
	$(PYTEST) --numprocesses 2 -m 'not ray and not long' $(ARGS)
	$(PYTEST) -m 'ray and not long' $(ARGS)

test-all: test
	$(PYTEST) -m long $(ARGS)

slurm-test: venv
	$(PYTEST) --numprocesses 2 tests/slurm $(ARGS)

faults: venv
	RAYSWEEP_FAULTS=1 $(BIN)/python -m pytest tests/faults --timeout 3600 $(ARGS)

bench: venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

editor:
	npm install --silent --no-save --no-audit --no-fund --prefix . yaml-language-server@1.25.0

image:
	$(BUILDER) build --tag raysweep $(ARGS) .

pictures: venv
	$(BIN)/python scripts/pictures.py

reference: venv
	$(BIN)/python -m raysweep schema --markdown > docs/sweep_file.md

vendor:
	scripts/vendor.sh

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
