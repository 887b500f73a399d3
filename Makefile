# make demo   sets up .venv and runs the main job on real data
# make test   sets up .venv and runs the tests; test-all the slow ones too, soak those of half an hour
# make bench-extract, bench-store, bench-plan, bench-heads, bench-experiments, bench-wall, bench-depth, bench-answers,
#   bench-tasks   measure, and print what the README quotes
PYTHON ?= python3
BIN := .venv/bin

BENCHES := bench-extract bench-store bench-plan bench-heads bench-experiments bench-wall bench-depth bench-answers bench-tasks

.PHONY: demo test test-all soak lint clean $(BENCHES)

demo: .venv/.demo
	$(BIN)/headstart run flows/studies/solar.toml

test: .venv/.test
	$(BIN)/python -m pytest -m "not slow and not soak"

test-all: .venv/.acceptance
	$(BIN)/python -m pytest -m "not soak"

soak: .venv/.test
	$(BIN)/python -m pytest -m soak -s

$(BENCHES): bench-%: .venv/.test .venv/.demo
	$(BIN)/python tests/benchmarks/bench_$*.py

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# .venv/.demo, .venv/.test, .venv/.dev: the extra of that name is installed
.venv/.%: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv artifacts/features artifacts/engines artifacts/heads artifacts/checkpoints artifacts/results artifacts/samples artifacts/studies artifacts/seen.sqlite
