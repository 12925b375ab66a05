"""The plots of report, read back from what was drawn as a viewer reads them: by the legend."""

import json
import math
import sys

import pytest
from matplotlib import colors

from ssl_common.reporting import plots, report
from ssl_common.reporting.published import publication
from ssl_common.streams import DataError

SVM = {"task": "svm", "data_set": "voc2007", "metric": "mAP", "test_images": 4952, "svm_seed": 0}
ALEXNET = SVM | {"arch": "alexnet", "pretext": "jigsaw", "permutations": 100, "seed": 0}


def rows(tmp_path, *found):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    return report.gather([str(path)])[0]


def network(values, **fields):
    """Return the records of a network, {layer: value}; its digest comes from FIELDS."""
    model = f"{abs(hash(repr(sorted(fields.items(), key=str)))):016x}"
    return [
        {"model": model} | ALEXNET | fields | {"layer": k, "value": v} for k, v in values.items()
    ]


def look(of):
    """Return what tells one line from another."""
    style = "level" if of.get_marker() in ("", "None") else of.get_marker()
    return colors.to_hex(of.get_color()), style, of.get_linestyle()


def read(figure):
    """Return [{name: [(x, y)]}], a panel a dict: each line by the entry of the legend like it."""
    (legend,) = figure.legends
    names = {
        look(handle): " ".join(text.get_text().split())
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
    }
    assert len(names) == len(legend.get_texts()), "two entries look alike"
    panels = []
    for ax in figure.axes:
        lines = [line for line in ax.get_lines() if line.get_label() != "best"]
        lines = [line for line in lines if line.get_marker() != "_"]  # caps of bars
        panels.append(
            {names[look(each)]: list(zip(*each.get_data(), strict=True)) for each in lines}
        )
        assert len(panels[-1]) == len(lines)
    return panels


def bars(ax):
    """Return {x: (least, greatest)} of the bars of AX."""
    segments = [s for collection in ax.collections for s in collection.get_segments()]
    return {segment[0][0]: (segment[0][1], segment[1][1]) for segment in segments}


