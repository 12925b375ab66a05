#!/usr/bin/env bash
# OpenCV 5.0.0 (opencv-contrib-python-headless 5.0.0.93): Selective Search draws a part of its order from rand()
# of the C library. Two calls on one image in one process give the same boxes in another order, and
# cv2.setRNGSeed changes nothing; srand() of the C library does. The first 2,000 boxes of an image,
# which detectors take, depend on how many images came before it.
#
# Output seen:
#     the same boxes: True; the same order: as it is False, after setRNGSeed(1) False, after srand(1) True
#
# In ssl-bench: evaluation/detection/selective_search.py; tests/test_make_proposals.py.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opencv-contrib-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - << 'PYTHON'
import ctypes

import cv2
import numpy as np

picture = np.full((120, 160, 3), 230, np.uint8)
for x in range(10, 150, 30):
    picture[20 : 20 + x // 2, x : x + 20] = (x, 255 - x, 30)


def search():
    searching = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    searching.setBaseImage(picture)
    searching.switchToSelectiveSearchFast()
    return searching.process().tolist()


def twice(seed):
    found = []
    for _ in range(2):
        seed()
        found.append(search())
    return found


plain, seeded, by_c = map(twice, (lambda: None, lambda: cv2.setRNGSeed(1), lambda: ctypes.CDLL(None).srand(1)))
same = [first == second for first, second in (plain, seeded, by_c)]
alike = sorted(plain[0]) == sorted(plain[1])
print(f"the same boxes: {alike}; the same order: as it is {same[0]},", end=" ")
print(f"after setRNGSeed(1) {same[1]}, after srand(1) {same[2]}")
assert alike and same == [False, False, True]
PYTHON
