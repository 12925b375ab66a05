"""Normals from depth: the plane through the points around a pixel (PlaneSVD).

Of K x K pixels those whose depth is within 5% of the middle's are its neighbours, itself among
them; the normal is that of the plane nearest to their points, turned towards the camera. It is
the rule by which DSINE's authors make theirs (Bae and Davison, CVPR 2024).
"""

from typing import NamedTuple

import numpy as np

GAMMA = 0.05  # of the depth in the middle
LEAST = 4  # points of a plane


class Intrinsics(NamedTuple):
    """Focal lengths along x and y and the principal point, in pixels from the upper left corner."""

    fx: float
    fy: float
    cx: float
    cy: float


def points(depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Return the point that each pixel of DEPTH (H x W, metres along the axis) shows, 3 x H x W.

    float64, in the frame of the camera: x to the right, y up, z towards it.
    """
    height, width = depth.shape
    z = depth.astype(np.float64)
    x = (np.arange(width) + 0.5 - camera.cx) / camera.fx
    y = (camera.cy - np.arange(height) - 0.5) / camera.fy
    return np.stack([x * z, y[:, None] * z, -z])


def normals(depth: np.ndarray, camera: Intrinsics, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (normals, float64 3 x H x W; where there is one, bool H x W) of DEPTH by the rule.

    DEPTH is in metres, 0 where it is not known; K, odd, is the side of the window in pixels.
    """
    place = points(depth, camera)
    middle, reach, (height, width) = place[2], k // 2, depth.shape
    padded = np.pad(place, ((0, 0), (reach, reach), (reach, reach)))
    # Sums over the neighbours: how many, of what they lie away from the middle, of its products.
    count, first = np.zeros((height, width)), np.zeros((3, height, width))
    second = np.zeros((6, height, width))
    for top in range(k):
        for left in range(k):
            other = padded[:, top : top + height, left : left + width]
            near = (np.abs(other[2] - middle) <= GAMMA * -middle) & (other[2] < 0)
            x, y, z = away = (other - place) * near
            count += near
            first += away
            for total, (a, b) in zip(
                second, ((x, x), (x, y), (x, z), (y, y), (y, z), (z, z)), strict=True
            ):
                total += a * b
    known = (count >= LEAST) & (middle < 0)
    n, mean = count[known], first[:, known] / count[known]
    xx, xy, xz, yy, yz, zz = second[:, known] / n
    scatter = np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), 2, 0)
    scatter -= np.einsum("in,jn->nij", mean, mean)
    flattest = np.linalg.eigh(scatter)[1][:, :, 0].T  # of the smallest spread
    away_from_camera = (flattest * place[:, known]).sum(0) > 0
    found = np.zeros_like(place)
    found[:, known] = np.where(away_from_camera, -flattest, flattest)
    return found, known


def wider(k: int) -> int:
    """Return the side of a window one and a half times K, odd."""
    return 2 * round(1.5 * k / 2 - 0.5) + 1


def rule(k: int) -> str:
    """Return what the rule with K is called: in pictures and records."""
    return f"plane {k} x {k} within {GAMMA:.0%}"
