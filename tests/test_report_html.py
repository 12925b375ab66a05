"""The page of report: what it holds, that it loads nothing, that its drawings tell the values."""

import html.parser
import http.server
import json
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

from ssl_common import tasks
from ssl_common.reporting import mosaic, page, report, scaling
from ssl_common.streams import DataError

SIZES = {"yfcc-1m": 10**6, "yfcc-10m": 10**7, "yfcc-50m": 5 * 10**7, "yfcc-100m": 10**8}
VOID = {"meta", "br", "hr"}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(page, "DRAWS", 50)


def record(task="svm", value=50.0, **fields):
    same = {"task": task, "data_set": "voc2007", "metric": "mAP", "arch": "alexnet"}
    same |= {"pretext": "jigsaw", "seed": 0, "layer": "conv4", "version": "0.2.0"}
    same |= {"test_images": 4952, "argv": ["eval-svm", "a b.npz"], "inputs": {"svm": "0123abcd"}}
    return same | {"value": value} | fields


def study(count=4, layers=("conv3", "conv4")):
    """Return records of all three axes: COUNT sizes, 2 networks, 2 |P|, 2 LAYERS."""
    rng, found = np.random.default_rng(0), []
    for name, images in list(SIZES.items())[:count]:
        for arch in ("alexnet", "resnet50"):
            for permutations in (100, 2000):
                for layer in layers:
                    value = 50 + 3 * np.log10(images / 1e6) + (arch == "resnet50") * 10
                    value += (permutations == 2000) * 2 + (layer == "conv4") + rng.normal(0, 0.3)
                    network = {"arch": arch, "permutations": permutations, "data_name": name}
                    network |= {"images": images, "model": f"{arch}{permutations}{name}"}
                    interval = [value - 1, value + 1]
                    found.append(record(value=value, layer=layer, interval=interval, **network))
    return found


def gathered(tmp_path, *found):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in found))
    return report.gather([str(path)])


