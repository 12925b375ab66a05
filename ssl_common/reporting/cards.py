"""The card of a network: what it is, how it is fed, and what it was measured to be worth.

A folder as the Hub of Hugging Face has it: config.json, model.safetensors, README.md, which begins
with what the Hub reads of it, in YAML.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_common import legible, streams
from ssl_common.models.foreign import conversion, hub, metadata, naming
from ssl_common.models.foreign.weights import Weights
from ssl_common.models.trunk import Trunk
from ssl_common.reporting import report, tables
from ssl_common.reporting.rows import NO_LAYER, Row
from ssl_common.streams import DataError

KINDS = {"detection": "object-detection"}  # what the Hub calls a task; others it does not know
CLASSIFYING = ("svm", "low-shot", "linear", "finetune")


def convert(
    weights: Weights, output: str, form: str, tags: Mapping[str, Any], results: Sequence[str]
) -> tuple[str, str]:
    """Write the trunk of WEIGHTS to OUTPUT as conversion.convert() does, or in the form hub-dir.

    That is a folder, whose card holds what the records in RESULTS, .jsonl files, say of it.
    """
    if form != "hub-dir":
        return conversion.convert(weights, output, form, tags)
    trunk, settings = weights.trunk(lent=True), conversion.settings_of(weights, tags)
    digest = conversion.digest_of(weights, trunk)
    rows = _rows(digest, results)
    names = "timm" if conversion.names_for_timm(trunk) else naming.OWN.kind
    width = _width(trunk)
    with streams.writing_folder(output.rstrip("/") or output) as folder:
        with open(os.path.join(folder, hub.WEIGHTS), "wb") as stream:
            conversion.write_named(stream, trunk, digest, settings, names)
        config = json.dumps(hub.configuration(trunk, settings, width), indent=2)
        _write(folder, hub.CONFIG, f"{config}\n")
        _write(folder, hub.CARD, card(trunk, digest, settings, rows, _name(output)))
    said = conversion.in_words(weights, settings)
    return f"{said}; {len(rows)} rows of results" if results else said, ""


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
        stream.write(text)


def _name(output: str) -> str:
    return os.path.basename(os.path.abspath(output))


def _width(trunk: Trunk) -> int:
    """Return how many channels the last map of TRUNK has."""
    weights = [each for name, each in trunk.state_dict().items() if each.dim() == 4]
    return int(weights[-1].shape[0])


def _rows(digest: str, results: Sequence[str]) -> list[Row]:
    """Return the rows of the records in RESULTS that are of the trunk of DIGEST.

    Raises DataError where none is.
    """
    if not results:
        return []
    rows = [
        row
        for row in report.gather(results)[0]
        if row.source is None and all(r.get("model") == digest for r in row.records.values())
    ]
    if not rows:
        raise DataError(
            f"{streams.name(results[0])}: no record is of this network, model {digest}: leave out"
            " --results, or measure it"
        )
    return rows


# ---- The card -----------------------------------------------------------------------------------


def card(
    trunk: Trunk, digest: str, settings: Mapping[str, Any], rows: Sequence[Row], name: str
) -> str:
    """Return the card of TRUNK of DIGEST, called NAME, of its SETTINGS and ROWS; Markdown."""
    parts = ["\n".join(["---", *_front(trunk, settings, rows, name), "---"]), f"# {_text(name)}"]
    parts += [_about(trunk, digest, settings)]
    parts += ["## Images", _feeding(trunk), "## Use", _use(trunk, name)]
    if rows:
        parts += ["## Measured", f"The best layer is bold.\n\n{tables.markdown(rows).rstrip()}"]
    return "\n\n".join(parts) + "\n"


def _text(value: Any) -> str:
    return legible.cell(value)


def _front(
    trunk: Trunk, settings: Mapping[str, Any], rows: Sequence[Row], name: str
) -> Iterator[str]:
    """Yield the lines that the Hub reads; what stands behind a colon is JSON, which YAML reads."""
    timm = conversion.names_for_timm(trunk)
    front: dict[str, Any] = {
        "library_name": "timm" if timm else "ssl-bench",
        "pipeline_tag": "image-feature-extraction",
        "license": settings.get("license"),
        "tags": ["self-supervised-learning", "ssl-bench", *["timm"] * timm],
    }
    front["tags"] += [settings["pretext"]] if settings.get("pretext") else []
    if rows:
        front["model-index"] = [{"name": name, "results": list(map(_result, rows))}]
    for key, value in front.items():
        if value is not None:
            yield f"{key}: {json.dumps(value)}"


def _result(row: Row) -> dict[str, Any]:
    """Return what the Hub reads of ROW: its best layer."""
    layer, value = row.best()
    kind = "image-classification" if row.task in CLASSIFYING else KINDS.get(row.task, "other")
    metric = {"type": row.metric, "value": value}
    metric["name"] = row.metric if layer in (None, NO_LAYER) else f"{row.metric}, {layer}"
    return {
        "task": {"type": kind, "name": row.task},
        "dataset": {"type": row.data_set, "name": row.data_set},
        "metrics": [metric],
    }


def _about(trunk: Trunk, digest: str, settings: Mapping[str, Any]) -> str:
    """Return what is known of TRUNK and of its training, a row each."""
    rows: dict[str, Any] = {"network": trunk.name, "layers": ", ".join(trunk.pooling)}
    rows |= {name: settings.get(name) for name in metadata.FIELDS}
    rows["parameters"] = f"{sum(weight.numel() for weight in trunk.parameters()):,}"
    rows["model"] = digest
    lines = [f"| {name} | {_text(value)} |" for name, value in rows.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *lines])


def _feeding(trunk: Trunk) -> str:
    side = trunk.input_size
    shown = f"The whole image, warped to {side} x {side} pixels"
    if trunk.reads == "lab":
        return f"{shown}; one channel: `{metadata.LAB}`, L of the 8-bit sRGB image."
    mean, std = list(trunk.mean), list(trunk.deviation)
    return f"{shown}; RGB from 0 to 1, less {mean}, divided by {std}."


def _use(trunk: Trunk, name: str) -> str:
    lines = [f"    extract-features {name} images.tsv -o features/    # ssl-bench"]
    if conversion.names_for_timm(trunk):
        lines += ["", f'    timm.create_model("local-dir:{name}", pretrained=True)']
    return "\n".join(lines)
