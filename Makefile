# Two commands on a fresh machine: `make demo` and `make test`. Everything else is for people who change the code.
PY := .venv/bin/python
PACKAGES := opsexec agent bottle
# The unit tests need no network but a loopback of their own, and have no other where the kernel lets us make one.
OFFLINE := $(shell for own in -n -rn; do unshare $$own ip link set lo up 2>/dev/null && echo unshare $$own scripts/with_loopback.sh && break; done)

.PHONY: help setup setup-tests demo demo-picture test check format bench docs lock

help:
	@echo 'make demo    set up, then run the main job over three SSH hosts of its own on loopback, and a bottle'
	@echo 'make test    set up, then run every test (REQUIRE_ALL=1: a missing part fails instead of skipping)'
	@echo 'make check   lint, format check, strict types, import contracts'
	@echo 'make bench   benchmarks beside the peers; JSON to bench/results/ (BENCH="--quick --only ROW")'
	@echo 'make bench-bottles  start, egress and git gate of bottles beside their floors'
	@echo 'make docs    write the generated parts of the documents, then check links, blocks and tables'
	@echo 'make format  rewrite the code in the project'"'"'s format'
	@echo 'make lock    resolve the requirements again from pyproject.toml'

setup:
	@scripts/setup.sh

setup-tests:
	@scripts/setup.sh --tests

demo: setup
	@$(PY) -m demo
	@$(PY) -m bottle demo

# README's picture, drawn from a recording of the bottle's demo.
demo-picture: setup
	@$(PY) scripts/draw_demo.py --record

# Two at a time; of the tests that start real servers a file stays on one worker, so that its parts are started once.
# Every folder is run even after a failure, and any failure fails the target. It writes docs/attack-results.md.
test: setup-tests
	@status=0; \
	export ATTACK_RESULTS=1; \
	$(OFFLINE) $(PY) -m pytest -q -n 2 tests/unit || status=$$?; \
	serial="$$(find tests/integration tests/adversarial -name 'test_*.py' -print 2>/dev/null | head -n 1)"; \
	if [ -n "$$serial" ]; then \
		$(PY) -m pytest -q -n 2 --dist loadfile $(wildcard tests/integration tests/adversarial) || status=$$?; \
	fi; \
	exit $$status

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(PACKAGES)
	$(PY) -m mypy tests demo
	.venv/bin/lint-imports

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup
	@$(PY) -m bench $(BENCH)

bench-bottles: setup-tests
	@$(PY) -m bench.bottles

# Writes what is generated, then reads every document: links, headings, blocks that are run, tables that repeat the code.
docs: setup
	@$(PY) scripts/write_readme_help.py
	@$(PY) -m opsexec.cli.reference > docs/cli.md.new && mv docs/cli.md.new docs/cli.md
	@$(PY) -m agent schema > schema.new && mv schema.new opsexec/agent_config_schema.json
	@$(PY) -m agent.services.catalogue > docs/doctor-checks.md.new && mv docs/doctor-checks.md.new docs/doctor-checks.md
	@$(PY) scripts/check_links.py
	@$(PY) -m pytest -q tests/unit/test_docs.py tests/unit/test_docs_capabilities.py tests/unit/test_docs_executors.py tests/unit/test_runbook_docs.py

# No index address and no local wheel folder may reach the lock: it must install from whatever registry a machine has.
lock: setup
	$(PY) -m piptools compile -q --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--extra agent --extra bottle --extra dev -o requirements/dev.txt pyproject.toml
	$(PY) -m piptools compile -q --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--extra agent --extra bottle -c requirements/dev.txt -o requirements/run.txt pyproject.toml requirements/build.in
	$(PY) -m piptools compile -q --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		-o requirements/egress.txt requirements/egress.in
