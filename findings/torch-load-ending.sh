#!/usr/bin/env bash
# torch 2.14.1: torch.save writes a file of any name, and torch.load chooses its reader by the name. One that
# is called *.safetensors is not read back by the library that wrote it: with safetensors installed its
# header is "too large", without, torch asks for it. The same file, open or by another name, loads. The
# documentation of neither function says a word of it.
#
# Output seen:
#     w.pt: loads; w.safetensors: SafetensorError: Error while deserializing header: header too large
#     w.safetensors, as an open file: loads
#
# In ssl-bench: containers.py opens such a file itself, since what a file holds decides, not its name;
# tests/test_exchange.py names networks so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - << 'PYTHON'
import torch

assert "safetensors" not in (torch.load.__doc__ + torch.save.__doc__).lower()
wanted = {"w": torch.arange(3.0)}
for name in ("w.pt", "w.safetensors"):
    torch.save(wanted, name)
assert open("w.pt", "rb").read(4) == open("w.safetensors", "rb").read(4) == b"PK\x03\x04"
assert torch.equal(torch.load("w.pt")["w"], wanted["w"])
try:
    torch.load("w.safetensors")
except Exception as error:
    print(f"w.pt: loads; w.safetensors: {type(error).__name__}: {error}")
else:
    raise SystemExit("w.safetensors loads: the finding is gone")
with open("w.safetensors", "rb") as stream:
    assert torch.equal(torch.load(stream)["w"], wanted["w"])
print("w.safetensors, as an open file: loads")
PYTHON
