"""fit-scaling as a real process; its laws against laws that are known, and the published curves."""

import json

import numpy as np
import pytest
from scipy.optimize import least_squares

from ssl_common.reporting import laws, report, scaling
from ssl_common.reporting.published import publication

SIZES = np.array([1e6, 1e7, 5e7, 1e8])


def records(tmp_path, *found):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in found))
    return str(path)


def curve(values, **fields):
    """Return records of a network at SIZES, or others by `sizes`, with VALUES."""
    sizes = fields.pop("sizes", SIZES)
    same = {"task": "svm", "data_set": "voc2007", "metric": "mAP", "arch": "alexnet"}
    same |= {"pretext": "jigsaw", "permutations": 20, "seed": 0, "layer": "conv4"} | fields
    return [
        same | {"images": int(n), "data_name": f"yfcc-{int(n)}", "value": float(v)}
        for n, v in zip(sizes, values, strict=True)
    ]


def law(sizes, limit, scale, exponent):
    return limit + scale * (np.asarray(sizes, float) / sizes[0]) ** -exponent


@pytest.mark.parametrize("limit", [0.0, 15.0, 30.0])
@pytest.mark.parametrize("exponent", [0.08, 0.4, 1.3])
def test_a_law_without_noise_is_found(limit, exponent):
    errors = law(SIZES, limit, 20.0, exponent)
    found = laws.fit(SIZES, errors, np.full(4, 0.5))
    assert found.limit[0] == pytest.approx(limit, abs=1e-3)
    assert found.scale[0] == pytest.approx(20, abs=1e-3)
    assert found.exponent[0] == pytest.approx(exponent, abs=1e-3)
    assert found.at([1e9])[0, 0] == pytest.approx(
        law([1e6, 1e9], limit, 20.0, exponent)[1], abs=1e-3
    )


def test_the_fit_is_that_of_an_optimiser_from_many_starts():
    rng = np.random.default_rng(0)
    sizes, noise = np.array([1.0, 4, 16, 64, 256]), np.array([0.4, 0.4, 0.8, 0.4, 0.6])
    for _case in range(5):
        errors = law(sizes, 20, 15, rng.uniform(0.1, 1)) + rng.normal(0, noise)
        middle = np.exp(np.log(errors).mean())

        def off(p, errors=errors, middle=middle):
            return (np.log(p[0] + p[1] * sizes ** -p[2]) - np.log(errors)) * middle / noise

        def loss(residuals):
            away = np.abs(residuals)
            return np.where(away <= 3, away**2 / 2, 3 * (away - 1.5)).sum()

        bounds = [1e-9, 1e-9, 0.01], [100, 100, 4.5]
        starts = [[e, 10, a] for e in (1e-3, 15, 30) for a in (0.05, 0.3, 1.5)]
        best = min(
            loss(least_squares(off, start, bounds=bounds, loss="linear").fun) for start in starts
        )
        found = laws.fit(sizes, errors, noise)
        got = loss(off([found.limit[0], found.scale[0], found.exponent[0]]))
        assert got == pytest.approx(best, rel=1e-3, abs=1e-6)


def test_a_value_far_off_counts_less_than_its_square():
    sizes = np.geomspace(1, 1000, 8)
    errors = law(sizes, 20, 20, 0.4)
    errors[3] += 10  # a run that failed
    ours = laws.fit(sizes, errors, np.full(8, 0.3)).at([1e4])[0, 0]
    squares = least_squares(
        lambda p: np.log(p[0] + p[1] * sizes ** -p[2]) - np.log(errors), [20, 20, 0.4]
    ).x
    want = law([1, 1e4], 20, 20, 0.4)[1]
    assert abs(ours - want) < abs(squares[0] + squares[1] * 1e4 ** -squares[2] - want) / 2


def test_what_rises_has_a_flat_law():
    found = laws.fit(SIZES, np.array([30.0, 31, 32, 33]), np.full(4, 0.5))
    assert found.scale[0] == 0 and found.limit[0] == pytest.approx(31.48, abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "sizes", [[1, 10, 50, 100], [1, 3, 10, 30, 100]], ids=["4 sizes", "5 sizes"]
)
def test_the_interval_of_the_forecast_covers(sizes):
    """Of 1,000 draws of a law with noise, 93 to 97% of the intervals hold what the law has."""
    rng, covered = np.random.default_rng(7), 0
    sizes, noise = np.array(sizes, float), scaling.Noise(0.5, "known")
    want = 20 + 16 * 1000**-0.3
    for _draw in range(1000):
        errors = 20 + 16 * sizes**-0.3 + rng.normal(0, 0.5, len(sizes))
        ones = np.ones(len(sizes))
        found = scaling._drawn(sizes, errors, ones, noise, 1000.0, 100, rng)
        low, high = scaling._interval(0.0, found.errors)["interval"]
        covered += low <= want <= high
    assert 930 <= covered <= 970


