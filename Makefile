# Two commands on a fresh machine: `make demo` and `make test`. Python 3.11+, pip and the package index are enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
TESTS  ?= tests

.PHONY: demo test check bench bench-peers bench-gradient docs clean

# torch comes first and alone, so that nothing else chooses its version
$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -r constraints.txt
	touch $@

$(VENV)/core: $(VENV)/torch pyproject.toml
	$(PIP) install -q -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/bench: $(VENV)/dev
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	# easyfsl asks for torchvision, which has no CPU build here; what we time does not use it
	$(PIP) install -q --no-deps 'easyfsl>=1.5,<2'
	touch $@

$(VENV)/peers: $(VENV)/bench benchmarks/build_learn2learn.py
	$(BIN)/python benchmarks/build_learn2learn.py
	touch $@

demo: $(VENV)/core
	$(BIN)/quickstudy demo --out report.html

test: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TESTS)

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check.py

bench: $(VENV)/bench
	$(BIN)/python benchmarks/speed.py

bench-peers: $(VENV)/peers

bench-gradient: $(VENV)/peers
	$(BIN)/python benchmarks/gradient_speed.py

docs: $(VENV)/dev
	$(BIN)/python docs/check.py --write

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache report.html
