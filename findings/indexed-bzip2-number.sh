#!/usr/bin/env bash
# indexed_bzip2 1.7.0 and rapidgzip 0.16.2 refuse a valid bzip2 file: a block says by a map of bits
# which bytes it has, and they take a map that is the number 0x314159265359, by which a block begins,
# for the beginning of one. indexed_bzip2 also reads 5 bytes of a bzip2 file as an empty one.
#
# Output seen:
#     bz2: 2000 bytes
#     indexed_bzip2: [BZip2 block header] deprecated isRandomized bit is not supported
#     rapidgzip: [BZip2 block header] deprecated isRandomized bit is not supported
#     indexed_bzip2, of the first 5 bytes: 0 bytes
#
# In ssl-bench: data/blocks.py unpacks bzip2 by several threads; tests/test_blocks.py has such files.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet indexed_bzip2==1.7.0 rapidgzip==0.16.2
cd "$folder"
venv/bin/python - << 'PYTHON'
import bz2
import random

import indexed_bzip2
import rapidgzip

used = [place for place in range(48) if 0x314159265359 >> 47 - place & 1]
shuffled = random.Random(0)
content = b"".join(bytes(shuffled.sample(used, len(used))) for _ in range(100))
for name, size in (("whole.bz2", None), ("cut.bz2", 5)):
    with open(name, "wb") as stream:
        stream.write(bz2.compress(content)[:size])


def tried(name, opened):
    """Return what comes of reading the file NAME."""
    try:
        with opened(name, parallelization=2) as stream:
            return f"{len(stream.read())} bytes"
    except (ValueError, RuntimeError) as error:
        return str(error)


print("bz2:", plain := f"{len(bz2.open('whole.bz2').read())} bytes")
print("indexed_bzip2:", first := tried("whole.bz2", indexed_bzip2.open))
print("rapidgzip:", second := tried("whole.bz2", rapidgzip.IndexedBzip2File))
print("indexed_bzip2, of the first 5 bytes:", cut := tried("cut.bz2", indexed_bzip2.open))
assert plain == "2000 bytes" and "isRandomized" in first and "isRandomized" in second
assert cut == "0 bytes"
PYTHON
