# make run | make test | make figures | make lab | make docs | make publish | make lint | make setup | make clean
# Needs python3 (3.11 or newer) and make. A first call makes a virtual environment in .venv; later ones find it.
# With an active environment (conda or other) in which this very folder is installed, that one is used and .venv is not made.
.DELETE_ON_ERROR:
.PHONY: help run test figures docs publish lint format lab setup clean

PYTHON ?= python3
ARGS ?=
export HF_HUB_OFFLINE ?= 1
export TRANSFORMERS_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

# the folder that the active `python` imports mipnb from, if it is this one
ACTIVE := $(shell python -I -c 'import pathlib, mipnb; print(pathlib.Path(mipnb.__file__).resolve().parents[1])' 2>/dev/null)
ifeq ($(ACTIVE),$(realpath .))
  BIN := $(dir $(shell python -I -c 'import sys; print(sys.executable)'))
  READY := $(if $(filter $(CURDIR)/.venv/bin/,$(BIN)),.venv/ready)
else
  BIN := $(CURDIR)/.venv/bin/
  READY := .venv/ready
endif

help:
	@sed -n '1,3s/^# //p' Makefile

run: $(READY)
	@"$(BIN)mipnb" run $(ARGS)

test: $(READY)
	@"$(BIN)python" -m ruff check --quiet .
	@OMP_NUM_THREADS=1 "$(BIN)python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# every table and figure of the paper, into figures/
figures: $(READY)
	@"$(BIN)mipnb" figures $(ARGS)

# the documentation site, from the same notebooks and without a network: build/docs/index.html
docs: $(READY)
	@"$(BIN)python" -m sphinx -q -c docs -b html . build/docs
	@echo "build/docs/index.html"

# notebooks' outputs, figures/ and README's numbers from runs/pocket
publish: $(READY)
	@"$(BIN)mipnb" publish $(ARGS)

lint: $(READY)
	"$(BIN)python" -m ruff check .
	"$(BIN)python" -m ruff format --check .

format: $(READY)
	"$(BIN)python" -m ruff check --fix .
	"$(BIN)python" -m ruff format .

lab: $(READY)
	"$(BIN)jupyter" lab --notebook-dir=. notebooks/00_start_here.ipynb $(ARGS)

setup: $(READY)

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("mipnb needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "setting up .venv (once; a few minutes) ..."
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet "$$(grep '^torch==' requirements.lock)"
	@.venv/bin/python -m pip install --quiet -r requirements.lock
	@.venv/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -exec rm -rf {} +
	@echo "runs/ is kept; delete what you no longer need by hand"
