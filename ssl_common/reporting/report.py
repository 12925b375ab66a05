"""Records of results gathered into rows, one a network and task, with the paper's beside them."""

import functools
import json
import re
from collections import Counter
from importlib import resources
from typing import NamedTuple

from ssl_common import records, results, schema, streams
from ssl_common.streams import DataError

NO_LAYER = "-"  # the column of a value that belongs to no layer
UNKNOWN = "?"  # what a record does not say
BEST = "best"  # where a published row gives only the best layer
TOLERANCE = 0.05  # of the number of images of a data set: copies of it lose a few
PERCENTAGES = ("mAP", "top-1")  # metrics
DIGITS = 8  # of a digest in a label

# Which fields decide a measurement, results.identity() says. These are another for each layer of a
# network and stand in one row all the same.
OF_A_LAYER = ("layer", "shape", "train_features", "inputs.svm", "inputs.features")
# These label() shows; any other stands in the label where two rows would else have the same one.
LABELLED = ("arch", "pretext", *results.SIZES, "data_name", "images", "seed", "steps", "cache")
LABELLED += ("k", "samples")
# The examples of training and test. Networks are compared on the same, so what differs in a task
# and data set is shown, as far as it tells more of these apart than what is before it.
EXAMPLES = ("seen", "train_images", "train_manifest", "train_labels")
EXAMPLES += ("test_images", "test_manifest", "inputs.manifest")
# Shown last, as far as they tell more rows apart than what is before them: what follows from other
# settings as a rule, and digests, which say nothing to people.
FAINT = ("epochs", "micro_batch", "synced_ranks", "optimizer", "momentum", "nesterov")
FAINT += ("weight_decay", "decay_biases", "bn_momentum", "bn_affine", "warm_up", "drops")
FAINT += ("warp", "crop", "flip", "jitter", "lighting", "train_dtype", "version")
FAINT += ("model", "data", "samples_digest", "inputs.model", *OF_A_LAYER)


class Row(NamedTuple):
    """A line of the report: VALUES {layer: number}, RECORDS {layer: what it was taken from}.

    ABOUT is what decided the values, and where they stand. A published row has a SOURCE, where it
    was read, and the setting it was published for as record.
    """

    task: str
    data_set: str
    metric: str
    label: str
    values: dict
    records: dict
    about: dict
    source: str | None = None

    def best(self):
        """Return (layer, value) of the best layer, the first of equals; no layer: (None, value)."""
        layers = {k: value for k, value in self.values.items() if k not in (NO_LAYER, BEST)}
        if not layers:
            return None, max(self.values.values())
        layer = max(layers, key=layers.get)
        return layer, layers[layer]


# ---- From records to rows -----------------------------------------------------------------------


def gather(paths):
    """Return (rows, what is said of them) of the records in the .jsonl files or pipes PATHS.

    A record replaces an earlier one of the same identity. Rows stand in the order of their first
    record, a published one below those that it matches. Raises DataError at a line that is no
    result.
    """
    networks, count, changed = {}, 0, 0
    for path in paths:
        for number, record in records.read(path):
            where = f"{streams.name(path)}:{number}"
            _check(record, where)
            count += 1
            record = _by_usual_names(record)
            shared, own = _keys(record, where)
            layers = networks.setdefault(shared, {})
            changed += own in layers and layers[own][0]["value"] != record["value"]
            layers[own] = record, where
    if not count:
        raise DataError(f"{streams.name(paths[0])}: no record: write some with eval-svm")
    groups = {}
    for layers in networks.values():
        for found in _aligned(list(layers.values())):
            row = _row(found)
            groups.setdefault(row[:3], []).append(row)
    rows = []
    for group in groups.values():
        labels = told_apart([row.label for row in group], [row.about for row in group])
        for row, each in zip(group, labels, strict=True):
            published = paper_row(row)
            if published and rows and rows[-1] == published:  # once, below all that it is for
                rows.pop()
            rows += [row._replace(label=each)] + ([published] if published else [])
    replaced = count - sum(map(len, networks.values()))
    said = f"{count} records, {len(rows)} rows"
    said += f"; {replaced} replaced by a later one" if replaced else ""
    said += f", {changed} of them by another value" if changed else ""
    return rows, said


