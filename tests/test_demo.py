"""What `make demo` says: its bar, and the commands at its end."""

import json
import re
import subprocess

import pytest
from conftest import CHECKOUT, environment
from PIL import Image


def said(script, text=b""):
    done = subprocess.run(
        [CHECKOUT / "docs" / script], input=text, capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode()


@pytest.mark.parametrize(
    "accuracy, hashes, shown",
    [(0.0, 0, "0.0%"), (0.0499999, 1, "4.9%"), (0.1248, 4, "12.4%"), (0.5, 20, "50.0%"),
     (1.0, 40, "100.0%")],
)  # fmt: skip
def test_the_bar_is_as_long_as_the_share_of_right_puzzles(accuracy, hashes, shown):
    log = [{"steps": 120, "permutations": 20}, {"step": 50, "loss": 3.0, "accuracy": accuracy}]
    line = said("demo-bar", "".join(json.dumps(each) + "\n" for each in log).encode())
    assert line.startswith("   step  50 of 120  ") and line.count("#") == hashes
    assert f" {shown} of the puzzles right (guessing: 5%)\n" in line


def test_every_line_of_the_demo_s_end_fits_a_terminal_and_names_what_make_makes():
    text = said("demo-next")
    makefile = (CHECKOUT / "Makefile").read_text()
    named = set(re.findall(r"demo/[\w.]+\.\w+", text))
    files = "jigsaw.pt results.png puzzles.png p20.npy report.html"
    assert named == {f"demo/{name}" for name in files.split()}
    assert text.splitlines()[-1].endswith(" demo/report.html")
    assert all(f"{path}:" in makefile for path in named)


@pytest.mark.slow
def test_the_commands_at_the_end_of_the_demo_run_as_they_stand(tmp_path):
    commands = [line for line in said("demo-next").splitlines() if line.startswith("    ")]
    assert len(commands) == 3
    (tmp_path / "photos").mkdir()
    for number in range(32):
        colour = (8 * number, 255 - 8 * number, 100)
        Image.new("RGB", (96, 96), colour).save(tmp_path / "photos" / f"{number}.jpg")
    (tmp_path / "demo").mkdir()
    made = "make-permutations -q -n 20 -o demo/p20.npy\n" + "\n".join(commands)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", made],
        cwd=tmp_path,
        env=environment(),
        check=True,
        timeout=280,
        capture_output=True,
    )
    assert (tmp_path / "photos.npy").stat().st_size > 32 * 9216 * 4
    assert len((tmp_path / "photos.tsv").read_text().splitlines()) == 32
