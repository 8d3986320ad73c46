# `make quickstart` and `make test` are all a newcomer needs; both set up a virtual environment first, where it is missing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs

.PHONY: quickstart test test-slow lint scenarios shokri-classes coverage bounds bench bench-quick clean

$(BIN)/fedsim: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fedsim needs Python 3.11 or newer; try make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev: $(BIN)/fedsim
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	@touch $@

# Exit code 1 says that a claim was refuted, which is what this scenario is there to show.
quickstart: $(BIN)/fedsim
	@$(BIN)/fedsim run scenarios/quickstart.yaml; status=$$?; \
	if [ $$status -eq 1 ]; then echo "The claim was refuted, as it should be: this model leaks. Open the report above."; else exit $$status; fi

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -m slow

# The precision of an attack against the number of classes; the last lines of each run are a report to compare.
shokri-classes: $(BIN)/fedsim
	@for classes in 2 10 20 50 100; do echo "== $$classes classes"; \
	  $(BIN)/fedsim run scenarios/shokri-classes.yaml --set data.options.classes=$$classes --out $(RUNS)/shokri-classes/$$classes || exit; done

# Every shipped scenario, one after the other; some need data (see README). Exit code 3
# with a report is the alarm that dp-that-is-not is there to raise.
scenarios: $(BIN)/fedsim
	@for file in scenarios/*.yaml; do \
	  out=$(RUNS)/all/$$(basename $$file .yaml); $(BIN)/fedsim run $$file --out $$out; status=$$?; \
	  [ $$status -le 1 ] || { [ $$status -eq 3 ] && [ -f $$out/report.html ]; } || exit $$status; done

# How often the intervals cover the truth: the table in docs/statistics.md.
coverage: $(VENV)/dev
	$(BIN)/python benchmarks/coverage.py

# False alarms and tightness of the bounds on epsilon: the tables in docs/epsilon-bounds.md.
bounds: $(VENV)/dev
	$(BIN)/python -m benchmarks.bounds --docs

# BlazeFL 2.0.3 asks for Python 3.12 and runs on 3.11; where it cannot be had, the benchmark says so and goes on.
$(VENV)/bench: $(BIN)/fedsim
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python 'blazefl==2.0.3'
	@touch $@

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks.bench

bench-quick: $(VENV)/bench
	$(BIN)/python -m benchmarks.bench --quick

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
