#!/usr/bin/env bash
# torch 2.14.1: torch.linalg.solve of two or more matrices of 160 x 160 or so, on a processor, by two
# or more threads, raises, whatever the matrices: oneMKL's LU finds no pivots. One matrix, one thread, or
# matrices of 128 x 128 are solved.
#
# Output seen (and lines "Intel oneMKL ERROR: Parameter 6 was incorrect on entry to DLASWP."):
#     1 thread, 2 matrices: solved
#     2 threads, 1 matrix: solved
#     2 threads, 2 matrices: Pivots given to lu_solve must all be greater or equal to 1. [...]
#
# In ssl-bench: evaluation/svm/newton.py solves them one by one; tests/test_solver.py has several.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - << 'PYTHON'
import torch


def tried(threads, count, size=160):
    """Return what becomes of COUNT systems in matrices that are nearly the identity."""
    torch.set_num_threads(threads)
    noise = torch.rand(count, size, size, dtype=torch.float64, generator=torch.Generator())
    try:
        torch.linalg.solve(torch.eye(size) + noise / size, noise[:, 0])
    except RuntimeError as error:
        return str(error)
    return "solved"


print("1 thread, 2 matrices:", alone := tried(1, 2))
print("2 threads, 1 matrix:", single := tried(2, 1))
print("2 threads, 2 matrices:", both := tried(2, 2))
assert (alone, single) == ("solved", "solved") and "Pivots" in both
PYTHON
