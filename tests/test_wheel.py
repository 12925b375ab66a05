"""The wheel: what is installed from it, elsewhere and without this folder, is whole and works."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import CHECKOUT, VERSION, environment
from test_contract import COMMANDS

pytestmark = pytest.mark.slow

PIPELINE = """
make-scenes -n 24 -j 0 -o scenes > scenes.tsv
list-images voc scenes --split trainval > train.tsv
list-images voc scenes --split test > test.tsv
make-permutations -n 4 > p4.npy
pretrain jigsaw train.tsv --permutations p4.npy --batch 4 --iterations 2 -j 0 -o jigsaw.pt > log
extract-features jigsaw.pt train.tsv --layer conv5 -j 0 -o train.npy
extract-features jigsaw.pt test.tsv --layer conv5 -j 0 | cat > test.npy
train-svm train.npy train.tsv -j 0 -o svm.npz
eval-svm svm.npz test.npy test.tsv --tag data_set=scenes >> results.jsonl
report results.jsonl --plot table.png
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of an environment that has the wheel, and from this one all it needs."""
    base = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "tests")
    shutil.copytree(CHECKOUT, base / "source", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    how = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *how, "--no-build-isolation", "-w", base, base / "source"]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(base / "source")
    (wheel,) = base.glob("*.whl")
    venv = base / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    install = [*pip, "--python", venv / "bin/python", "install", *how, wheel]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = venv.glob("lib/python*/site-packages")
    # Those of this environment come after its own, and what they would install here is not heard.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    return venv


def ran(installed, line, folder):
    path = os.pathsep.join([str(installed / "bin"), os.environ["PATH"]])
    env = environment({"PATH": path, "OMP_NUM_THREADS": "1"})
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], cwd=folder, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_room_and_file_is_there(installed, tmp_path):
    """Each module that the checkout has, and the files that are none."""
    (place,) = installed.glob("lib/python*/site-packages")
    for name, at in (("ssl_common", "ssl_common"), ("tools", "ssl_tools")):
        sources = [
            p for p in (CHECKOUT / name).rglob("*") if p.suffix in (".py", ".typed", ".json")
        ]
        assert len(sources) > 15
        for source in sources:
            copy = place / at / source.relative_to(CHECKOUT / name)
            assert copy.read_bytes() == source.read_bytes()
    pages = {path.name for path in (installed / "share/man").rglob("*.[157]")}
    assert pages == {path.name for path in (CHECKOUT / "man").iterdir()}
    where = "python -c 'import ssl_common; print(ssl_common.__file__)'"
    assert ran(installed, where, tmp_path) == f"{place}/ssl_common/__init__.py\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_version(installed, command, tmp_path):
    assert ran(installed, f"{command} --version", tmp_path) == f"{command} {VERSION}\n"
    assert ran(installed, f"{command} --help", tmp_path).startswith(f"Usage: {command} ")


def test_a_pipeline(installed, tmp_path):
    table = ran(installed, PIPELINE, tmp_path)
    assert "conv5" in table and "scenes" in table
    assert "jigsaw" in table.lower() and (tmp_path / "table.png").stat().st_size
