"""make-permutations as a process."""

import hashlib
import io

import numpy as np
import pytest

from ssl_common.pretext.permutations import make

FIRST = "3,4,1,7,2,6,0,8,5"


def array(done):
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def test_the_array_and_the_one_line(run):
    done = run("make-permutations", "-n", 100, check=0)
    assert array(done).dtype == np.dtype("<i8")
    assert np.array_equal(array(done), make(100)[0])
    message = "100 permutations of 9 tiles by code, 8.0800 places apart on average, 7 at least"
    assert done.stderr.decode() == f"make-permutations: {message}\n"


@pytest.mark.parametrize("method", ["code", "max-avg", "max-min"])
def test_every_option_matters(run, method):
    options = ["-n", 20, "--method", method]
    zero, one = (run("make-permutations", *options, "--seed", s, check=0) for s in (0, 1))
    assert np.array_equal(array(zero), make(20, method=method)[0])
    assert zero.stdout != one.stdout
    first = run("make-permutations", *options, "--first", FIRST, check=0)
    assert array(first)[0].tolist() == [3, 4, 1, 7, 2, 6, 0, 8, 5]


def test_the_methods_differ(run):
    made = [
        run("make-permutations", "-n", 20, "--method", method, check=0).stdout
        for method in ("code", "max-avg", "max-min")
    ]
    assert len(set(made)) == 3
    assert run("make-permutations", "-n", 20, check=0).stdout == made[0]


def test_other_tiles_are_said_to_be_made_by_max_min(run):
    done = run("make-permutations", "-n", 20, "-t", 4, check=0)
    assert np.array_equal(array(done), make(20, 4, "max-min")[0])
    assert b"20 permutations of 4 tiles by max-min, " in done.stderr


def test_one_permutation(run):
    done = run("make-permutations", "-n", 1, "-t", 2, "--first", "1,0", check=0)
    assert array(done).tolist() == [[1, 0]]
    assert done.stderr == b"make-permutations: 1 permutations of 2 tiles by max-min\n"


def test_the_released_file_bit_for_bit(run):
    """hamming_perms_2000_patches_9_max_avg.npy of the paper's authors, of which this is the md5."""
    options = ["--method", "max-avg", "--first", FIRST]
    done = run("make-permutations", "-n", 2000, *options, check=0)
    assert hashlib.md5(done.stdout).hexdigest() == "cd1b75b8ffc690df1a77931d407a71b2"
    assert b"2000 permutations of 9 tiles by max-avg, 8.0040 places" in done.stderr
    assert b"\nmin\t2\n" in run("make-permutations", "--check", "-", stdin=done.stdout).stdout


@pytest.mark.parametrize("method", ["code", "max-avg", "max-min"])
def test_more_than_there_are_is_1_with_the_limit(run, tmp_path, method):
    options = ["-n", 25, "-t", 4, "--method", method, "-o", "p.npy"]
    done = run("make-permutations", *options, check=1)
    message = b"make-permutations: 4 tiles have 24 permutations: ask for -n 24 or less\n"
    assert (done.stdout, done.stderr) == (b"", message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ([], "give -n N to make permutations, or --check FILE"),
        (["-n", 4, "--check", "p.npy"], "give -n N to make permutations, or --check FILE"),
        (["-n", 0], "'0' is not a whole number from 1 to 362,880"),
        (["-n", "x"], "'x' is not a whole number from 1"),
        (["-n", 4, "-t", 1], "'1' is not a whole number from 2 to 9"),
        (["-n", 4, "-t", 10], "'10' is not a whole number from 2 to 9"),
        (["-n", 4, "extra"], "unexpected extra argument"),
        (["-n", 4, "--first", "0,1,x"], "'0,1,x' is not like 2,0,1"),
        (["-n", 4, "--first", ""], "'--first': it is empty"),
        (["-n", 4, "--first", "0,1,2"], "--first is not a permutation of 0 to 8"),
        (["-n", 4, "-t", 3, "--first", "1,2,3"], "--first is not a permutation of 0 to 2"),
    ],
)
def test_a_bad_command_line_is_2(run, wrong, message):
    done = run("make-permutations", *wrong, check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert message in done.stderr.decode()


# ---- --check ----------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("dtype", ["<i4", "<i8", "u1"])
@pytest.mark.parametrize("piped", [False, True])
def test_check_tells_the_distances(run, tmp_path, base, dtype, piped):
    np.save(tmp_path / "p.npy", (make(72)[0] + base).astype(dtype))
    if piped:
        content = (tmp_path / "p.npy").read_bytes()
        done = run("make-permutations", "--check", "-", stdin=content, check=0)
    else:
        done = run("make-permutations", "--check", "p.npy", check=0)
    # Of 72 sharply 2-transitive elements, 8 differ from one in all places and 63 in eight.
    assert done.stdout.decode().splitlines() == [
        "n\t72",
        "tiles\t9",
        "min\t8",
        f"mean\t{8 * 72 / 71:.6f}",
        f"pairs 8 apart\t{72 * 63 // 2}",
        f"pairs 9 apart\t{72 * 8 // 2}",
    ]
    name = "standard input" if piped else "p.npy"
    message = f"{name}: 72 permutations of 9 tiles, 8.1127 places apart on average, 8 at least"
    assert done.stderr.decode() == f"make-permutations: {message}\n"


@pytest.mark.parametrize(
    "rows, message",
    [
        ([[1, 2, 3], [2, 2, 1]], "row 1 is not a permutation of 1 to 3: 2 2 1"),
        ([[0, 1, 2], [1, 0, 2], [0, 1, 2]], "row 2 is row 0 again"),
    ],
)
def test_check_of_a_bad_row_is_1(run, tmp_path, rows, message):
    np.save(tmp_path / "p.npy", np.array(rows))
    done = run("make-permutations", "--check", "p.npy", "-o", "p.txt", check=1)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert f"make-permutations: p.npy: {message}" in done.stderr.decode()
    assert not (tmp_path / "p.txt").exists()


def test_check_of_no_file_is_1(run):
    done = run("make-permutations", "--check", "none.npy", check=1)
    assert done.stderr == b"make-permutations: none.npy: No such file or directory\n"


def test_check_of_files_of_other_projects(run, data):
    """The least distances that the notes on these files give."""
    folder, least = data("perms_colour"), {"naroozi_perms_100_patches_9_max": 2}
    least |= {f"jigen_permutations_{n}": d for n, d in ((30, 4), (31, 4), (100, 2), (1000, 2))}
    for name, distance in least.items():
        done = run("make-permutations", "--check", folder / f"{name}.npy", check=0)
        assert f"\nmin\t{distance}\n" in done.stdout.decode()
