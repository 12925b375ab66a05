#!/usr/bin/env bash
# Python's tarfile (seen in 3.11.7) gives other names than those in a tar that GNU tar wrote with --incremental,
# as backups are: each begins with a number, as 15303136534/d/a.jpg. GNU's format has the time of access where
# that of POSIX has the beginning of a long name; tarfile takes the one for the other whatever the header says it
# is ("ustar  " is GNU's; python/cpython issue 155629, open). So does all that reads tars by it, as webdataset
# 1.0.2: the key of a sample depends on when its file was last read. GNU tar itself says d/a.jpg.
#
# Output seen:
#     GNU tar: d/a.jpg; tarfile: 15303136534/d/a.jpg; webdataset: 15303136534/d/a
#
# In ssl-bench: data/tars.py asks the header which of both it is; tests/test_shards.py has such a tar.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2 numpy==2.4.6
mkdir "$folder/d"
echo picture > "$folder/d/a.jpg"
tar -C "$folder" -cf "$folder/x.tar" --incremental d/a.jpg
"$folder/venv/bin/python" - "$folder/x.tar" "$(tar -tf "$folder/x.tar")" << 'PYTHON'
import sys
import tarfile

import webdataset

path, by_tar = sys.argv[1:]
with tarfile.open(path) as archive:
    (by_tarfile,) = archive.getnames()
(key,) = [sample["__key__"] for sample in webdataset.WebDataset(path, shardshuffle=False)]
print(f"GNU tar: {by_tar}; tarfile: {by_tarfile}; webdataset: {key}")
assert by_tar == "d/a.jpg" and by_tarfile != by_tar and key == by_tarfile.removesuffix(".jpg")
PYTHON