def _check(record, where):
    """Raise DataError, naming WHERE, if RECORD is not a result."""
    if not isinstance(record.get("task"), str) or record.get("value") is None:
        raise DataError(f"{where}: not a result: it has no task and value, as eval-svm writes them")
    results.check(record, where)
    if record.get("metric") in PERCENTAGES and not results.PERCENT.holds(record["value"]):
        message = f"value is {record['value']}, not {results.PERCENT.words}"
        raise DataError(f"{where}: {message}: delete the line")
    if record.get("layer") in (BEST, NO_LAYER):
        raise DataError(f"{where}: the layer {record['layer']} has the name of another column")


def _by_usual_names(record):
    """Return RECORD with its data sets called what published.json calls them."""
    usual = {}
    for name in ("data_set", "data_name"):
        if (said := _squeezed(record.get(name) or "")) in _published().names:
            usual[name] = _published().names[said]
    return record | usual


def _keys(record, where):
    """Return what decides RECORD, found WHERE: that of its row, and that of its layer alone."""
    identity = results.identity(record)
    told = ("layer", "model", "arch", "pretext")
    if not any(name in told or name.startswith("inputs.") for name in identity):
        identity["where"] = where  # says nothing of itself: not known to equal any other
    shared = {name: value for name, value in identity.items() if name not in OF_A_LAYER}
    own = {name: identity[name] for name in OF_A_LAYER if name in identity}
    return frozen(shared), frozen(own)


def frozen(fields):
    """Return FIELDS as something that can be a key."""
    return frozenset((name, _plain(value)) for name, value in fields.items())


def _plain(value):
    """Return VALUE as something that can be a key."""
    is_plain = value is None or type(value) in (str, int, float)
    return value if is_plain else (json.dumps(value, sort_keys=True),)


def _aligned(found):
    """Yield {layer: (record, where)} of FOUND, which OF_A_LAYER alone tells apart: mostly one.

    Where a layer was measured several times, from other files, the n-th of each layer stand
    together, first those of one version of ssl-bench.
    """
    named = [(str(record.get("layer") or NO_LAYER), (record, where)) for record, where in found]
    once, versions = len(dict(named)) == len(named), {}
    for layer, (record, where) in named:
        version = None if once else record.get("version")
        versions.setdefault(version, []).append((layer, (record, where)))
    for some in versions.values():
        rows, times = [], Counter()
        for layer, each in some:
            if times[layer] == len(rows):
                rows.append({})
            rows[times[layer]][layer] = each
            times[layer] += 1
        yield from rows


def _row(found):
    """Return the Row of FOUND, {layer: (record, where)}."""
    first, where = next(iter(found.values()))
    about = {"seen": 0} | results.identity(first)
    about |= {"version": first.get("version"), "where": where}
    values = {layer: record["value"] for layer, (record, _where) in found.items()}
    said = {layer: record for layer, (record, _where) in found.items()}
    names = (first["task"], first.get("data_set") or UNKNOWN, first.get("metric") or UNKNOWN)
    return Row(*names, label(first), values, said, about)


# ---- Labels -------------------------------------------------------------------------------------


def label(record):
    """Return how the report calls the network of RECORD: alexnet jigsaw P=100 (2,686 images)."""
    said = [str(record[name]) for name in ("arch", "pretext") if record.get(name)]
    if not said:
        said = [str(record.get("model") or UNKNOWN)]
    for name, mark in results.SIZES.items():
        if record.get(name) is not None:
            said.append(f"{mark.strip('|')}={record[name]}")
    data = [str(record["data_name"])] if record.get("data_name") else []
    if record.get("images") is not None:
        data.append(f"{record['images']:,} images")
    if data:
        said.append(f"({', '.join(data)})")
    if record.get("seed") is not None:
        said.append(f"seed {record['seed']}")
    if record.get("steps") is not None:
        said.append(f"{record['steps']:,} steps" + (", cached" if record.get("cache") else ""))
    if record.get("k") is not None:
        said.append(f"k={record['k']} ({record.get('samples', '?')} samples)")
    return " ".join(said)


