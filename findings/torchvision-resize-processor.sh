#!/usr/bin/env bash
# torchvision 0.29.1 with torch 2.14.1: transforms.v2.functional.resize of uint8 gives other pixels on a
# processor without AVX2 (and on one that is told so by ATEN_CPU_CAPABILITY=default): it asks for the
# instructions by name, and without them resizes in floating point. torch's own interpolate, on the same
# uint8 pixels, gives the same on all of them.
#
# Output seen, of 256 x 307 x 3 numbers:
#     resize: 22.5% differ, by up to 1 levels; interpolate: 0.0%
#
# In ssl-bench: data/pixels.py asks torch itself; tests/test_extract_features.py allows for the difference.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
cat > "$folder/resize.py" << 'PYTHON'
import sys

import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import resize

x, y = torch.meshgrid(torch.arange(96), torch.arange(80), indexing="xy")
picture = torch.stack([(x * 37 + y * 11) % 256, (x * y) % 256, (x * x + 3 * y) % 256]).byte()
by_torchvision = resize(picture, [256, 307])
by_torch = interpolate(picture[None], (256, 307), mode="bilinear", antialias=True)[0]
torch.save([by_torchvision, by_torch], sys.argv[1])
PYTHON
"$folder/venv/bin/python" "$folder/resize.py" "$folder/here.pt"
ATEN_CPU_CAPABILITY=default "$folder/venv/bin/python" "$folder/resize.py" "$folder/plain.pt"
"$folder/venv/bin/python" - "$folder/here.pt" "$folder/plain.pt" << 'PYTHON'
import sys

import torch

here, plain = map(torch.load, sys.argv[1:])
differences = [(a.int() - b.int()).abs() for a, b in zip(here, plain, strict=True)]
shares = [100 * (each > 0).float().mean().item() for each in differences]
most = int(differences[0].max())
print(f"resize: {shares[0]:.1f}% differ, by up to {most} levels; interpolate: {shares[1]:.1f}%")
assert shares[0] > 5 and shares[1] == 0
PYTHON
