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

.PHONY: help setup demo evidence bench test test-slow test-all lint clean voc07-features

help: ## List the targets.
	@awk -F ':.*## ' '/^# ----/ { print "" } /^[a-z0-9%.-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

setup: $(STAMP) ## Install in VENV (.venv) what the commands and the tests need; PYTHON= chooses.

$(STAMP): export PATH := $(OUTSIDE)
$(STAMP): setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --editable '.[plot,test]'
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

bench: $(STAMP) ## Our speed, what else one would use, and their ratio (10 minutes; nothing else running).
	$(RUN)/python benchmarks/bench.py

test: $(STAMP) ## Run the tests, save the slow ones (minutes).
	$(RUN)/python -m pytest -n auto -m 'not slow'

test-slow: $(STAMP) ## Run the slow tests alone.
	$(RUN)/python -m pytest -n auto -m slow

test-all: $(STAMP) ## Run every test.
	$(RUN)/python -m pytest -n auto

lint: $(STAMP) ## Check the code, the man pages and the scripts.
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	@command -v mandoc > /dev/null || \
		{ echo 'make lint: no mandoc: apt-get install mandoc' >&2; exit 1; }
	mandoc -Tlint -W warning man/*.[157]
	if command -v shellcheck > /dev/null; then shellcheck .ci/run benchmarks/evidence; fi

clean: ## Remove the environment and what the tests and builds left.
	rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# ---- Data: examples of use, with what each costs -------------------------------------------------
#
# VOC is the VOC2007 folder of the PASCAL VOC 2007 devkit, MODEL a network of pretrain or
# random:alexnet. Times are of a machine with 2 cores.

VOC ?= VOCdevkit/VOC2007
MODEL ?= random:alexnet
LAYERS ?= conv1 conv2 conv3 conv4 conv5
LISTING ?= yfcc100m_dataset.bz2

p%.npy: | $(STAMP) ## Jigsaw permutations: p100.npy, p2k.npy, p10k.npy (a second).
	make-permutations -n $(call number,$*) -o $@

yfcc-%.tsv: | $(STAMP) ## YFCC100M sample: yfcc-1m.tsv, yfcc-10m.tsv (an hour: LISTING has 100 M lines).
	sample-yfcc -n $(call number,$*) $(LISTING) -o $@

voc07-train.tsv: | $(STAMP) ## VOC2007 trainval with its labels, from VOC= (a second).
	list-images voc $(VOC) --split trainval -o $@

voc07-test.tsv: | $(STAMP) ## VOC2007 test with its labels (a second).
	list-images voc $(VOC) --split test -o $@

voc07-features: $(LAYERS:%=voc07-train/%.npy) $(LAYERS:%=voc07-test/%.npy) ## Features of MODEL=, all LAYERS in one pass (15 min, 2 GB).

$(LAYERS:%=voc07-train/%.npy) &: voc07-train.tsv | $(STAMP)
	extract-features $(MODEL) $< $(LAYERS:%=--layer %) -o voc07-train/

$(LAYERS:%=voc07-test/%.npy) &: voc07-test.tsv | $(STAMP)
	extract-features $(MODEL) $< $(LAYERS:%=--layer %) -o voc07-test/

voc07-%.npz: voc07-train/%.npy voc07-train.tsv | $(STAMP) ## One linear SVM a class (minutes to hours).
	train-svm $^ -o $@

voc07-%.jsonl: voc07-%.npz voc07-test/%.npy voc07-test.tsv | $(STAMP) ## Its average precision (seconds).
	eval-svm $^ -o $@

voc07.md: $(LAYERS:%=voc07-%.jsonl) | $(STAMP) ## The table of all five layers.
	report $^ -o $@

# 10k is 10000 and 1m is 1000000.
number = $(subst m,000000,$(subst k,000,$(1)))
