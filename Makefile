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

.PHONY: help setup demo demo-detection demo-normals evidence scaling bench test golden test-slow test-all lint clean voc07

help: ## List the targets.
	@awk -F ':.*## ' '/^# ----/ { print "" } /^[a-z0-9%.-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

setup: $(STAMP) ## Install in VENV (.venv) what the commands and the tests need; PYTHON= chooses.

$(STAMP): export PATH := $(OUTSIDE)
$(STAMP): setup.py
	@echo 'Installing into $(VENV): this takes minutes'
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)/python -m pip install --quiet --editable '.[plot,coco,jpeg,proposals,timm,test]' || { \
		echo 'make setup: pip failed; this step alone needs the network, or PIP_INDEX_URL' >&2; \
		exit 1; }
	@touch $@

# Each step of the demo is a file: a rerun makes what is missing, and an interrupted one goes on.
demo: $(STAMP) ## A puzzle learned on generated scenes, a table and two pictures (3 minutes).
	@$(MAKE) --silent --no-print-directory demo/results.png demo/report.html
	@echo
	@report -q demo/random.jsonl demo/jigsaw.jsonl
	@echo
	@docs/demo-next

demo/p20.npy:
	@mkdir -p demo
	@echo '1. 20 ways to shuffle 9 tiles: the answers of the puzzle'
	@make-permutations -q -n 20 -o $@

demo/scenes.tsv: demo/p20.npy
	@echo '2. 600 scenes, drawn: half to learn from, half to measure on'
	@rm -rf demo/scenes
	@make-scenes -n 600 -o demo/scenes > $@

demo/train.tsv demo/test.tsv &: demo/scenes.tsv
	@list-images voc demo/scenes -q --split trainval -o demo/train.tsv
	@list-images voc demo/scenes -q --split test -o demo/test.tsv

demo/jigsaw.pt: demo/train.tsv demo/p20.npy
	@echo '3. AlexNet learns to name the shuffle; labels are not used (1 to 2 minutes)'
	@pretrain -q jigsaw $< --permutations demo/p20.npy --batch 25 --epochs 9 -o $@ \
		| tee demo/jigsaw.log.jsonl | docs/demo-bar

demo/jigsaw.jsonl: demo/jigsaw.pt demo/test.tsv demo/train.tsv
	$(call measure,$<,jigsaw)

demo/random.jsonl: demo/test.tsv demo/train.tsv
	$(call measure,random:alexnet,random)

# Features of both halves, an SVM for each class on each layer, their average precision.
define measure
@echo '4. What the features of $(1) are worth: a linear SVM for each class, on two layers'
@mkdir -p demo/$(2)
@extract-features $(1) demo/train.tsv --layer conv3 --layer conv5 -o demo/$(2)/train/
@extract-features $(1) demo/test.tsv --layer conv3 --layer conv5 -o demo/$(2)/test/
@train-svm -q demo/$(2)/train/conv3.npy demo/train.tsv -o demo/$(2)/conv3.npz
@train-svm -q demo/$(2)/train/conv5.npy demo/train.tsv -o demo/$(2)/conv5.npz
@for layer in conv3 conv5; do eval-svm -q --bootstrap 1000 demo/$(2)/$$layer.npz \
	demo/$(2)/test/$$layer.npy demo/test.tsv --tag data_set=scenes; done > $@
endef

demo/results.png: demo/jigsaw.jsonl demo/random.jsonl
	@echo '5. The plot, and puzzles of pictures that the network never saw'
	@report -q $^ --plot $@ > /dev/null

demo/puzzles.png: demo/jigsaw.pt demo/test.tsv
	@show-pretext -q jigsaw demo/jigsaw.pt $$(head -n 3 demo/test.tsv | cut -f 1) -o $@

demo/report.html: demo/random.jsonl demo/jigsaw.jsonl demo/puzzles.png
	@report -q demo/random.jsonl demo/jigsaw.jsonl --html $@ --log demo/jigsaw.log.jsonl \
		--picture demo/puzzles.png > /dev/null

# Detection on the same scenes: 100 to learn from, 50 to measure on, by Faster R-CNN with a small head.
demo-detection: $(STAMP) ## Boxes: Faster R-CNN on the untrained network and on the puzzle's (10 minutes).
	@$(MAKE) --no-print-directory demo/random-boxes.jsonl demo/boxes.png
	@echo
	@report -q demo/random-boxes.jsonl demo/jigsaw-boxes.jsonl
	@echo
	@echo 'demo/boxes.png: green boxes are right, red ones wrong, blue ones objects that were missed.'
	@echo 'One seed and a short training: the numbers do not tell which network is better.'

