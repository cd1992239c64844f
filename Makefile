# One dial: SCALE=nano|smoke|mini|lab (default mini; paper is to come). Two commands need nothing before them:
#   make figures    trains, scores, distils and draws        make test    checks everything
# At lab, which takes hours, `make figures` redraws from the committed tables and `make recompute` trains.
SCALE  ?= mini
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/gracelib

.DEFAULT_GOAL := help
.PHONY: help setup figures recompute gallery notebooks test bench notebook clean clean-env

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
	$(RUN) figures --scale $(SCALE) $(if $(FIG),--fig "$(FIG)")

recompute: $(VENV)/.installed  ## train and score all of SCALE, also lab; PART=teachers for one part of it
	$(RUN) recompute --scale $(SCALE) $(if $(PART),--part "$(PART)")

gallery: $(VENV)/.installed  ## one HTML page with every figure of SCALE: build/gallery-SCALE.html
	$(RUN) gallery --scale $(SCALE)

notebooks: $(VENV)/.installed  ## the same at mini, and refresh the committed notebooks
	$(RUN) figures --scale mini --save

test: $(VENV)/.installed-test  ## unit tests, the pipeline at smoke scale, the committed notebooks
	$(BIN)/python -m pytest
	rm -rf build/figures && mkdir -p build && cp -r figures build/figures  # notebooks write figures: into a copy
	GRACELIB_FIGURES=$(CURDIR)/build/figures $(BIN)/python -m pytest -p no:cacheprovider --nbval --nbval-kernel-name=python3 notebooks

bench: $(VENV)/.installed  ## time the features against forward + backward + one matrix product
	$(BIN)/python -m gracelib.bench

notebook: $(VENV)/.installed  ## open JupyterLab in the environment
	$(BIN)/jupyter lab --notebook-dir notebooks

clean:  ## remove generated files: runs/, caches (committed figures and the environment stay)
	rm -rf runs build .pytest_cache .hypothesis *.egg-info
	find gracelib tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

clean-env: clean  ## remove the environment too
	rm -rf $(VENV)
