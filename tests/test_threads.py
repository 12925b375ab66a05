"""The threads that share torch's products: set for a while, and as they were after it."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_common import threads
from ssl_common.data.manifest import Manifest
from ssl_common.pretext import bins


@pytest.fixture(params=[1, 3])
def before(request):
    """Set the number of threads, and give it back at the end."""
    own = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(own)


def seen():
    """Return the number of threads here, and in a thread that begins now."""
    with threads.side_by_side(1, torch.get_num_threads()) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


def test_sharing(before):
    with threads.sharing(2):
        assert seen() == (2, 2)
    assert seen() == (before, before)
    with pytest.raises(ZeroDivisionError), threads.sharing(2):
        raise ZeroDivisionError
    assert seen() == (before, before)


def test_side_by_side(before):
    with threads.side_by_side(2, 2) as pool:
        assert list(pool.map(lambda _: torch.get_num_threads(), range(5))) == [2] * 5
    assert seen() == (before, before)


def test_counting_colours(before, tmp_path):
    Image.fromarray(np.full((8, 8, 3), (200, 30, 30), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "m.tsv").write_text("a.png\n")
    bins.count(Manifest(str(tmp_path / "m.tsv")), str(tmp_path), 0, lambda *_: None, 0)
    assert seen() == (before, before)
