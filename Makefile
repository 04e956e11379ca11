# Everything a developer runs. Each target makes .venv and installs what it needs; python3 ≥ 3.11 is enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format bench docs clean

.venv/demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ccroute needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing ccroute and the embedded model server into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

.venv/dev: .venv/demo
	@echo "installing the test and lint tools into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv-bench/ready: pyproject.toml
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@echo "installing ccroute and its peers into .venv-bench …"
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench,bench-peers]'
	@touch $@

demo: .venv/demo
	@$(BIN)/python examples/orchestra.py

# What waits on sockets runs beside what computes: two processes, for two cores. A shell lets what it runs in
# the background ignore Ctrl-C, so that is the half that has no tests of it.
WAITS := tests/accounting/postgres tests/cli tests/faults tests/http tests/runtime tests/sdk tests/ollama tests/test_soak.py tests/test_llama.py
test: .venv/dev
	$(BIN)/coverage erase
	@PYTHONWARNINGS=default $(BIN)/coverage run -m pytest $(WAITS:%=--ignore=%) > .computes.log 2>&1 & computes=$$!; \
	PYTHONWARNINGS=default $(BIN)/coverage run -m pytest $(WAITS); waited=$$?; \
	wait $$computes; computed=$$?; cat .computes.log; rm -f .computes.log; exit $$((waited + computed))
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/path_length.py

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv-bench/ready
	.venv-bench/bin/python benchmarks/compare.py
	.venv-bench/bin/python benchmarks/fuzz.py
	.venv-bench/bin/python benchmarks/in_flight.py
	.venv-bench/bin/python benchmarks/kill.py
	.venv-bench/bin/python benchmarks/ledger.py
	.venv-bench/bin/python benchmarks/ledger.py --postgres
	.venv-bench/bin/python benchmarks/postgres_storm.py
	.venv-bench/bin/python benchmarks/soak.py
	.venv-bench/bin/python benchmarks/bill.py

# The docs are plain Markdown; making them means running every example they show.
docs: .venv/dev
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf .venv .venv-bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
