# One way to run everything. `make help` lists the targets; every study is one word.
STUDIES := drift-dpo orth-refusal mini-cai neuron-brittleness
PRESET ?= tiny
ARGS ?=
RECORD_SEEDS := 13,14,15,16,17

# Python 3.11 or newer, under whatever name it goes.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
# uv from the machine, or installed here once through pip.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
SETUP := .venv/.setup

.DEFAULT_GOAL := help
.PHONY: help setup $(STUDIES) record report organism selfcheck test test-all lint types format wheels lowest bench bench-refusal mutants guarantees clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-zA-Z$$()_-]+:.*## / {n = split($$1 == "$$(STUDIES)" ? "$(STUDIES)" : $$1, names, " "); \
		for (i = 1; i <= n; i++) printf "  %-19s %s\n", names[i], $$2}' $(MAKEFILE_LIST)

setup: $(SETUP) ## install everything into .venv (done by the other targets when needed)

.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3.11 setup" >&2; exit 2; }
	@echo "installing uv into .uv/"
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(SETUP): pyproject.toml uv.lock shared/pyproject.toml $(wildcard packages/*/pyproject.toml) $(if $(filter .uv/bin/uv,$(UV)),| .uv/bin/uv)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3.11 setup" >&2; exit 2; }
	@if git rev-parse --git-dir >/dev/null 2>&1; then sh .ci/neutral-lock; fi
	@echo "installing the workspace into .venv/"
	@$(UV) sync --quiet --all-packages --python $${UV_PYTHON:-$(PYTHON)}
	@if git rev-parse --git-dir >/dev/null 2>&1; then \
		git add uv.lock; \
		git diff --cached --quiet -- uv.lock || echo "note: uv.lock resolved to other versions than the committed ones: git diff --cached uv.lock shows them"; \
	fi
	@touch $(SETUP)

$(STUDIES): $(SETUP) ## run a study; PRESET=tiny|small|paper ARGS="--seeds 13,14 train.lr=1e-4"
	@$(BIN)/$@ run --preset $(PRESET) $(ARGS)

record: $(SETUP) ## run the studies' records (five seeds, controls) into studies/*/results
	@for s in $(STUDIES); do \
		case $$s in drift-dpo|orth-refusal) controls=--controls ;; *) controls= ;; esac; \
		$(BIN)/$$s run --preset tiny --seeds $(RECORD_SEEDS) $$controls || exit 1; \
		$(BIN)/$$s record studies/$$s/results --preset tiny $$controls || exit 1; \
	done

report: $(SETUP) ## one page over all runs
	@$(BIN)/alignment-core report runs

organism: $(SETUP) ## rebuild the default embedded model from its recipe into build/organism-s1
	@$(BIN)/alignment-core organism build

selfcheck: $(SETUP) ## does the instrument find a planted effect, and nothing where nothing is?
	@$(BIN)/alignment-core selfcheck

test: $(SETUP) ## the quick tests, one process a core
	@$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test-all: $(SETUP) ## every test, the long ones too
	@$(BIN)/pytest -m "not gpu"

lint: $(SETUP) ## ruff and the import rules
	@$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/lint-imports

types: $(SETUP) ## type check
	@$(BIN)/mypy

format: $(SETUP) ## format the code
	@$(BIN)/ruff check --fix && $(BIN)/ruff format

wheels: $(SETUP) ## build the wheels into dist/
	@$(UV) build --quiet --all-packages --wheel && ls dist/*.whl

lowest: $(SETUP) ## the quick tests on the oldest versions the packages take, installed in build/lowest
	@$(UV) venv --quiet --clear --python $${UV_PYTHON:-$(PYTHON)} build/lowest
	@$(UV) pip install --quiet --python build/lowest --resolution lowest-direct ./shared $(addprefix ./packages/,$(STUDIES)) --group dev
	@for t in shared/tests $(addprefix packages/,$(STUDIES)); do echo "== $$t"; build/lowest/bin/pytest -q $$t || exit 1; done

bench: $(SETUP) ## the benchmarks: ratios measured side by side
	@for b in tests/benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

bench-refusal: $(SETUP) ## the refusal rules against the public lists: LABELS=file.jsonl
	@$(BIN)/python tests/benchmarks/bench_refusal.py --labels "$(LABELS)"

mutants: $(SETUP) ## change each estimand, one at a time: does a quick test notice? ARGS="--study drift-dpo"; writes docs/mutants.md
	@$(BIN)/python tests/mutants/run.py $(ARGS)

guarantees: $(SETUP) ## try every promise (kills, damaged inputs, hostile texts, tests; an hour) and write docs/guarantees.md
	@for part in inputs loads texts promises kills; do $(BIN)/python tests/campaign/$$part.py || failed=1; done; \
		$(BIN)/python tests/campaign/guarantees.py && test -z "$$failed"

clean: ## remove what the targets built (not runs/)
	rm -rf .venv .uv dist build
