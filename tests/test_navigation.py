"""The parts of navigation, each against something independent of it."""

import importlib.util
import math
import types

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy import stats
from scipy.sparse.csgraph import dijkstra
from torch import nn
from torch.nn import functional

from ssl_common.evaluation.navigation import doom, eyes, gyms, intervals, testing
from ssl_common.evaluation.navigation.policies import FRAMES, Policies, policy
from ssl_common.models import registry
from ssl_common.streams import DataError

THERE = importlib.util.find_spec
gymnasium = pytest.mark.skipif(not THERE("gymnasium"), reason="no gymnasium")


# ---- Observations --------------------------------------------------------------------------------


def box(shape, dtype, low=0, high=255):
    """Return what a Box of gymnasium says of itself."""
    return types.SimpleNamespace(
        shape=shape, dtype=np.dtype(dtype), low=np.full(shape, low), high=np.full(shape, high)
    )


RGB = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
GRAY = np.repeat(RGB[..., :1], 3, 2)
LAYOUTS = {
    "rows, columns, channels": (box((7, 9, 3), "u1"), RGB, RGB),
    "channels first": (box((3, 7, 9), "u1"), RGB.transpose(2, 0, 1), RGB),
    "gray": (box((7, 9), "u1"), RGB[..., 0], GRAY),
    "gray, one channel": (box((7, 9, 1), "u1"), RGB[..., :1], GRAY),
    "gray, channel first": (box((1, 7, 9), "u1"), RGB[..., 0][None], GRAY),
    "with alpha": (box((7, 9, 4), "u1"), np.dstack([RGB, RGB[..., 0]]), RGB),
    "real, 0 to 1": (box((7, 9, 3), "f4", 0, 1), (RGB / 255).astype("f4"), RGB),
    "real, -1 to 1": (box((3, 7, 9), "f8", -1, 1), (RGB / 127.5 - 1).transpose(2, 0, 1), RGB),
    "real, 0 to 255": (box((7, 9, 3), "f4", 0, 255), RGB.astype("f4"), RGB),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_observations(name):
    space, observation, frame = LAYOUTS[name]
    found = gyms.layout(space, None)(observation)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.array_equal(found, frame)


def test_layouts_of_dicts():
    picture, number = box((3, 7, 9), "u1"), box((2,), "f4", 0, 1)
    one = types.SimpleNamespace(spaces={"where": number, "rgb": picture})
    observation = {"where": np.zeros(2), "rgb": RGB.transpose(2, 0, 1)}
    for key in (None, "rgb"):
        assert np.array_equal(gyms.layout(one, key)(observation), RGB)
    two = types.SimpleNamespace(spaces={"rgb": picture, "depth": box((7, 9), "f4", 0, 1)})
    for space, key, message in (
        (two, None, "--obs-key: name one of the observations: rgb, depth"),
        (one, "left", "--obs-key: name one of the observations: where, rgb"),
        (one, "where", "the observation is no picture"),
        (picture, "rgb", "--obs-key rgb: the observation is no dict"),
        (box((7, 9, 3), "f4", -np.inf, np.inf), None, "has no bounds to scale it by"),
        (number, None, "the observation is no picture"),
    ):
        with pytest.raises(gyms.WorldError, match=message):
            gyms.layout(space, key)


# ---- The guide -----------------------------------------------------------------------------------

# Two rooms, 400 x 400 and 300 x 400, with a door of 80 between them, and a pillar in the first.
WALLS = [
    (0, 0, 700, 0), (700, 0, 700, 400), (700, 400, 0, 400), (0, 400, 0, 0),
    (400, 0, 400, 160), (400, 240, 400, 400),
    (180, 150, 240, 150), (240, 150, 240, 250), (240, 250, 180, 250), (180, 250, 180, 150),
]  # fmt: skip
GOAL = (620.0, 90.0)


@pytest.fixture(scope="module")
def guide():
    return doom.Guide(np.array(WALLS, float), GOAL)


def test_costs_are_those_of_scipy(guide):
    """The same graph, made another way, and another Dijkstra."""
    free, number = guide.free, -np.ones(guide.free.shape, int)
    number[free] = np.arange(free.sum())
    rows, columns, lengths = [], [], []
    for i, j in np.argwhere(free):
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if (di or dj) and free[i + di, j + dj] and free[i, j + dj] and free[i + di, j]:
                    rows.append(number[i, j])
                    columns.append(number[i + di, j + dj])
                    lengths.append(math.hypot(di, dj))
    graph = scipy.sparse.csr_matrix((lengths, (rows, columns)), (free.sum(),) * 2)
    ends = number[(guide.cost == 0) & free]
    assert len(ends)
    expected = dijkstra(graph, indices=ends, min_only=True)
    assert np.allclose(guide.cost[free], expected)


@pytest.mark.parametrize(
    "start, shortest",
    [
        ((500.0, 90.0), 620 - 36 - 500),  # straight on: to the touch of the goal
        ((620.0, 330.0), 330 - 36 - 90),
        # Round the post of the door, whose corner is kept 20 away.
        ((330.0, 60.0), math.dist((330, 60), (380, 172)) + math.dist((380, 172), (584, 126))),
    ],
)
def test_paths_are_as_short_as_by_ruler(guide, start, shortest):
    assert guide.distance(start) == pytest.approx(shortest, rel=0.083, abs=doom.CELL)


def test_paths_keep_their_clearance(guide):
    for start in ((40.0, 40.0), (100.0, 350.0), (340.0, 380.0), (210.0, 300.0)):
        corners = guide.path(start)
        assert corners[0] == start and guide.cost[guide._nearest(corners[-1])] == 0
        for a, b in zip(corners[1:], corners[2:], strict=False):
            for part in np.linspace(0, 1, 50):
                place = np.array(a) + part * (np.array(b) - np.array(a))
                for x1, y1, x2, y2 in WALLS:
                    far = doom._distance(place, (x1, y1), (x2, y2))
                    assert far >= doom.CLEARANCE - doom.CELL * math.sqrt(2)


def test_the_expert_turns_towards_the_way(guide):
    assert guide.turn((500.0, 90.0), 0.0) == pytest.approx(0, abs=8)
    assert guide.turn((500.0, 90.0), 90.0) == pytest.approx(-90, abs=8)
    assert guide.turn((620.0, 330.0), 180.0) == pytest.approx(90, abs=8)


# ---- What is seen --------------------------------------------------------------------------------


def test_compression_is_a_convolution_and_a_normalisation():
    found = torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    filters = eyes.drawn(5, 3)
    assert filters.shape == (8, 5, 3, 3) and abs(filters.std() - math.sqrt(2 / 45)) < 0.04
    convolution = nn.Conv2d(5, 8, 3, padding=1, bias=False)
    convolution.weight.data = filters
    norm = nn.GroupNorm(8, 8, affine=False)
    expected = norm(functional.relu(convolution(found)))
    assert torch.allclose(eyes.compressed(found, filters), expected, atol=1e-5)
    assert eyes.compressed(torch.rand(1, 5, 7, 9), filters).shape == (1, 8, 16, 16)


def test_the_convolution_of_a_run_is_that_of_its_seed_in_all_networks():
    one, other = (eyes.make(f"random:{a}", "conv4", 4, 3, 64) for a in ("alexnet", "caffenet"))
    assert torch.equal(one.filters, other.filters)
    alone = eyes.make("random:alexnet", "conv4", 5, 1, 64)
    assert torch.equal(one.filters[8:16], alone.filters)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    seen = one(pixels)
    assert list(seen) == ["run0", "run1", "run2"] and seen["run1"].shape == (2, 8, 16, 16)
    assert one.trunk.digest() == one.of_the_model["model"]
    plain = eyes.make("thumbnail", None, 0, 3, None)
    frame = torch.full((50, 60, 3), 255, dtype=torch.uint8)
    assert torch.equal(plain(plain.frame(frame)[None])["frame"], torch.ones(1, 3, 16, 16))
    blind = eyes.make("blind", None, 0, 3, None)
    assert not blind(blind.frame(frame)[None])["frame"].any()
    for words, message in (
        (("blind", "conv1", 0, 1, None), "--layer conv1: blind has no network"),
        (("random:alexnet", "conv9", 0, 1, None), "random:alexnet has no layer conv9: it has conv"),
        (("random:alexnet", None, 0, 1, 16), "--side 16: too small for conv5"),
    ):
        with pytest.raises(DataError, match=message):
            eyes.make(*words)


@pytest.mark.parametrize("design, shape", [("embedding", (8, 16, 16)), ("atari", (3, 84, 84))])
def test_policies_side_by_side_are_policies_alone(design, shape):
    """Each is that of its seed, also after a step of training."""
    runs, seen = 3, torch.randn(3, 4, FRAMES * shape[0], *shape[1:])
    both = Policies(design, shape, 5, runs, 7)
    singles = []
    for run in range(runs):
        with registry.seeded(7 + run):
            singles.append(policy(design, shape, 5))
    together = torch.optim.SGD(both.parameters(), 1e-3)
    functional.cross_entropy(
        both(seen).flatten(0, 1), torch.arange(12) % 5, reduction="sum"
    ).backward()
    together.step()
    for run, single in enumerate(singles):
        functional.cross_entropy(
            single(seen[run]), torch.arange(4 * run, 4 * run + 4) % 5, reduction="sum"
        ).backward()
        torch.optim.SGD(single.parameters(), 1e-3).step()
        assert torch.allclose(both(seen)[run], single(seen[run]), atol=1e-4)
        taken = policy(design, shape, 5)
        both.into(run, taken)
        assert torch.allclose(taken(seen[run]), single(seen[run]), atol=1e-4)
        both.fill(run, policy(design, shape, 5))
        assert not torch.allclose(both(seen)[run], single(seen[run]), atol=1e-4)


# ---- Figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
def test_the_interquartile_mean_is_that_of_scipy(count):
    scores = np.random.default_rng(count).normal(size=(6, count))
    expected = stats.trim_mean(scores, 0.25, axis=1)
    assert intervals.interquartile_mean(scores) == pytest.approx(expected)
    holes = np.concatenate([scores, np.full((6, 2), np.nan)], 1)
    assert intervals.interquartile_mean(holes) == pytest.approx(expected)


def test_the_interval_is_that_of_all_resamples():
    """Of four runs there are 256, whose interquartile means can be counted."""
    scores = np.array([10.0, 20.0, 40.0, 80.0])
    every = scores[np.stack(np.meshgrid(*[range(4)] * 4), -1).reshape(-1, 4)]
    means = np.sort(stats.trim_mean(every, 0.25, axis=1))
    low, high = intervals.interval(scores, 0)
    for end, part in ((low, 0.025), (high, 0.975)):
        # Where so many of them lie below it, give or take what drawing 10,000 leaves open.
        assert (means < end - 1e-9).mean() <= part + 0.01
        assert (means <= end + 1e-9).mean() >= part - 0.01
    assert intervals.interval(scores, 0) == [low, high]
    assert intervals.interval([5.0], 0) is None and intervals.interval([5, np.nan], 0) is None


def test_ratios_and_what_is_not_above():
    played = testing.Played(0, 0, success=True, shortest=10.0, length=12.5)
    assert played.ratio == 1.25
    played.length = 9.0  # the goal is touched, not stood on
    assert played.ratio == 1.0
    played.success = False
    assert math.isnan(played.ratio)
    record = {"task": "navigation", "data_set": "home", "metric": "success rate", "value": 60.0}
    record |= {"interval": [50.0, 70.0], "arch": "alexnet", "pretext": "jigsaw", "model": "a"}
    blind = record | {"arch": "blind", "pretext": None, "value": 50.0, "model": "b"}
    thumbnail = blind | {"arch": "thumbnail", "value": 49.9, "model": "c"}
    untrained = record | {"pretext": "random", "value": 65.0, "model": "d"}
    found = testing.not_above(record, [blind, thumbnail, untrained])
    assert found == ["blind", "alexnet random"]
    with pytest.raises(DataError, match="no baseline .* measured alike"):
        testing.not_above(record, [blind | {"episodes": 3}, record])


# ---- Environments of gymnasium -------------------------------------------------------------------


@gymnasium
def test_an_environment_by_name(tmp_path, monkeypatch):
    """Its module is imported; its reward, end and frames come through."""
    from ssl_common.evaluation.navigation import worlds
    from ssl_common.evaluation.navigation.options import WorldOptions

    (tmp_path / "myhouse.py").write_text(
        "import gymnasium, numpy as np\n"
        "from gymnasium import spaces\n"
        "class House(gymnasium.Env):\n"
        "    observation_space = spaces.Box(0, 1, (3, 8, 8), np.float32)\n"
        "    action_space = spaces.Discrete(3, start=1)\n"
        "    def __init__(self, step=0.1): self.size = step\n"
        "    def seen(self): return np.full((3, 8, 8), self.at, np.float32)\n"
        "    def reset(self, seed=None, options=None):\n"
        "        super().reset(seed=seed); print('hello'); self.at = 0.0; return self.seen(), {}\n"
        "    def step(self, action):\n"
        "        self.at = min(1.0, self.at + self.size * action); end = self.at >= 1\n"
        "        return self.seen(), self.at, end, False, {'is_success': end}\n"
        "gymnasium.register('House-v0', House)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = WorldOptions(env="myhouse:House-v0", env_args={"step": "0.2"}, max_steps=9)
    with worlds.several(options, 1) as (world,):
        seen = world.reset(1)
        assert world.actions == ["0", "1", "2"] and not seen.frame.any()
        seen = world.step(1)  # the second action, which is called 2 there
        assert seen.reward == pytest.approx(0.4) and (seen.frame == 102).all()
        assert not seen.ended and seen.success is False
        seen = world.step(2)
        assert seen.terminated and seen.success and (seen.frame == 255).all()
        for _step in range(8):
            world.reset(1)
        seen = world.reset(2)
        for _step in range(9):
            seen = world.step(0) if not seen.ended else seen
        assert seen.ended
    for name, message in (
        ("nowhere:House-v0", "nowhere:House-v0: no module nowhere: install it, or see PYTHONPATH"),
        ("myhouse:House-v1", "myhouse:House-v1: .*"),
    ):
        with (
            worlds.several(WorldOptions(env=name), 1) as (world,),
            pytest.raises(DataError, match=message),
        ):
            world.reset(0)


@pytest.mark.skipif(not THERE("vizdoom") or not THERE("gymnasium"), reason="no vizdoom")
def test_the_expert_finds_home_in_vizdoom():
    """Two worlds show the same; the way of the expert is about as long as the shortest."""
    from ssl_common.evaluation.navigation import worlds
    from ssl_common.evaluation.navigation.options import WorldOptions

    with worlds.several(WorldOptions(env="my-way-home"), 2) as both:
        for world in both:
            world.ask_reset(7)
        one, other = (world.answer() for world in both)
        assert np.array_equal(one.frame, other.frame) and one.frame.shape == (120, 160, 3)
        seen, shortest = one, one.distance
        while not seen.ended:
            seen = both[0].step(seen.expert)
        assert seen.success and 0.95 < seen.length / shortest < 1.2
    names = ["none", "move-right", "move-left", "move-forward", "turn-right", "turn-left"]
    assert both[0].actions == names
