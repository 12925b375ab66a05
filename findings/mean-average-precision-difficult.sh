#!/usr/bin/env bash
# mean-average-precision 2024.1.5.0: an object whose column `difficult` is 1 counts like any other as one that
# has to be found, although detections of it are left out, as PASCAL VOC has it. So difficult objects
# cost recall, found or not.
#
# Output seen, for one object that is found and one difficult one:
#     AP50 of VOC, difficult missed: 0.545, found: 0.545, without it: 1.000
#
# In ssl-bench: evaluation/detection/precision.py; tests/test_precision.py compares it with the devkit's rule
# written out, and with what the authors of a detector stored.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mean-average-precision==2024.1.5.0 numpy==2.4.6
"$folder/venv/bin/python" - << 'PYTHON'
import warnings

import numpy as np

warnings.simplefilter("ignore")
from mean_average_precision import MetricBuilder

# xmin, ymin, xmax, ymax, class, then difficult and crowd; or the score.
FOUND, DIFFICULT = [10, 10, 59, 59, 0], [100, 100, 149, 149, 0]


def ap50(objects, detections):
    judge = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=1)
    judge.add(np.array(detections, float), np.array(objects, float))
    eleven = np.arange(0, 1.1, 0.1)
    return judge.value(iou_thresholds=0.5, recall_thresholds=eleven)["mAP"]


both = [[*FOUND, 0, 0], [*DIFFICULT, 1, 0]]
missed = ap50(both, [[*FOUND, 0.9]])
found = ap50(both, [[*FOUND, 0.9], [*DIFFICULT, 0.8]])
alone = ap50(both[:1], [[*FOUND, 0.9]])
print(f"AP50 of VOC, difficult missed: {missed:.3f}, found: {found:.3f}, without it: {alone:.3f}")
assert alone == 1 and missed < 0.6 and found < 0.6
PYTHON