def ticks(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_layers_in_network_order_and_the_best_ringed(tmp_path):
    first, second = {"conv4": 30.5, "conv1": 20.0, "conv3": 31.5}, {"conv1": 11.0, "conv4": 9.0}
    found = rows(tmp_path, *network(first), *network(second, pretext="random"))
    figure, left_out = plots.figure(found)
    (panel,) = read(figure)
    (ax,) = figure.axes
    assert ticks(ax) == ["conv1", "conv3", "conv4"] and left_out == 0
    assert panel == {
        "alexnet jigsaw P=100 seed 0": [(0, 20.0), (1, 31.5), (2, 30.5)],
        "alexnet random P=100 seed 0": [(0, 11.0), (2, 9.0)],
    }
    rings = [line.get_xydata().tolist() for line in ax.get_lines() if line.get_label() == "best"]
    assert rings == [[[1, 31.5]], [[0, 11.0]]]
    assert ax.get_title() == "svm, voc2007" and ax.get_ylabel() == "mAP" and not bars(ax)


def test_a_stage_of_two_networks_has_one_place(tmp_path):
    found = rows(
        tmp_path,
        *network({"conv1": 1.0, "pool1": 2.0, "conv2": 3.0, "conv3": 4.0}),
        *network({"conv1": 5.0, "res2": 6.0, "res3": 7.0}, arch="resnet50"),
    )
    figure, _ = plots.figure(found)
    assert ticks(figure.axes[0]) == ["conv1", "pool1", "conv2\nres2", "conv3\nres3"]
    (panel,) = read(figure)
    assert panel["resnet50 jigsaw P=100 seed 0"] == [(0, 5.0), (2, 6.0), (3, 7.0)]


def test_seeds_are_a_mean_and_bars(tmp_path):
    values = {0: (20.0, 30.0), 1: (23.0, 31.0), 2: (26.0, 35.0)}
    made = [
        record
        for seed, (a, b) in values.items()
        for record in network({"conv1": a, "conv2": b}, seed=seed)
    ]
    figure, _ = plots.figure(rows(tmp_path, *made[:-1]))  # the last seed has conv1 alone
    (panel,) = read(figure)
    assert panel == {"alexnet jigsaw P=100, 2 to 3 seeds": [(0, 23.0), (1, 30.5)]}
    assert bars(figure.axes[0]) == {0: (20.0, 26.0), 1: (30.0, 31.0)}
    figure, _ = plots.figure(rows(tmp_path, *made, *network({"conv1": 22.0}, svm_seed=1)))
    assert [name[-7:] for name in read(figure)[0]] == ["4 seeds"]


def test_the_bar_of_one_value_is_its_interval(tmp_path):
    """By layer and against a field; several seeds have the bars of their values instead."""
    made = network({"conv1": 20.0, "conv2": 31.0}, images=1000)
    for record, interval in zip(made, ([18.0, 23.0], [30.5, 33.0]), strict=True):
        record["interval"] = interval
    figure, _ = plots.figure(rows(tmp_path, *made))
    assert bars(figure.axes[0]) == {0: (18.0, 23.0), 1: (30.5, 33.0)}
    assert figure.legends[0].get_title().get_text().startswith("bars of one seed: 95% interval")
    figure, _ = plots.figure(rows(tmp_path, *made), "images")
    assert bars(figure.axes[0]) == {1000: (30.5, 33.0)}  # of the best layer
    other = [record | {"value": record["value"] + 1, "seed": 1} for record in made]
    figure, _ = plots.figure(rows(tmp_path, *made, *other))
    assert bars(figure.axes[0]) == {0: (20.0, 21.0), 1: (31.0, 32.0)}


def test_networks_that_differ_in_more_than_the_records_say_have_no_mean(tmp_path):
    made = [network({"conv1": v}, model=model)[0] for model, v in (("aa", 1.0), ("bb", 5.0))]
    figure, _ = plots.figure(rows(tmp_path, *made))
    assert read(figure) == [
        {f"alexnet jigsaw P=100 seed 0 model={m}": [(0, v)] for m, v in (("aa", 1.0), ("bb", 5.0))}
    ]
    little = (
        {"task": "x", "value": 1, "model": m, "layer": "a", "seed": i}
        for i, m in [(0, "j"), (1, "k")]
    )
    figure, _ = plots.figure(rows(tmp_path, *little))
    assert read(figure) == [{"j seed 0": [(0, 1)], "k seed 1": [(0, 1)]}]


def test_panels(tmp_path):
    found = rows(
        tmp_path,
        *network({"conv1": 1.0}),
        *network({"conv2": 2.0}, data_set="coco2014"),
        *network({"a": 3.0}, task="linear", metric="top-1"),
        *network({None: 4.0}, task="detection"),
    )
    figure, _ = plots.figure(found)
    name = "alexnet jigsaw P=100 seed 0"
    assert read(figure) == [{name: [(0, float(v))]} for v in (1, 2, 3, 4)]
    assert [ax.get_title() for ax in figure.axes] == [
        "svm, voc2007", "svm, coco2014", "linear, voc2007", "detection, voc2007",
    ]  # fmt: skip
    assert [ticks(ax) for ax in figure.axes] == [["conv1"], ["conv2"], ["a"], ["no layer"]]
    assert len(figure.legends[0].get_texts()) == 1


def published(**fields):
    every = [row for some in publication().entries.values() for row in some]
    (match,) = [row for row in every if fields.items() <= row["setting"].items()]
    return match["values"]


def test_the_paper_is_dashed_in_the_colour_of_its_row(tmp_path):
    resnet = {"arch": "resnet50", "permutations": 2000, "data_name": "yfcc-100m"}
    ours = network({"res4": 70.0, "res5": 60.0}, images=99_200_000, **resnet)
    ours += network({"conv4": 50.0}, data_name="yfcc-1m", images=1_000_000)
    figure, _ = plots.figure(rows(tmp_path, *ours))
    theirs = published(task="svm", pretext="jigsaw", **resnet)
    best = published(task="svm", arch="alexnet", data_name="yfcc-1m", permutations=100)["best"]
    (panel,) = read(figure)
    name = "paper: resnet50 jigsaw P=2000 (yfcc-100m, 100,000,000 images)"
    layers = ["conv1", "res2", "res3", "res4", "res5"]
    assert panel[name] == [(i, theirs[layer]) for i, layer in enumerate(layers)]
    level = panel["paper: alexnet jigsaw P=100 (yfcc-1m, 1,000,000 images)"]
    assert [y for _x, y in level] == [best, best]
    by_look = {look(line): line for line in figure.axes[0].get_lines()}
    dashed = [colour for colour, _marker, style in by_look if style == "--"]
    solid = [colour for colour, _marker, style in by_look if style == "-"]
    assert sorted(dashed) == sorted(set(solid)) and len(dashed) == 2


def test_two_rows_of_one_published_number_draw_it_once(tmp_path):
    """Its |P| is not printed, so any matches."""
    fields = {"arch": "resnet50", "data_name": "imagenet-1k", "images": 1281167}
    made = [network({"res4": v}, permutations=p, **fields)[0] for p, v in ((100, 60), (200, 61))]
    found = rows(tmp_path, *made)
    assert [row.label for row in found].count("paper") == 1
    (panel,) = read(plots.figure(found)[0])
    assert [name[:5] for name in sorted(panel)] == ["paper", "resne", "resne"]


SIZES = {"yfcc-1m": 1_000_000, "yfcc-10m": 9_980_000, "yfcc-100m": 99_200_000}


def test_against_images(tmp_path):
    """The best layer of each, its seeds averaged; the samples of one data set are one line."""
    made, mean = [], {}
    for number, (name, images) in enumerate(SIZES.items()):
        fields = {"data_name": name, "images": images, "permutations": 7}
        for seed in (0, 1, 2):
            values = {"conv3": 30.0 + seed + number, "conv5": 31.0 if seed == 0 else 10.0}
            made += network(values, seed=seed, **fields)
        mean[images] = (max(31.0, 30.0 + number) + 31.0 + number + 32.0 + number) / 3
    made += network({"conv3": 55.5}, data_name="imagenet-1k", images=1_281_167)
    made += network({"conv3": 20.0, "conv4": 21.0}, pretext="random", images=None)
    figure, left_out = plots.figure(rows(tmp_path, *made), "images")
    (panel,), (ax,) = read(figure), figure.axes
    assert left_out == 2
    assert dict(panel["alexnet jigsaw P=7 (yfcc), 3 seeds"]) == pytest.approx(mean)
    assert panel["alexnet jigsaw P=100 (imagenet-1k) seed 0"] == [(1_281_167, 55.5)]
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "mAP of the best layer"
    assert bars(ax)[1_000_000] == (31.0, 32.0)


def test_against_images_the_paper(tmp_path):
    fields = {"arch": "resnet50", "permutations": 2000}
    made = [network({"res4": 1.0}, data_name=n, images=i, **fields)[0] for n, i in SIZES.items()]
    (panel,) = read(plots.figure(rows(tmp_path, *made), "images")[0])
    numbers = [
        (published(**fields, pretext="jigsaw", data_name=name, task="svm"), size)
        for name, size in zip(SIZES, (1e6, 1e7, 1e8), strict=True)
    ]
    wanted = [(size, max(values.values())) for values, size in numbers]
    assert panel["paper: resnet50 jigsaw P=2000 (yfcc)"] == wanted


def test_against_the_seed_and_a_field_of_ones_own(tmp_path):
    made = [network({"conv1": 5.0 + s}, seed=s)[0] for s in (0, 1, 2)]
    figure, _ = plots.figure(rows(tmp_path, *made), "seed")
    assert read(figure) == [{"alexnet jigsaw P=100": [(0, 5.0), (1, 6.0), (2, 7.0)]}]
    assert figure.axes[0].get_xscale() == "linear"
    made = [network({"conv1": 5.0 + n}, epochs=n, arch=a)[0] for n in (10, 90) for a in ("x", "y")]
    for field in ("epochs", "permutations"):
        (panel,) = read(plots.figure(rows(tmp_path, *made), field)[0])
        if field == "epochs":
            names = [f"{a} jigsaw P=100 seed 0" for a in ("x", "y")]
            assert panel == {name: [(10, 15.0), (90, 95.0)] for name in names}
        else:  # what else differs makes other lines
            names = [f"{a} jigsaw seed 0 epochs={n}" for a in ("x", "y") for n in (10, 90)]
            assert sorted(panel) == sorted(names)


@pytest.mark.parametrize(
    "numbers, scale",
    [
        ([1, 9.99], "linear"),
        ([1, 10], "log"),
        ([0.001, 0.01], "log"),
        ([100, 701, 2000, 5000, 10000], "log"),
        ([0, 1000], "linear"),
        ([-1, 1000], "linear"),
        ([5], "linear"),
    ],
)
def test_the_axis_is_logarithmic_from_a_decade_on(tmp_path, numbers, scale):
    made = [network({"conv1": 5.0}, width=n)[0] for n in numbers]
    figure, _ = plots.figure(rows(tmp_path, *made), "width")
    (ax,) = figure.axes
    assert ax.get_xscale() == scale
    assert ("log scale" in ax.get_xlabel()) == (scale == "log")
    low, high = ax.get_xlim()
    assert low < min(numbers) and max(numbers) < high
    if len(numbers) == 5:
        assert ticks(ax) == ["100", "701", "2,000", "5,000", "10,000"]


@pytest.mark.parametrize(
    "number, text",
    [(7, "7"), (0.0004, "0.0004"), (99_999, "99,999"), (999_999, "1M"), (1_281_167, "1.28M"),
     (100_000, "100k"), (-2_500_000, "-2.5M"), (1e10, "10G")],
)  # fmt: skip
def test_short(number, text):
    assert plots.short(number) == text


@pytest.mark.parametrize("value", [None, "many", True, [5]])
def test_a_field_without_a_number(tmp_path, value):
    made = network({"conv1": 5.0}, width=value)
    numbers = r"\(numbers: permutations, seed, svm_seed, test_images\)"
    with pytest.raises(DataError, match=f"no record has a number in 'width' {numbers}"):
        plots.figure(rows(tmp_path, *made), "width")


@pytest.mark.parametrize("count, length, tasks", [(1, 3, 1), (9, 200, 1), (30, 12, 9)])
def test_the_legend_hides_nothing_and_no_two_lines_look_alike(tmp_path, count, length, tasks):
    names = [f"{n:{length}}".replace(" ", "ab ") for n in range(count)]
    made = [
        network({"conv1": 1.0 + n, "conv2": 2.0}, data_name=name, task=f"t{task}")
        for n, name in enumerate(names)
        for task in range(tasks)
    ]
    figure, _ = plots.figure(rows(tmp_path, *sum(made, [])))
    assert [len(panel) for panel in read(figure)] == [count] * tasks
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    for ax in figure.axes:
        assert not legend.overlaps(ax.get_tightbbox())
        assert ax.get_window_extent().height > 150  # of 100 pixels an inch
    assert legend.y0 >= 0 and legend.x1 <= figure.bbox.x1


def test_a_name_is_shown_as_it_is(tmp_path):
    made = network({"conv1": 1.0}, arch="_$x_1$<b>&", data_name="写真")
    svg, _ = plots.render(rows(tmp_path, *made), "a.svg")
    assert "_$x_1$&lt;b&gt;&amp; jigsaw P=100 (写真) seed 0" in svg.decode()


@pytest.mark.parametrize(
    "suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")]
)
def test_the_same_bytes_without_date_or_version(tmp_path, suffix, magic):
    found = rows(tmp_path, *network({"conv1": 1.0, "conv2": 3.0}))
    first, second = (plots.render(found, f"{name}.{suffix}")[0] for name in "ab")
    assert first == second and first.startswith(magic)
    for word in (b"Matplotlib v", b"matplotlib.org/\n", b"Date", b"Producer", b"dc:date"):
        assert word not in first