def told_apart(labels, about):
    """Return LABELS, of one task and data set, each with what tells it from the others.

    ABOUT are {field: value}, for each label. Added is what differs: the examples, over all; and any
    other field where labels would else be the same.
    """
    labels, every = list(labels), range(len(labels))

    def add(chosen, names):
        values = _values([about[i] for i in chosen])
        short = {name for name in names if _are_digests(values[name])}
        for i in chosen:
            for name, value in about[i].items():
                if name in names and value is not None:
                    text = value if isinstance(value, str) else schema.shown(value)
                    labels[i] += f" {name}={text[:DIGITS] if name in short else text}"

    def alike():
        groups = {}
        for i, each in enumerate(labels):
            groups.setdefault(each, []).append(i)
        return [group for group in groups.values() if len(group) > 1]

    values = _values(about)
    add(every, _splitting(about, every, [n for n in EXAMPLES if len(values.get(n, ())) > 1]))
    for group in alike():
        add(group, _differing([about[i] for i in group]))
    last = [name for name in results.FIELDS if name not in (*LABELLED, *EXAMPLES, *FAINT)]
    for group in alike():
        add(group, _splitting(about, group, (*EXAMPLES, *FAINT, *last, "where")))
    return labels


def _values(about):
    """Return {field: its values in ABOUT}."""
    values = {}
    for each in about:
        for name, value in each.items():
            if value is not None:
                values.setdefault(name, set()).add(_plain(value))
    return values


def _differing(about):
    """Return the fields that people look for and that are not the same in all of ABOUT.

    One of ours that is missing is no difference here: records of older versions have fewer.
    """
    count = Counter(name for each in about for name, value in each.items() if value is not None)
    values = _values(about)
    differing = {name for name in values if len(values[name]) > 1}
    differing |= {name for name in values if count[name] < len(about)} - set(results.FIELDS)
    return differing.difference(LABELLED, EXAMPLES, FAINT, ["where"])


def _are_digests(values):
    """Return whether VALUES are digests that their first DIGITS tell apart."""
    digests = all(re.fullmatch("[0-9a-f]{16}", str(value)) for value in values)
    return digests and len({value[:DIGITS] for value in values}) == len(values)


def _splitting(about, chosen, names):
    """Return those of NAMES that tell apart more of ABOUT[CHOSEN] than the ones before them."""
    group, count, taken = dict.fromkeys(chosen, 0), 1, []
    for name in names:
        finer, numbers = {}, {}
        for i in chosen:
            key = (group[i], _plain(about[i].get(name)))
            finer[i] = numbers.setdefault(key, len(numbers))
        if len(numbers) > count:
            group, count = finer, len(numbers)
            taken.append(name)
    return taken


# ---- The paper's numbers ------------------------------------------------------------------------


class _Published(NamedTuple):
    """What published.json holds.

    NAMES are {squeezed spelling of a data set: its name there}, ROWS {_setting(): [row]}.
    """

    names: dict
    rows: dict


@functools.cache
def _published():
    text = resources.files("ssl_common.reporting").joinpath("published.json").read_text("utf-8")
    content, names, rows = json.loads(text), {}, {}
    for name, others in content["spellings"].items():
        names |= {_squeezed(each): name for each in (name, *others)}
    for row in content["rows"]:
        rows.setdefault(_setting(row["setting"]), []).append(row)
    return _Published(names, rows)


def _squeezed(name):
    """Return NAME without what spellings differ in: voc2007 for VOC-2007."""
    return re.sub("[-_ ]", "", name).lower()


def _setting(fields):
    """Return what tells most settings apart, of a record or a published row."""
    return tuple(str(fields.get(name)).lower() for name in ("task", "data_set", "arch", "pretext"))


def paper_row(row):
    """Return the published Row of the setting of ROW, or None; the first in published.json."""
    record = row.about
    for published in _published().rows.get(_setting(record), ()):
        if all(_agrees(record, *item) for item in published["setting"].items()):
            source = f"{published['source']} ({published['how']})"
            source += f"; {published['note']}" if "note" in published else ""
            values = published["values"]
            said = dict.fromkeys(values, published["setting"])
            return row._replace(
                label="paper",
                values=values,
                records=said,
                about=published["setting"],
                source=source,
            )
    return None


def _agrees(record, name, wanted):
    """Return whether field NAME of RECORD is what a published setting says."""
    value = record.get(name)
    if name == "images" and value is not None:
        return abs(value - wanted) <= TOLERANCE * wanted
    if isinstance(wanted, str):
        return isinstance(value, str) and value.lower() == wanted
    return value == wanted
