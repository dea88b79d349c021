# `make`: set up (which downloads PyTorch first), then train math_mini_14 in full, evaluate it and plot it: about a minute.
# `make test`: set up, check the style and run all tests. `make test-fast`: those that together take about a minute.
# `make test-faults`: kill runs at random and fill disks (minutes). `make bench`: measure the speed on this machine.
# `make paper`: train the paper's runs with several seeds (hours). `make study`: train those of the first study (a day),
# and `make why` those of the second (some 27 hours of one core). `make mlt`: train the paper's large model on arithmetic,
# 30,000 iterations of 1.3 s on two cores of an Intel with AMX, which is a night. All continue where they were if you stop
# them and run them again. `make results`: write the tables and figures of the runs so far into results/.
# `make study-data`: write the datasets of the studies. `make pictures`: draw the pictures of results/ anew from the runs
# there. `make pictures-data`: copy these runs from sweeps/paper.

PYTHON ?= python3
VENV := .venv/bin/python
SUMS := $(foreach size,14 28 56,config/train_math_mini_$(size).py)
FACTS := $(foreach kind,facts both,$(foreach size,14 28 56,config/train_$(kind)_mini_$(size).py))
PICTURED := math_mini_14 math_mini_28 math_mini_56
STUDY := $(VENV) sweep.py config/train_math_mini_14.py --seeds=8

.PHONY: all test test-fast test-faults paper mlt study-data study why results bench pictures pictures-data
all: .venv/installed
	$(VENV) data/as_math/prepare.py
	$(VENV) train_with_eval.py config/train_math_mini_14.py
	$(VENV) eval_as_math.py --out_dir=math_mini_14
	$(VENV) plot_results.py --model_folder math_mini_14

test: .venv/installed-dev
	$(VENV) -m ruff check .
	$(VENV) -m pytest -n auto --dist loadfile

test-fast: .venv/installed-dev
	$(VENV) -m pytest -n auto --dist loadfile -m "not slow and not faults"

test-faults: .venv/installed-dev
	bash -o pipefail -c '$(VENV) -m pytest -m faults -s | tee faults.log'
	grep -E '^(SIG|full disk|truncated|meta.pkl|ckpt.pt|answers)' faults.log > results/faults.txt

paper: .venv/installed-dev
	for dataset in as_math facts_char both_math_and_facts; do $(VENV) data/$$dataset/prepare.py || exit 1; done
	status=0; \
	$(VENV) sweep.py $(SUMS) --seeds=10 --name=paper || status=1; \
	$(VENV) sweep.py $(FACTS) --seeds=5 --name=paper || status=1; \
	$(VENV) sweep.py $(SUMS) $(FACTS) --seeds=5 --name=weight_decay --weight_decay=0.1 || status=1; exit $$status
	$(MAKE) results

mlt: .venv/installed-dev
	$(VENV) data/as_math/prepare.py
	$(VENV) sweep.py config/train_math_mini_mlt.py --name=mlt --seeds=1 --jobs=1 --dtype=bfloat16
	$(MAKE) results

study-data: .venv/installed
	$(VENV) study/datasets.py

study: .venv/installed-dev study-data
	status=0; \
	$(STUDY) --name=study --n_embd=6,8,10,12,14,20,28,56 \
	  --dataset=pair_{seed},rounds_1_{seed},rounds_2_{seed},rounds_3_{seed},rounds_5_{seed} || status=1; \
	$(STUDY) --name=study_orders --n_embd=14,28,56 --dataset=orders_{seed} --eval_iters=10 || status=1; \
	$(STUDY) --name=study_decay --n_embd=14,28,56 --weight_decay=0.1,1.0 --dataset=rounds_2_{seed} || status=1; \
	$(STUDY) --name=study_random --n_embd=6,8,10,12,14,20,28,56 --dataset=random_{seed} || status=1; exit $$status
	$(MAKE) results

why: .venv/installed-dev study-data
	bash study/why.sh
	$(MAKE) results

results: .venv/installed-dev
	for name in paper weight_decay mlt study study_orders study_decay study_random; do \
	  ls sweeps/$$name/*/seed_*/results.csv > /dev/null 2>&1 || continue; \
	  $(VENV) summarize.py sweeps/$$name --output=results/$$name || exit 1; \
	done
	for name in paper weight_decay; do \
	  $(VENV) plot_results.py --sweep results/$$name && $(VENV) paper/table.py results/$$name || exit 1; \
	done
	$(VENV) paper/authors.py
	for study in widths why; do \
	  $(VENV) study/$$study.py && $(VENV) study/$$study.py --markdown > study/tables.tmp || exit 1; \
	  mv study/tables.tmp study/$${study}_tables.md; \
	done

pictures: .venv/installed
	$(VENV) eval_as_math.py --out_dir=results/math_mini_14 --plot > results/math_mini_14/report.txt
	$(VENV) eval_capitals.py --out_dir=results/facts_mini_14 --plot
	for run in $(PICTURED); do $(VENV) plot_model.py --out_dir=results/$$run || exit 1; done
	$(VENV) plot_results.py --model_folder results/math_mini_14
	$(VENV) plot_results.py --overlay --model_folder $(PICTURED:%=results/%) --output=results/widths.png
	$(VENV) plot_results.py --answers --model_folder $(PICTURED:%=results/%) --output=results/answers.png
	$(VENV) plot_results.py --film --model_folder results/math_mini_14 results/math_mini_28 --output=results/film.gif
	$(VENV) explore.py $(PICTURED:%=results/%) --output=results/explore.html

pictures-data: .venv/installed
	for run in $(PICTURED) facts_mini_14; do \
	  from=sweeps/paper/$$run/seed_1337; mkdir -p results/$$run && cp $$from/results.csv $$from/meta.pkl results/$$run && \
	  gzip -cd $$from/answers.csv.gz | gzip -9n > results/$$run/answers.csv.gz && \
	  $(VENV) -c "import torch; c = torch.load('$$from/ckpt.pt', weights_only=True); \
	    torch.save({key: c[key] for key in ('model', 'model_args', 'config', 'iter_num')}, 'results/$$run/ckpt.pt')" || exit 1; \
	done

bench: .venv/installed-dev
	for dataset in as_math both_math_and_facts; do $(VENV) data/$$dataset/prepare.py; done
	$(VENV) dev/bench.py --json results/bench.json

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(VENV) -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(VENV) -m pip install --quiet -r requirements-dev.txt
	touch $@