def test_lines_of_seeds_are_told_apart_as_rows_are(tmp_path):
    """Networks measured with classifiers of 12 and of 30 images, three seeds each."""
    made = [
        record | {"train_images": images, "inputs": {"svm": f"{images} {seed}"}}
        for images in (12, 30)
        for seed in (0, 1, 2)
        for record in network({"conv1": images + seed}, seed=seed)
    ]
    (panel,) = read(plots.figure(rows(tmp_path, *made))[0])
    name = "alexnet jigsaw P=100 train_images={}, 3 seeds"
    assert panel == {name.format(images): [(0, images + 1)] for images in (12, 30)}
    (panel,) = read(plots.figure(rows(tmp_path, *made), "train_images")[0])
    assert panel == {"alexnet jigsaw P=100, 3 seeds": [(12, 13), (30, 31)]}


def test_more_lines_than_looks(tmp_path):
    """The best have a look each; the others are there, alike, and counted."""
    count = plots.LOOKS + 44
    made = [network({"conv1": n, "conv2": n / 2}, data_name=f"d{n}")[0] for n in range(count)]
    figure, _ = plots.figure(rows(tmp_path, *made))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[-1] == "44 others" and len(names) == plots.LOOKS + 1
    assert {f"(d{n})" for n in range(44, count)} == {name.split()[3] for name in names[:-1]}
    (panel,) = read(figure)
    drawn = [y for _x, y in panel.pop("44 others") if not math.isnan(y)]
    assert drawn == list(range(44))
    assert sorted(y for ((_x, y),) in panel.values()) == list(range(44, count))


