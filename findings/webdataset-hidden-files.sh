#!/usr/bin/env bash
# webdataset 1.0.2 leaves out the hidden files that macOS puts into a tar, ._1.jpg beside 1.jpg, but only where
# they lie in no folder. In a folder each becomes a sample of its own, with the folder as its key and no .jpg:
# twice as many samples, of which every second one has the key "a/" and a file called "_1.jpg" by extension.
#
# Output seen:
#     in no folder: 1 2; in a folder: a/ a/1 a/ a/2
#
# In ssl-bench: data/shardlists.py leaves both out.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" << 'PYTHON'
import io
import sys
import tarfile

import webdataset


def keys(above):
    path = f"{sys.argv[1]}/x.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("._1.jpg", "1.jpg", "._2.jpg", "2.jpg"):
            archive.addfile(tarfile.TarInfo(above + name), io.BytesIO())
    return [sample["__key__"] for sample in webdataset.WebDataset(path, shardshuffle=False)]


print(f"in no folder: {' '.join(keys(''))}; in a folder: {' '.join(keys('a/'))}")
assert keys("") == ["1", "2"] and keys("a/") == ["a/", "a/1", "a/", "a/2"]
PYTHON
