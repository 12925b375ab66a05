#!/usr/bin/env bash
# pycocotools 2.0.11 and faster-coco-eval 1.8.0: an object whose annotation has the id 0 counts as never found.
# A match is remembered by the id of the object, and 0 stands for none. Nothing is said.
#
# Output seen, for one object that is found:
#     pycocotools: AP 0.00 with the id 0, 1.00 with the id 1
#     faster_coco_eval: AP 0.00 with the id 0, 1.00 with the id 1
#
# In ssl-bench: evaluation/detection/scoring.py counts from 1.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
"$folder/venv/bin/python" - << 'PYTHON'
import contextlib
import copy
import io

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

BOX = [10, 10, 50, 50]
CONTENT = {
    "images": [{"id": 1, "width": 200, "height": 200}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": BOX, "area": 2500, "iscrowd": 0}],
}


def ap(data_set, judging, number):
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        truth = data_set()
        truth.dataset = content
        truth.createIndex()
        results = [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}]
        judge = judging(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0]


for name, parts in {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster_coco_eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}.items():
    zero, one = (ap(*parts, number) for number in (0, 1))
    print(f"{name}: AP {zero:.2f} with the id 0, {one:.2f} with the id 1")
    assert zero == 0 and one > 0.99
PYTHON
