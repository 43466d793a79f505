# Every target works in a fresh clone: the first one makes the environment and installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The packages whose models the tests look at. torchvision's build may want another torch: no matter, it is imported only.
ZOO := $(VENV)/.zoo
# A process per core, each with one thread: threads of small models mostly wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# For the fuzz tests: how many cases, and a fresh seed that is printed so that a failure can be repeated.
VIBNET_FUZZ ?= 5000
SEED ?= $(shell date +%s)

.PHONY: demo install test check fmt fuzz bench

demo: $(STAMP)
	$(BIN)/vibnet run digits-mlp --threads 1

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(ZOO): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt transformers
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt torchvision timm
	touch $@

test: $(ZOO)
	$(PYTEST)

check: $(ZOO)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(PYTEST)

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(STAMP)
	@echo "make fuzz VIBNET_FUZZ=$(VIBNET_FUZZ) SEED=$(SEED)"
	VIBNET_FUZZ=$(VIBNET_FUZZ) $(BIN)/python -m pytest -m fuzz --timeout=0 -s --hypothesis-seed=$(SEED)

bench: $(STAMP)
	@set -e; for script in benchmarks/speed/*.py; do \
		test -e "$$script" || { echo "there is no script in benchmarks/speed" >&2; exit 1; }; \
		echo "$$script"; $(BIN)/python "$$script"; \
	done