demo/boxes-%.jsonl: demo/scenes.tsv
	@list-objects -q voc demo/scenes --split $(if $(filter train,$*),trainval,test) \
		| sed -n '1,$(if $(filter train,$*),100,50)p' > $@

demo/random-boxes.pt: demo/boxes-train.jsonl
	$(call detector,random:alexnet)

demo/jigsaw-boxes.pt: demo/boxes-train.jsonl demo/jigsaw.pt
	$(call detector,demo/jigsaw.pt)

define detector
@echo 'A detector on $(1), which is frozen: its maps are kept, and its head learns from them'
@train-detector -q $(1) $< --head faster --size 160 --max-size 240 --fc 512 --cache demo/maps \
	--batch 4 --lr 0.005 --iterations 250 -o $@ > $(@:.pt=.log.jsonl)
endef

demo/%-boxes.jsonl: demo/%-boxes.pt demo/boxes-test.jsonl
	@echo 'What it finds in 50 other scenes, and how often it is right'
	@detect -q $^ -o demo/$*-found.jsonl
	@eval-detections -q demo/$*-found.jsonl demo/boxes-test.jsonl --tag data_set=scenes > $@

demo/boxes.png: demo/jigsaw-boxes.jsonl
	@show-detections -q demo/jigsaw-found.jsonl --objects demo/boxes-test.jsonl -o $@

# Normals on the same scenes, which are drawn with them: 120 to learn from, 50 to measure on.
demo-normals: $(STAMP) ## Surface normals: on the untrained network and on the puzzle's (5 minutes).
	@$(MAKE) --no-print-directory demo/random-normals.jsonl demo/normals.png
	@echo
	@report -q demo/random-normals.jsonl demo/jigsaw-normals.jsonl
	@echo
	@echo 'demo/normals.png: images, their normals, and those that the network on the puzzle predicts.'
	@echo 'Whether one has learned of the images is told above, beside one normal for all and the mean'
	@echo 'image. One seed and a short training: the numbers do not tell which network is better.'

demo/normals-%.tsv: demo/scenes.tsv demo/train.tsv demo/test.tsv
	@awk -F '\t' 'NR == FNR { if (FNR <= $(if $(filter train,$*),120,50)) part[$$1]; next } $$1 in part' \
		demo/$*.tsv demo/scenes/normals.tsv > $@

demo/random-normals.pt: demo/normals-train.tsv
	$(call normals,random:alexnet)

demo/jigsaw-normals.pt: demo/normals-train.tsv demo/jigsaw.pt
	$(call normals,demo/jigsaw.pt)

define normals
@echo 'A predictor of normals on $(1), which is frozen: its maps are kept, the rest learns from them'
@train-normals -q $(1) $< --sides 160 --test-side 160 --cache demo/maps --batch 8 --lr 0.02 \
	--iterations 150 -o $@ > $(@:.pt=.log.jsonl)
endef

demo/%-normals.jsonl: demo/%-normals.pt demo/normals-test.tsv
	@echo 'How far it is off in 50 other scenes; beside it what needs no network'
	@eval-normals $^ --ground-truth scenes --tag data_set=scenes > $@

demo/normals.png: demo/jigsaw-normals.jsonl
	@show-normals -q demo/jigsaw-normals.pt demo/normals-test.tsv -n 4 -o $@

evidence: $(STAMP) ## Pretexts, labels and no training compared on generated scenes, 3 seeds (40 minutes).
	benchmarks/evidence

scaling: $(STAMP) ## Curves over images, network and |P| (2 hours; HOURS=8, PHOTOS=folder, VOC=folder).
	@$(MAKE) --no-print-directory -f benchmarks/scaling.mk all
	@$(MAKE) --no-print-directory -f benchmarks/scaling.mk page

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
	if command -v shellcheck > /dev/null; then shellcheck .ci/run benchmarks/evidence benchmarks/navigation benchmarks/oldest docs/demo-*; fi

clean: ## Remove the environment, the demo, and what the tests and builds left.
	rm -rf $(VENV) demo build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache
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
