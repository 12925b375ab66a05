# The scaling study of `make scaling`: curves over images, network and |P|, at fixed image visits.
# One rule a point, so that `make -j` works and a stopped study goes on; the points are in an order in
# which all that is made so far draws every curve: first the ends of each, then between, then seeds.
#
# HOURS of 2 cores decide the image visits of a point. PHOTOS is a folder of photographs to pre-train
# on instead of the scenes; VOC a VOC2007 folder to measure on instead of the scenes.

HOURS ?= 2
PHOTOS ?=
VOC ?=
PER_HOUR ?= 1600# visits of each point; measured on 2 cores, benchmarks/RESULTS.md
BATCH ?= 32
LAYERS ?= conv3 conv5
SEEDS ?= 1 2# more seeds, at the ends of the curves
VISITS := $(shell awk 'BEGIN { print int($(HOURS) * $(PER_HOUR) / $(BATCH)) * $(BATCH) }')
STEPS := $(shell echo $$(($(VISITS) / $(BATCH))))
POOL := $(if $(PHOTOS),photos,scenes)
TEST_SET := $(if $(VOC),voc2007,scenes)
D ?= build/scaling/$(POOL)-$(TEST_SET)-$(VISITS)
HARDWARE := $(shell nproc) x $(shell awk -F ': ' '/^model name/ { print $$2; exit }' /proc/cpuinfo)

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:

# ---- The points: pretext.network.|P|.part of the images.seed --------------------------------------
# Parts are eighths of the images: 1, 2, 4, 8.

jigsaw = $(foreach n,$(1),$(foreach a,alexnet alexnet-half,$(foreach p,20 200,jigsaw.$(a).$(p).$(n).$(2))))
colour = $(foreach n,$(1),colorization.alexnet-half.10.$(n).$(2))
untrained = $(foreach a,alexnet alexnet-half alexnet-half-lab,random.$(a).0.0.$(1))
ENDS := 8 1
POINTS := $(call jigsaw,$(ENDS),0) $(call untrained,0) $(call colour,$(ENDS),0) \
	$(call jigsaw,2 4,0) $(call colour,4,0) \
	$(foreach s,$(SEEDS),$(call jigsaw,$(ENDS),$(s)) $(call colour,$(ENDS),$(s)) $(call untrained,$(s)))

.PHONY: all page
all: $(POINTS:%=$(D)/%.jsonl)

page: # what there is so far
	cat $(wildcard $(POINTS:%=$(D)/%.jsonl)) > $(D)/results.jsonl
	report $(D)/results.jsonl --html $(D)/report.html -o $(D)/table.md
	fit-scaling $(D)/results.jsonl > $(D)/fits.jsonl

# ---- The images: nested samples of a fixed order -------------------------------------------------

$(D)/scenes.tsv:
	mkdir -p $(D)
	rm -rf $(D)/scenes
	make-scenes -q -n 1200 --seed 20 -o $(D)/scenes > $@

$(D)/train.tsv: $(if $(VOC),,$(D)/scenes.tsv)
	mkdir -p $(D)
	list-images -q voc $(or $(VOC),$(D)/scenes) --split trainval $(if $(VOC),,| sed -n '1,300p') > $@

$(D)/test.tsv: $(if $(VOC),,$(D)/scenes.tsv)
	mkdir -p $(D)
	list-images -q voc $(or $(VOC),$(D)/scenes) --split test $(if $(VOC),,| sed -n '1,300p') > $@

$(D)/$(POOL).tsv.all: $(if $(PHOTOS),,$(D)/scenes.tsv)
	mkdir -p $(D)
	$(if $(PHOTOS),find $(PHOTOS) -name '*.jpg' | LC_ALL=C sort,\
		list-images -q voc $(D)/scenes --split trainval | cut -f 1) \
		| shuf --random-source=<(yes ssl-bench) > $@

# Of 600 scenes: scenes-75.tsv and so on are called after their number, part-1.tsv points to them.
$(D)/part-%.tsv: $(D)/$(POOL).tsv.all
	all=$$(wc -l < $<); n=$$((all * $* / 8)); \
	sed -n "1,$${n}p" $< > $(D)/$(POOL)-$$n.tsv; ln -sf $(POOL)-$$n.tsv $@

$(D)/prior.npz: $(D)/$(POOL).tsv.all
	make-color-bins -q --prior-only $< -o $@

$(D)/p%.npy:
	mkdir -p $(D)
	make-permutations -q -n $* -o $@

# ---- A network -----------------------------------------------------------------------------------

part = $(word $(1),$(subst ., ,$*))

$(D)/jigsaw.%.pt: $(D)/p20.npy $(D)/p200.npy $(foreach n,1 2 4 8,$(D)/part-$(n).tsv)
	pretrain -q jigsaw $(D)/$$(readlink $(D)/part-$(call part,3).tsv) --arch $(call part,1) \
		--permutations $(D)/p$(call part,2).npy $(call train,$(call part,4))

$(D)/colorization.%.pt: $(D)/prior.npz $(foreach n,1 2 4 8,$(D)/part-$(n).tsv)
	pretrain -q colorization $(D)/$$(readlink $(D)/part-$(call part,3).tsv) --arch $(call part,1) \
		--bins $(D)/prior.npz --neighbors $(call part,2) --lr 2e-4 $(call train,$(call part,4))

train = --batch $(BATCH) --iterations $(STEPS) --seed $(1) -o $@ > $(@:.pt=.log.jsonl)

# ---- What its features are worth: an SVM a class on each layer, with an interval -----------------

$(D)/random.%.jsonl: $(D)/train.tsv $(D)/test.tsv
	$(call measure,random:$(call part,1),$(call part,4),)

# The hours are the log's: visits of each stretch over its images per second.
$(D)/%.jsonl: $(D)/%.pt $(D)/train.tsv $(D)/test.tsv
	hours=$$(awk -F '[:,]' '/"time_images_per_second"/ { for (i = 1; i < NF; i++) { \
		if ($$i ~ /"step"/) step = $$(i + 1); if ($$i ~ /images_per_second/) rate = $$(i + 1) } \
		if (rate > 0) sum += (step - last) * $(BATCH) / rate; last = step } \
		END { printf "%.4f", sum / 3600 }' $(D)/$*.log.jsonl); \
	$(call measure,$(D)/$*.pt,0,--tag steps=$(STEPS) --tag batch=$(BATCH) --tag hours=$$hours \
		--tag 'hardware=$(HARDWARE)')

define measure
set -e; mkdir -p $(D)/$*.features; \
for set in train test; do extract-features -q $(1) $(D)/$$set.tsv --seed $(2) \
	$(LAYERS:%=--layer %) -o $(D)/$*.features/$$set/; done; \
for layer in $(LAYERS); do \
	train-svm -q $(D)/$*.features/train/$$layer.npy $(D)/train.tsv -o $(D)/$*.features/$$layer.npz; \
	eval-svm -q --bootstrap 1000 $(D)/$*.features/$$layer.npz $(D)/$*.features/test/$$layer.npy \
		$(D)/test.tsv --tag data_set=$(TEST_SET) $(3); \
done > $(D)/$*.features/results; \
rm -rf $(D)/$*.features/train $(D)/$*.features/test; mv $(D)/$*.features/results $@
endef
