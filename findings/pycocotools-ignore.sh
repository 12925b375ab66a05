#!/usr/bin/env bash
# pycocotools 2.0.11: an annotation's `ignore`, which converters of PASCAL VOC write for difficult objects,
# has no effect. COCOeval overwrites it by `iscrowd`, in the annotations that it was given: a difficult object
# that is not found costs recall like any other. Nothing is said.
#
# Output seen, for one object that is found and one difficult one that is not:
#     AP50 with ignore: 0.505, with iscrowd: 1.000, without it: 1.000; ignore is 0 afterwards
#
# In ssl-bench: evaluation/detection/precision.py has the devkit's own rule; --coco gives difficult objects as
# crowds (tests/test_precision.py).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocotools==2.0.11 numpy==2.4.6
"$folder/venv/bin/python" - << 'PYTHON'
import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FOUND, DIFFICULT = [10, 10, 50, 50], [100, 100, 50, 50]


def ap50(*difficult):
    """Return (AP50, the annotations afterwards) where the second object is one with these flags."""
    objects = [(FOUND, {}), *((DIFFICULT, flags) for flags in difficult)]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": 2500, "iscrowd": 0, **flags}
            for n, (box, flags) in enumerate(objects, 1)
        ],
    }
    truth.createIndex()
    results = [{"image_id": 1, "category_id": 1, "bbox": FOUND, "score": 0.9}]
    judge = COCOeval(truth, truth.loadRes(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats[1], truth.dataset["annotations"]


with contextlib.redirect_stdout(io.StringIO()):
    ignored, after = ap50({"ignore": 1})
    crowd, _after = ap50({"iscrowd": 1})
    alone, _after = ap50()
print(f"AP50 with ignore: {ignored:.3f}, with iscrowd: {crowd:.3f}, without it: {alone:.3f};", end=" ")
print(f"ignore is {after[1]['ignore']} afterwards")
assert crowd == alone and alone - ignored > 0.4 and after[1]["ignore"] == 0
PYTHON
