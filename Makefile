# `make`: set up, then the paper's headline: train math_mini_14 in full, evaluate and plot it.
# `make test`: set up, then run the tests. `make test-faults`: kill runs at random and fill disks, for minutes.

PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: all test test-faults
all: .venv/installed
	$(VENV) data/as_math/prepare.py
	$(VENV) train_with_eval.py config/train_math_mini_14.py
	$(VENV) eval_as_math.py --out_dir=math_mini_14
	$(VENV) plot_results.py --model_folder math_mini_14

test: .venv/installed-dev
	$(VENV) -m pytest

test-faults: .venv/installed-dev
	$(VENV) -m pytest -m faults -s

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(VENV) -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(VENV) -m pip install --quiet -r requirements-dev.txt
	touch $@
