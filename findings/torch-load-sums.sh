#!/usr/bin/env bash
# torch 2.14.1: torch.save writes a zip archive with the CRC-32 of every record, and torch.load, which
# reads that archive, looks at none of them. One bit that flipped on a disk is loaded in silence, with
# mmap too, while Python's zipfile, or `unzip -t`, names the record.
#
# Output seen:
#     zipfile: CRC-32 of w/data/0 is another one
#     torch.load: no error; 1 of 4096 numbers changed, from 1.0 to 0.5
#
# In ssl-bench: models/networks.py checks the sums, and a digest of its own, of what it reads;
# tests/test_checkpoints.py flips the bits.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - << 'PYTHON'
import zipfile

import torch

torch.save({"w": torch.ones(4096)}, "w.pt")
data = bytearray(open("w.pt", "rb").read())
with zipfile.ZipFile("w.pt") as archive:
    assert archive.testzip() is None
    (record,) = (name for name in archive.namelist() if name.endswith("data/0"))
    assert archive.getinfo(record).compress_type == zipfile.ZIP_STORED
place = data.index(b"\0\0\x80\x3f" * 4096)  # 4096 times the 1.0 of IEEE 754
data[place + 2] ^= 0x80  # 0x3f800000 becomes 0x3f000000
open("w.pt", "wb").write(data)

with zipfile.ZipFile("w.pt") as archive:
    wrong = archive.testzip()
print(f"zipfile: CRC-32 of {wrong} is another one")
assert wrong == record
for how in ({}, {"mmap": True}, {"weights_only": False}):
    found = torch.load("w.pt", **how)["w"]
    assert (found != 1).sum() == 1 and found[0] == 0.5, how
print("torch.load: no error; 1 of 4096 numbers changed, from 1.0 to 0.5")
PYTHON
