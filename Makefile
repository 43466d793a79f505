# Every target works in a fresh clone: the first one makes the environment and installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The packages whose models the tests look at. torchvision's build may want another torch: no matter, it is imported only.
ZOO := $(VENV)/.zoo
# A process per core, each with one thread: threads of small models mostly wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# How many random networks `make fuzz` tries; and in how many processes.
NETWORKS ?= 20000
JOBS ?= $(shell nproc)

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
	$(BIN)/python benchmarks/models/fuzz.py --networks $(NETWORKS) --jobs $(JOBS)

bench: $(STAMP)
	@set -e; for script in benchmarks/speed/*.py; do \
		test -e "$$script" || { echo "there is no script in benchmarks/speed" >&2; exit 1; }; \
		echo "$$script"; $(BIN)/python "$$script"; \
	done