class Reader(html.parser.HTMLParser):
    """Elements as they are nested, their attributes and the text of each cell."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.cells, self.rows = [], [], None, []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def read(tmp_path, *found, **more):
    text = page.page(*gathered(tmp_path, *found), **more)
    return text, Reader(text)


def test_it_loads_nothing_and_every_link_leads_to_a_place_on_it(tmp_path):
    text, reader = read(tmp_path, *study())
    tags = {tag for tag, _attributes in reader.elements}
    assert not tags & {"script", "style", "link", "img", "iframe", "object", "form", "base", "use"}
    names = {name for _tag, attributes in reader.elements for name in attributes}
    assert not names & {"style", "src", "srcset", "data", "xlink:href"}
    assert not [name for name in names if name.startswith("on")]
    links = [attributes["href"] for tag, attributes in reader.elements if tag == "a"]
    ids = [attributes["id"] for _tag, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and links and {link[:1] for link in links} == {"#"}
    assert {link[1:] for link in links} <= set(ids)
    assert "url(" not in text and "http" not in text.replace("http-equiv", "")


def test_a_number_leads_to_the_record_that_it_is_from(tmp_path):
    first = record(value=41.234, layer="conv3", model="m1")
    text, reader = read(tmp_path, first, record(value=45.678, layer="conv5", model="m1"))
    anchors = dict(re.findall(r'<a href="#(r\d+)">(?:\u2007|<b>)*([\d.]+)', text))
    entries = dict(re.findall(r'<li id="(r\d+)">(.*)</li>', text))
    shown = {number: entries[anchor] for anchor, number in anchors.items()}
    place = tmp_path / "r.jsonl"
    assert shown["41.23"].startswith(f"<b>{place}:1</b>: mAP 41.234; <code>eval-svm ")
    assert (
        "&#x27;a b.npz&#x27;</code>; version 0.2.0; arch=alexnet, inputs.svm=0123abcd"
        in (shown["41.23"])
    )
    assert shown["45.68"].startswith(f"<b>{place}:2</b>: mAP 45.678; ")
    assert ["network", "conv3", "conv5", "best"] in reader.rows


def test_the_same_records_give_the_same_bytes_and_nothing_of_them_is_markup(tmp_path):
    evil = "<script>alert('x')</script>\u202e&"
    found = [*study(), record(data_set=evil, layer=evil, model=evil, argv=[evil], tag=evil)]
    once, again = (read(tmp_path, *found)[0] for _time in range(2))
    assert once == again and "<script" not in once and "\u202e" not in once
    assert "&lt;script&gt;" in once


def test_the_axes_that_the_records_answer(tmp_path):
    text, _reader = read(tmp_path, *study())
    heads = re.findall("<h3>(.*?)</h3>", text.partition('id="curves"')[2].partition('id="cost"')[0])
    names = [head for head in heads if not head.startswith("svm, voc2007: ")]
    assert names == ["Layers", "Pre-training images", "Network", "Permutations of Jigsaw, |P|"]
    assert text.count("jigsaw over all three axes, ") == 2  # a chart a network
    assert "paper: resnet50 jigsaw P=2000" in text and 'href="#s1"' in text
    one, _reader = read(tmp_path, record())
    assert "<svg" not in one and 'id="curves"' not in one
    others = [name for name in tasks.TASKS if name != "svm"]
    assert f"Without a record: {', '.join(others)}." in one


def test_the_laws_are_those_of_fit_scaling(tmp_path):
    text, reader = read(tmp_path, *study())
    rows, _said = gathered(tmp_path, *study())
    want = {fit["text"] for fit in scaling.fits(rows, draws=page.DRAWS) if "law" in fit}
    assert len(want) == 4 and want <= {row[1] for row in reader.rows if len(row) == 2}
    assert text.count('stroke-dasharray="2 3"') == 4
    few, _reader = read(tmp_path, *study(count=3))
    assert 'id="laws"' not in few


def test_a_chart_tells_its_values(tmp_path):
    """Read back by its ticks, as an eye does."""
    values = {"conv1": 10.0, "conv3": 33.0, "conv5": 21.5}
    found = [
        record(value=v, layer=k, model="m", interval=[v - 2, v + 1]) for k, v in values.items()
    ]
    text, _reader = read(tmp_path, *found)
    svg = re.search("<svg.*?</svg>", text, re.S)[0]
    ticks = [
        (float(y) - 4, float(v))
        for y, v in re.findall(r'y="([\d.]+)" text-anchor="end"[^>]*>([\d.]+)<', svg)
    ]
    (y0, v0), (y1, v1) = ticks[0], ticks[-1]

    def value(y):
        return v0 + (float(y) - y0) * (v1 - v0) / (y1 - y0)

    path = re.search(r'd="M([^"]*)" fill="none" stroke="#0a7cc4" stroke-width="1.8"', svg)[1]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    assert [value(y) for _x, y in points] == pytest.approx(list(values.values()), abs=0.05)
    assert [x for x, _y in points] == sorted(x for x, _y in points)
    bars = re.findall(r'd="M[\d.]+ ([\d.]+)h8m-4 0V([\d.]+)m', svg)
    ends = [(value(low), value(high)) for low, high in bars]
    want = [(v - 2, v + 1) for v in values.values()]
    assert np.array(ends) == pytest.approx(np.array(want), abs=0.05)


def test_seeds_are_a_mean_and_each_leads_to_its_record(tmp_path):
    found = [
        record(value=v, seed=s, model=f"m{s}", layer=k)
        for s, v in enumerate([40.0, 44.0])
        for k in ("conv3", "conv4")
    ]
    _text, reader = read(tmp_path, *found)
    assert ["alexnet jigsaw, 2 seeds", *["42.00 = mean(40.00, 44.00)"] * 2] in reader.rows


def test_values_of_different_rules_never_share_a_table_or_a_line(tmp_path):
    chosen = [each | {"cost_from": "test"} for each in study()]
    rows, _said = gathered(tmp_path, *study(), *chosen)
    text = page.page(rows, "")
    assert {row.data_set for row in rows} == {"voc2007", "voc2007, cost_from=test"}
    assert "<h3>svm, voc2007, cost_from=test: mAP</h3>" in text
    assert text.count("mAP by Pre-training images. Of the best layer") == 2


def test_the_curve_of_a_training(tmp_path):
    log = tmp_path / "jigsaw.log.jsonl"
    steps = [{"step": 50 * i, "loss": 3.0 - i / 9, "accuracy": i / 10} for i in range(1, 6)]
    lines = [{"pretext": "jigsaw", "arch": "alexnet", "permutations": 20, "steps": 250}, *steps]
    log.write_text("".join(json.dumps(each) + "\n" for each in lines))
    text, _reader = read(tmp_path, record(), logs=[str(log)])
    assert "jigsaw.log.jsonl: accuracy of the training. Guessing: 5%" in text
    assert text.count("<svg") == 1 and "alexnet jigsaw P=20 250 steps" in text
    log.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(DataError, match="jigsaw.log.jsonl: no log of pretrain"):
        read(tmp_path, record(), logs=[str(log)])


def test_a_picture_is_drawn_pixel_by_pixel(tmp_path):
    rng = np.random.default_rng(1)
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 240]])
    pixels = colours[rng.integers(0, 4, (9, 14))].astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    drawn = np.zeros_like(pixels)
    svg = mosaic.svg(str(tmp_path / "a.png"), "a")
    for colour, path in re.findall(r'stroke="#(\w+)" d="(.*?)"', svg):
        x = y = 0
        for right, down, length in re.findall(r"m(-?\d+) (-?\d+)h(\d+)", path):
            x, y = x + int(right), y + int(down)
            drawn[y, x : x + int(length)] = list(bytes.fromhex(colour))
            x += int(length)
    assert np.array_equal(drawn, pixels)
    assert 'viewBox="0 -0.5 14 9"' in svg
    Image.new("RGB", (2000, 1000)).save(tmp_path / "b.png")
    assert 'viewBox="0 -0.5 283 141"' in mosaic.svg(str(tmp_path / "b.png"), "b")
    with pytest.raises(DataError, match="r.jsonl: no picture"):
        (tmp_path / "r.jsonl").write_text("{}")
        mosaic.svg(str(tmp_path / "r.jsonl"), "r")


def test_the_command_and_its_size(tmp_path, run):
    found = [
        each | {"seed": seed, "model": f"{each['model']}{seed}"}
        for seed in range(16)
        for each in study()
    ][:500]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    Image.new("RGB", (90, 60), "red").save(tmp_path / "a.png")
    words = ("report", "r.jsonl", "--html", "r.html", "--picture", "a.png", "-o", "r.md")
    done = run(*words, check=0)
    assert done.stderr.startswith(b"report: 500 records, ") and done.stderr.endswith(b"; r.html\n")
    size = (tmp_path / "r.html").stat().st_size
    assert 100_000 < size < 1_000_000
    done = run("report", "r.jsonl", "--log", "a.png", check=2)
    assert b"--log and --picture are for --html" in done.stderr
    done = run("report", "r.jsonl", "--html", "r.md", "-o", "r.md", check=2)
    assert b"--html and -o name the same file" in done.stderr
    before = (tmp_path / "r.html").read_bytes()
    done = run("report", "r.jsonl", "--html", "r.html", "--picture", "none.png", check=1)
    assert b"none.png: no picture: " in done.stderr and not done.stdout
    assert (tmp_path / "r.html").read_bytes() == before


class Strict(http.server.SimpleHTTPRequestHandler):
    """Sends the strictest policy there is with every page."""

    def end_headers(self):
        self.send_header("Content-Security-Policy", "default-src 'none'")
        super().end_headers()

    def log_message(self, *_words):
        self.server.asked.append(self.path)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_chromium_shows_it_under_the_strictest_policy(tmp_path, dark):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no chromium")
    text, _reader = read(tmp_path, *study())
    (tmp_path / "r.html").write_text(text)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *words: Strict(*words, directory=str(tmp_path))
    )
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
             f"--blink-settings=preferredColorScheme={0 if dark else 1}",
             "--window-size=1100,1400", f"--screenshot={tmp_path / 'r.png'}",
             f"http://127.0.0.1:{server.server_port}/r.html"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert "CONSOLE" not in done.stderr and done.returncode == 0, done.stderr
    assert {"/r.html"} <= set(server.asked) <= {"/r.html", "/favicon.ico"}
    pixels = np.asarray(Image.open(tmp_path / "r.png").convert("RGB")).astype(int)
    paper = pixels[-1, -1]
    assert (paper.max() < 64) if dark else (paper.min() > 250)
    blue = np.array([0x0A, 0x7C, 0xC4])  # of a chart's first line
    assert (np.abs(pixels - blue).max(2) < 8).sum() > 200
    ink = pixels[(np.abs(pixels - paper).max(2) > 128)]
    assert len(ink) > 2000  # there is text, and it can be told from the paper


@pytest.mark.slow
def test_a_parser_of_the_standard_finds_no_error(tmp_path):
    html5lib = pytest.importorskip("html5lib")
    Image.new("RGB", (90, 60), "red").save(tmp_path / "a.png")
    text, _reader = read(tmp_path, *study(), pictures=[str(tmp_path / "a.png")])
    html5lib.HTMLParser(strict=True).parse(text)
    if shutil.which("html-validate"):
        (tmp_path / "r.html").write_text(text)
        done = subprocess.run(
            ["html-validate", "--preset", "standard,a11y", str(tmp_path / "r.html")],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
