# MatchLoop. `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup quick demo docs test fuzz check audit lock clean FORCE

# The stamp holds where the environment was made: one that was moved or copied is installed anew.
STAMP := .venv/.installed
HERE := $(shell pwd)
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(HERE))
$(STAMP): FORCE
endif

FUZZED := tests/integration/fuzz_api.py tests/unit/online_serving/test_fuzz.py tests/unit/streaming/test_hostile_log.py

help: ## List the targets
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z]*\):.*## /  \1|/p' Makefile | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'

setup: $(STAMP) ## Make .venv and install the locked versions (PYTHON=... chooses an interpreter)

$(STAMP): pyproject.toml infra/constraints.txt infra/install.sh
	@PYTHON='$(PYTHON)' sh infra/install.sh
	@pwd > $(STAMP)

quick: setup ## Start the playground on made-up data: no training, half a minute
	@.venv/bin/python -m infra.cli demo --quick $(ARGS)

demo: setup ## Run the whole loop on MovieLens-100K (ARGS="--keep" leaves it running)
	@.venv/bin/python -m infra.cli demo $(ARGS)

test: setup ## Run every test, a file to a core (ARGS="tests/unit -k fold" chooses some)
	@.venv/bin/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: setup ## Thousands of made-up requests, records and releases: nothing fails, nothing is answered that is not described
	@.venv/bin/python -m pytest -q --hypothesis-profile=fuzz $(FUZZED) $(ARGS)

check: setup ## Lint, formatting and types, and what is known against the locked versions
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy
	@sh infra/audit.sh || echo "Locked versions have known weaknesses: see above. make audit fails by them."

audit: setup ## Fail if anything is known against the locked versions (where PyPI answers)
	@sh infra/audit.sh

docs: setup ## Write the documentation to build/docs (every link is checked)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c infra/constraints.txt
	@.venv/bin/python -m mkdocs build --quiet --strict
	@echo "Open build/docs/index.html"

lock: setup ## Write the newest versions that fit pyproject.toml to infra/constraints.txt
	@sh infra/lock.sh

clean: ## Stop what runs here and remove everything that was made
	@if [ -x .venv/bin/python ]; then .venv/bin/python -m infra.cli down >/dev/null 2>&1 || true; fi
	@rm -rf .venv .matchloop build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