# pretext, network: 100M predicted from the other three, 1B and its interval, limit, exponent; what
# an independent fit of log errors by an optimiser gave, with 40 draws of noise 0.5.
FIGURES = {
    ("jigsaw", "resnet50"): (69.1, 70.5, (69.5, 73.0), (69.5, 78.2), (0.13, 4.5)),
    ("jigsaw", "alexnet"): (56.0, 55.6, (54.8, 57.4), (54.8, 97.9), (0.01, 4.5)),
    ("colorization", "resnet50"): (67.4, 72.2, (69.9, 73.1), (73.9, 100), (0.07, 0.24)),
    ("colorization", "alexnet"): (55.1, 55.4, (54.2, 57.2), (54.2, 62.4), (0.14, 0.89)),
}


@pytest.mark.parametrize(("pretext", "arch"), FIGURES)
def test_the_published_curves(tmp_path, pretext, arch):
    setting = {"task": "svm", "pretext": pretext, "arch": arch}
    setting |= {"permutations": 2000} if pretext == "jigsaw" else {"neighbors": 10}
    found = [
        entry["setting"]
        | {"metric": "mAP", "layer": "conv4", "value": max(entry["values"].values())}
        for group in publication().entries.values()
        for entry in group
        if setting.items() <= entry["setting"].items()
        and entry["setting"]["data_name"].startswith("yfcc")
    ]
    assert len(found) == 4
    rows = report.gather([records(tmp_path, *found)])[0]
    (fit,) = scaling.fits(rows, noise=0.5)
    predicted, ahead, interval, limit, exponent = FIGURES[pretext, arch]
    assert fit["held_out"]["value"] == pytest.approx(predicted, abs=0.06)
    assert fit["forecast"]["value"] == pytest.approx(ahead, abs=0.06)
    assert fit["forecast"]["interval"] == pytest.approx(interval, abs=0.9)  # 40 draws against 1,000
    assert not fit["limit"]["identified"] and not fit["exponent"]["identified"]
    assert "limit: not identified" in fit["text"] and "exponent: not identified" in fit["text"]


@pytest.mark.parametrize("known", [True, False])
def test_the_noise_is_that_of_the_seeds_or_of_the_intervals(tmp_path, known):
    rng = np.random.default_rng(3)
    values, found = 80 - law(SIZES, 20, 15, 0.3), []
    for seed in range(3 if known else 1):
        drawn = values + rng.normal(0, 0.7, 4)
        found += curve(drawn, seed=seed, model=f"m{seed}")
    if not known:
        found = [each | {"interval": [each["value"] - 1.4, each["value"] + 1.4]} for each in found]
    (fit,) = scaling.fits(report.gather([records(tmp_path, *found)])[0], draws=100)
    if known:
        by_size = np.array([each["value"] for each in found]).reshape(3, 4)
        assert fit["noise"] == pytest.approx(np.sqrt(by_size.var(0, ddof=1).mean()))
        assert "seeds, 8 degrees" in fit["noise_from"] and fit["seeds"] == [3, 3, 3, 3]
    else:
        assert (
            fit["noise"] == pytest.approx(2.8 / (2 * 1.959964)) and "interval" in fit["noise_from"]
        )


def test_what_has_no_law_says_why(tmp_path):
    few = curve([50, 55, 57], sizes=SIZES[:3])
    without = curve([50, 55, 57, 58], permutations=100)
    rewards = [each | {"metric": "reward"} for each in curve([5, 6, 7, 8])]
    rows = report.gather([records(tmp_path, *few, *without, *rewards)])[0]
    texts = [fit["text"] for fit in scaling.fits(rows)]
    assert texts == [
        "3 sizes: a law needs 4",
        "neither seeds nor intervals tell the noise: give --noise",
        "reward has no best value: no error, no law",
    ]


def test_lower_is_better_and_seeds_decide_the_draws(tmp_path):
    angles = [
        each | {"task": "normals", "metric": "median error"} for each in curve([30, 26, 24, 23.5])
    ]
    rows = report.gather([records(tmp_path, *angles)])[0]
    one, again, other = (next(scaling.fits(rows, noise=0.3, draws=100, seed=s)) for s in (0, 0, 1))
    assert one == again and one != other
    assert (
        20 < one["forecast"]["value"] < 23.6 and one["limit"]["value"] <= one["forecast"]["value"]
    )
    assert (
        one["forecast"]["interval"][0] < one["forecast"]["value"] < one["forecast"]["interval"][1]
    )


def test_the_command(tmp_path, run):
    found = curve([50, 55, 57, 58]) + curve([40, 41, 42], sizes=SIZES[:3], permutations=100)
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    done = run("fit-scaling", "r.jsonl", "--noise", "0.5", "--draws", "100", check=0)
    fits = [json.loads(line) for line in done.stdout.splitlines()]
    assert [("law" in fit) for fit in fits] == [True, False]
    assert done.stderr.decode() == "fit-scaling: 2 curves, 1 with a law\n"
    done = run(
        "fit-scaling", "r.jsonl", "--noise", "0.5", "--draws", "100", "--format", "text", check=0
    )
    first = done.stdout.decode().splitlines()[0]
    assert (
        first.startswith("svm, voc2007, alexnet jigsaw P=20")
        and ", seen 58.0; forecast at 1G: " in first
    )
    done = run("fit-scaling", "r.jsonl", "--against", "depth", check=1)
    assert b"no record has a number in 'depth' (numbers: " in done.stderr and not done.stdout
