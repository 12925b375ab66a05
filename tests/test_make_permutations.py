"""make-permutations as a process."""

import io

import numpy as np
import pytest

from ssl_common.pretext.permutations import select


def array(done):
    return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def test_the_array_and_the_one_line(run):
    done = run("make-permutations", "-n", 8, check=0)
    assert array(done).dtype == np.dtype("<i8")
    assert np.array_equal(array(done), select(8))
    said = done.stderr.decode()
    assert said.startswith("make-permutations: 8 permutations of 9 tiles, ")
    assert said.endswith(" places apart on average\n")


@pytest.mark.parametrize("method", ["max-avg", "max-min"])
def test_every_option_matters(run, method):
    options = ["-n", 20, "-t", 4, "--method", method]
    zero, one = (run("make-permutations", *options, "--seed", s, check=0) for s in (0, 1))
    assert np.array_equal(array(zero), select(20, 4, method, 0))
    assert zero.stdout != one.stdout


def test_the_methods_differ(run):
    assert not np.array_equal(select(20, 4, "max-avg"), select(20, 4, "max-min"))
    default = run("make-permutations", "-n", 20, "-t", 4, check=0)
    assert np.array_equal(array(default), select(20, 4, "max-avg"))


def test_one_permutation(run):
    done = run("make-permutations", "-n", 1, "-t", 2, check=0)
    assert array(done).shape == (1, 2)
    assert done.stderr == b"make-permutations: 1 permutations of 2 tiles\n"


def test_more_than_there_are_is_1_with_the_limit(run, tmp_path):
    done = run("make-permutations", "-n", 25, "-t", 4, "-o", "p.npy", check=1)
    message = b"make-permutations: 4 tiles have 24 permutations: ask for -n 24 or less\n"
    assert (done.stdout, done.stderr) == (b"", message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [[], ["-n", 0], ["-n", "x"], ["-n", 4, "-t", 1], ["-n", 4, "-t", 10], ["-n", 4, "extra"]],
)
def test_a_bad_command_line_is_2(run, wrong):
    done = run("make-permutations", *wrong, check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_the_numbers_of_the_released_set(run):
    """Same greedy rule, other first row: the mean of the released 2,000 is 8.0040 as well."""
    done = run("make-permutations", "-n", 2000, "-o", "p2k.npy", check=0)
    assert b"2000 permutations of 9 tiles, 8.0040 places" in done.stderr