def test_more_panels_than_can_be_looked_at(tmp_path):
    made = [network({"conv1": 1.0}, data_set=f"d{n}")[0] for n in range(plots.PANELS + 1)]
    with pytest.raises(DataError, match="^--plot: 61 tasks and data sets, a panel each, but 60"):
        plots.figure(rows(tmp_path, *made))


def test_more_layers_than_an_axis_names(tmp_path):
    made = network({f"{n:03}" + 30 * "x": n / 2 for n in range(100)})
    figure, _ = plots.figure(rows(tmp_path, *made))
    names = ticks(figure.axes[0])
    assert names[:2] == [f"000{20 * 'x'}…", f"003{20 * 'x'}…"] and len(names) == 34
    ((points,),) = (panel.values() for panel in read(figure))
    assert points == [(n, n / 2) for n in range(100)]


@pytest.mark.parametrize(
    "numbers", [[0], [7, 7], [1e300, -1e300], [10**299, 2], [1, 1 + 2**-52], [5e-324, 2], ["3", 4]],
    ids=str,
)  # fmt: skip
def test_any_number_can_be_drawn(tmp_path, numbers):
    """Text that spells one is one: so --tag gives the fields of a user."""
    made = [network({"conv1": 1.0}, arch=f"a{i}", width=n)[0] for i, n in enumerate(numbers)]
    svg, left_out = plots.render(rows(tmp_path, *made), "a.svg", "width")
    assert left_out == 0 and svg.startswith(b"<?xml")
    made = [{"task": "x", "value": float(n), "layer": f"l{i}"} for i, n in enumerate(numbers)]
    assert plots.render(rows(tmp_path, *made), "a.png")[0].startswith(b"\x89PNG")


def test_the_work_grows_as_the_lines(tmp_path):
    def calls(count, against=None):
        made = [
            network({"conv1": n % 90}, data_name=f"d{n}", images=n + 1)[0] for n in range(count)
        ]
        gathered, found = rows(tmp_path, *made), 0

        def see(_frame, event, _argument):
            nonlocal found
            found += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(see)
        try:
            plots.figure(gathered, against)
        finally:
            sys.setprofile(before)
        return found

    calls(10)  # what is imported
    for against in (None, "images"):
        assert calls(800, against) < 2.2 * calls(400, against)
