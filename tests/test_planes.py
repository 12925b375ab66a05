"""Normals from depth: exact planes, a plain fit point by point, and generated scenes."""

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ssl_common.evaluation.normals import metrics, planes
from ssl_common.evaluation.normals.planes import Intrinsics
from ssl_common.scenes import drawing

CAMERA = Intrinsics(90.0, 110.0, 33.0, 21.0)


def plane(normal, distance, camera=CAMERA, size=(48, 64)):
    """Return the depth of the plane n . p = -distance, for rays written out one by one."""
    depth = np.zeros(size)
    for row, column in np.ndindex(*size):
        ray = np.array([(column + 0.5 - camera.cx) / camera.fx,
                        -(row + 0.5 - camera.cy) / camera.fy, -1])  # fmt: skip
        depth[row, column] = -distance / (normal @ ray)
    return depth


@pytest.mark.parametrize("k", [3, 5, 9])
@pytest.mark.parametrize("turn", [(0.0, 0.0), (0.3, 0.2), (-0.5, 0.1), (0.2, -0.6)])
def test_a_plane_is_exact(k, turn):
    tilt, pan = turn
    normal = np.array([math.sin(pan), math.sin(tilt), math.cos(tilt) * math.cos(pan)])
    normal /= np.linalg.norm(normal)
    found, known = planes.normals(plane(normal, 2.0), CAMERA, k)
    assert known.all()
    angles = metrics.angles(found, normal[:, None, None])
    assert np.median(angles) < 1e-4 and angles.max() < 0.01
    assert np.allclose((found**2).sum(0), 1)


def plain(depth, camera, k, row, column):
    """Return the normal of a pixel by the rule, with principal components; None where none."""
    z, height, width = depth[row, column], *depth.shape
    there = []
    for r in range(max(0, row - k // 2), min(height, row + k // 2 + 1)):
        for c in range(max(0, column - k // 2), min(width, column + k // 2 + 1)):
            if depth[r, c] > 0 and abs(depth[r, c] - z) <= 0.05 * z:
                x, y = (c + 0.5 - camera.cx) / camera.fx, (camera.cy - r - 0.5) / camera.fy
                there.append([x * depth[r, c], y * depth[r, c], -depth[r, c]])
    if z <= 0 or len(there) < 4:
        return None
    normal = PCA(3).fit(np.array(there)).components_[2]
    x, y = (column + 0.5 - camera.cx) / camera.fx, (camera.cy - row - 0.5) / camera.fy
    return normal if normal @ [x, y, -1] <= 0 else -normal


def test_against_principal_components_of_the_neighbours():
    """With holes, jumps and noise."""
    rng = np.random.default_rng(0)
    depth = plane(np.array([0.1, 0.3, 0.95]), 2.0, size=(24, 30)) * rng.uniform(
        0.99, 1.01, (24, 30)
    )
    depth[8:16, 10:20] *= 0.7
    depth[rng.random(depth.shape) < 0.3] = 0
    found, known = planes.normals(depth, CAMERA, 5)
    seen = 0
    for row, column in np.ndindex(*depth.shape):
        expected = plain(depth, CAMERA, 5, row, column)
        assert known[row, column] == (expected is not None), (row, column)
        if expected is not None:
            seen += 1
            angle = metrics.angles(found[:, row, column], expected)
            assert angle < 1e-3, (row, column)
    assert 100 < seen < depth.size - 100


def test_generated_scenes():
    """Against their true normals: away from edges of objects there is little but rounding."""
    every = metrics.Angles()
    for index in range(3):
        picture = drawing.draw(0, index)
        depth = picture.depth / 1000
        found, known = planes.normals(depth, Intrinsics(*picture.intrinsics), 5)
        true = np.moveaxis(picture.normals.astype(float), 2, 0) / 127.5 - 1
        near = known & picture.normals.any(2) & (depth < 10)
        every.add(metrics.angles(found[:, near], true[:, near]))
    assert every.pixels > 10_000
    assert every.median() < 3


def test_the_wider_window():
    assert [planes.wider(k) for k in (3, 5, 7, 9, 15, 21)] == [5, 7, 11, 13, 23, 31]
