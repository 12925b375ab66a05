"""The plan of `make scaling`: its points, their order and their image visits."""

import re
import shutil
import subprocess
from collections import Counter

import pytest
from conftest import CHECKOUT, environment


def plan(*words):
    """Return [(pretext, network, hardness, part, seed)] in order, and the visits of each."""
    done = subprocess.run(
        ["make", "-n", "-f", "benchmarks/scaling.mk", "all", "D=/nonexistent/d", *words],
        cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    text = done.stdout.replace("\\\n", " ")
    found = re.findall(
        r"--batch (\d+) --iterations (\d+) --seed (\d+) -o /nonexistent/d/(\S+)\.pt", text
    )
    points, visits = [], set()
    for batch, steps, seed, name in found:
        pretext, network, hardness, part, of_name = name.split(".")
        assert seed == of_name
        points.append((pretext, network, int(hardness), int(part), int(seed)))
        visits.add(int(batch) * int(steps))
    return points, visits, text


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_the_points_and_their_order():
    points, visits, text = plan("HOURS=2")
    assert len(points) == len(set(points)) and visits == {3200}
    jigsaw = [point for point in points if point[0] == "jigsaw"]
    curves = Counter(point[:3] for point in jigsaw if point[4] == 0)
    assert len(curves) == 4 and set(curves.values()) == {4}  # 2 networks x 2 |P|, 4 sizes
    seeds = Counter(point[:4] for point in points)
    assert all(seeds[point[:4]] == (3 if point[3] in (1, 8) else 1) for point in points)
    assert len([p for p in points if p[0] == "colorization" and p[4] == 0]) == 3
    # An early stop draws every curve: the ends of all of them come before anything else.
    first = points[:10]
    assert {point[:3] for point in first} == {point[:3] for point in points}
    assert all(point[3] in (1, 8) and point[4] == 0 for point in first)
    assert text.count("extract-features -q random:") == 9
    assert plan("HOURS=8")[1] == {12800}


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_photographs_and_labels_of_ones_own():
    _points, _visits, text = plan("PHOTOS=my/photos", "VOC=VOCdevkit/VOC2007")
    assert "find my/photos -name '*.jpg'" in text and "make-scenes" not in text
    assert "list-images -q voc VOCdevkit/VOC2007 --split test" in text
    assert "--tag data_set=voc2007" in text
