# make setup | demo | test | lint | bench | lab | new NAME=<slug> | lock
# Every target sets up what it needs in .venv, from lock files with hashes; a second run installs nothing and works offline.

PYTHON ?= python3
BIN    := .venv/bin
PIP    := -m pip --disable-pip-version-check --no-input install --no-warn-script-location --require-hashes -r
RUN    := .venv/.run-installed
DEV    := .venv/.dev-installed
OLD    := .venv-old/.installed

# pip's own words, but only what is fetched and unpacked: one line each
define fetch
{ $(1)/bin/python $(PIP) $(2) || touch $(1)/.failed; } | grep --line-buffered -E '^ *(Downloading|Installing collected)' | cut -c 1-100; \
test ! -e $(1)/.failed || { rm $(1)/.failed; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench lab new lock clean

help:
	@sed -n 1,2p Makefile

setup: $(RUN)
demo: $(RUN)
	$(BIN)/mend demo
test: $(DEV) $(OLD)
	$(BIN)/python -m pytest -n 2 $(ARGS)
lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict lib/mend
	$(BIN)/nbstripout --keep-id --verify runbooks/*.ipynb
format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id runbooks/*.ipynb
bench: $(DEV)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/backfill.py $(ARGS)
	$(BIN)/python benchmarks/mismatch.py
lab: $(RUN)
	$(BIN)/mend lab list
new: $(RUN)
	@test -n "$(NAME)" || { echo "make new NAME=<slug>"; exit 1; }
	$(BIN)/python -m mend.command.homes $(NAME)

# Bytecode is compiled by name, because PYTHONDONTWRITEBYTECODE would leave every start slow.
.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "mend needs Python 3.11 or newer as $(PYTHON). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments. Install its venv module (on Debian: python3-venv)."; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

$(RUN): requirements.lock pyproject.toml | .venv/.made
	@echo "installing what mend needs (once) ..."
	@$(call fetch,.venv,requirements.lock)
	@$(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib lib || true
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	@echo "installing what the tests need (once) ..."
	@$(call fetch,.venv,requirements-dev.lock)
	@$(BIN)/python -m compileall -q -j 0 .venv/lib || true
	@touch $@

# A project's own old stack (Alembic 1.10, SQLAlchemy 1.4, psycopg2), which the tests run histories with.
$(OLD): requirements-old.lock | .venv/.made
	@echo "installing the old stack of the tests (once) ..."
	@$(PYTHON) -m venv .venv-old
	@$(call fetch,.venv-old,$<)
	@.venv-old/bin/python -m compileall -q -j 0 .venv-old/lib || true
	@touch $@

# After a change of pyproject.toml; needs uv. The locks hold hashes and no addresses.
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	$(LOCK) --group build -o requirements.lock
	$(LOCK) --group dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf .venv .venv-old
