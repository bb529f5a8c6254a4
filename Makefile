# Two commands do everything: `make reproduce` runs the suite on the embedded model, `make test` runs the tests.
# On a machine without a GPU, PyPI's torch brings CUDA libraries along; this avoids the download:
#   make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
REPRODUCE_ARGS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: reproduce test lab lint embedded clean-venv

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; choose one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# make reproduce SEEDS=1 runs one seed of each row; make reproduce NAME=mine writes outputs/mine.
reproduce: $(INSTALLED)
	$(BIN)/mule reproduce $(if $(SEEDS),--seeds $(SEEDS)) $(if $(NAME),--name $(NAME)) $(REPRODUCE_ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Trains the embedded model and its gold reference again from nothing (its stages took about 45 minutes on 2 cores) into build/embedded.
embedded: $(INSTALLED)
	$(BIN)/mule train-embedded

clean-venv:
	rm -rf $(VENV)
