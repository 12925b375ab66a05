# Every target with `## text` after its name is listed by `make help`.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.SECONDARY:  # data that took hours is never an intermediate file

VENV ?= .venv
PYTHON ?= python3
STAMP := $(VENV)/.ssl-bench-installed
RUN := $(VENV)/bin
OUTSIDE := $(PATH)
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: help setup demo evidence bench test golden test-slow test-all lint clean voc07

help: ## List the targets.
	@awk -F ':.*## ' '/^# ----/ { print "" } /^[a-z0-9%.-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

setup: $(STAMP) ## Install in VENV (.venv) what the commands and the tests need; PYTHON= chooses.

$(STAMP): export PATH := $(OUTSIDE)
$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --editable '.[plot,coco,proposals,test]'
	touch $@

define measure
	extract-features $(1) demo/train.tsv --layer conv3 --layer conv5 -o demo/train/
	extract-features $(1) demo/test.tsv --layer conv3 --layer conv5 -o demo/test/
	train-svm demo/train/conv3.npy demo/train.tsv -o demo/conv3.npz
	train-svm demo/train/conv5.npy demo/train.tsv -o demo/conv5.npz
	eval-svm demo/conv3.npz demo/test/conv3.npy demo/test.tsv --tag data_set=scenes \
		>> demo/results.jsonl
	eval-svm demo/conv5.npz demo/test/conv5.npy demo/test.tsv --tag data_set=scenes \
		>> demo/results.jsonl
endef

demo: $(STAMP) ## The whole pipeline on 300 generated scenes, with a table and a plot (minutes).
	rm -rf demo
	mkdir demo
	make-permutations -n 20 > demo/p20.npy
	make-scenes -n 300 -o demo/scenes > demo/scenes.tsv
	list-images voc demo/scenes --split trainval > demo/train.tsv
	list-images voc demo/scenes --split test > demo/test.tsv
	pretrain jigsaw demo/train.tsv --permutations demo/p20.npy --batch 25 --epochs 12 \
		-o demo/jigsaw.pt > demo/jigsaw.log.jsonl
	$(call measure,random:alexnet)
	$(call measure,demo/jigsaw.pt)
	report demo/results.jsonl --plot demo/results.png
	@echo
	@echo "The table above is demo/results.jsonl, its plot demo/results.png. A minute of training on"
	@echo "150 small pictures shows that the commands run, not which network is better."

evidence: $(STAMP) ## Jigsaw against random on generated scenes, 3 seeds (20 minutes).
	benchmarks/evidence

bench: $(STAMP) ## Our speed, what else one would use, and their ratio (15 minutes; nothing else running).
	$(RUN)/python benchmarks/bench.py

golden: $(STAMP) ## Record anew what the commands write, tests/golden; read the difference.
	GOLDEN=record $(RUN)/python -m pytest -n auto tests/test_golden.py

test: $(STAMP) ## Run the tests, save the slow ones (minutes).
	$(RUN)/python -m pytest -n auto -m 'not slow'

test-slow: $(STAMP) ## Run the slow tests alone.
	$(RUN)/python -m pytest -n auto -m slow

test-all: $(STAMP) ## Run every test.
	$(RUN)/python -m pytest -n auto

lint: $(STAMP) ## Check the code, the man pages and the scripts.
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy ssl_common tools
	@command -v mandoc > /dev/null || \
		{ echo 'make lint: no mandoc: apt-get install mandoc' >&2; exit 1; }
	mandoc -Tlint -W warning man/*.[157]
	if command -v shellcheck > /dev/null; then shellcheck .ci/run benchmarks/evidence benchmarks/oldest; fi

clean: ## Remove the environment and what the tests and builds left.
	rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# ---- Data: examples of use, with what each costs -------------------------------------------------
#
# VOC is the VOC2007 folder of the PASCAL VOC 2007 devkit; MODEL is what extract-features takes. Each
# network has a folder of its own, voc07/NAME/. Times are of a machine with 2 cores.

VOC ?= VOCdevkit/VOC2007
MODEL ?= random:alexnet
K ?= 1,2,4,8,16,32,64,96
LISTING ?= yfcc100m_dataset.bz2
NAME = $(subst /,_,$(subst :,-,$(MODEL:.pt=)))
W = voc07/$(NAME)
FILE = $(wildcard $(MODEL))
LAYERS = $(shell cat $(W)/layers)

p%.npy: | $(STAMP) ## Jigsaw permutations: p100.npy, p2k.npy, p10k.npy (a second).
	make-permutations -n $(call number,$*) -o $@

yfcc-%.tsv: | $(STAMP) ## YFCC100M sample: yfcc-1m.tsv, yfcc-10m.tsv, yfcc-all.tsv, from LISTING=.
	sample-yfcc -n $(call number,$*) $(LISTING) -o $@

voc07: $(W)/layers ## VOC2007 by the paper's protocol for MODEL=, from VOC=: all layers, low-shot, report.
	$(MAKE) --no-print-directory $(W)/report.md
	@cat $(W)/report.md

$(W)/layers: $(FILE) | $(STAMP)
	mkdir -p $(W)
	extract-features $(MODEL) --show-layers | cut -f 1 | sed '/^pool/d' > $@

voc07/train.tsv: | $(STAMP)
	list-images voc $(VOC) --split trainval -o $@

voc07/test.tsv: | $(STAMP)
	list-images voc $(VOC) --split test -o $@

voc07/few.txt: voc07/train.tsv | $(STAMP)
	rm -rf voc07/few
	sample-low-shot $< -k $(K) -o voc07/few > $@

ifneq ($(wildcard $(W)/layers),)
$(LAYERS:%=$(W)/train/%.npy) &: voc07/train.tsv $(FILE) | $(STAMP)
	extract-features $(MODEL) $< $(LAYERS:%=--layer %) -o $(W)/train/

$(LAYERS:%=$(W)/test/%.npy) &: voc07/test.tsv $(FILE) | $(STAMP)
	extract-features $(MODEL) $< $(LAYERS:%=--layer %) -o $(W)/test/

$(W)/report.md: $(LAYERS:%=$(W)/%.jsonl) $(LAYERS:%=$(W)/few-%.jsonl) | $(STAMP)
	report $^ -o $@
endif

$(W)/%.npz: $(W)/train/%.npy voc07/train.tsv | $(STAMP)
	train-svm $^ -o $@

$(W)/%.jsonl: $(W)/%.npz $(W)/test/%.npy voc07/test.tsv | $(STAMP)
	eval-svm $^ --tag data_set=voc2007 -o $@

$(W)/few-%.npz: $(W)/train/%.npy voc07/train.tsv voc07/few.txt | $(STAMP)
	train-svm $< voc07/train.tsv --low-shot voc07/few -o $@

$(W)/few-%.jsonl: $(W)/few-%.npz $(W)/test/%.npy voc07/test.tsv $(W)/train/%.npy | $(STAMP)
	eval-svm $(wordlist 1,3,$^) --train-features $(W)/train/$*.npy --tag data_set=voc2007 -o $@

# 10k is 10000 and 1m is 1000000.
number = $(subst m,000000,$(subst k,000,$(1)))
