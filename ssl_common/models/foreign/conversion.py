"""Networks trained elsewhere as networks of ours, and ours as torchvision's."""

from collections.abc import Mapping
from typing import Any

from ssl_common import legible, records, schema
from ssl_common.models import networks
from ssl_common.models.foreign import inspection, naming
from ssl_common.models.foreign.weights import Weights, read_torchvision
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

STORED = schema.Plain(finite=False)  # what may stand in a file of ours


def convert(weights: Weights, output: str, torchvision: bool, tags: Mapping[str, Any]) -> str:
    """Write the trunk of WEIGHTS to OUTPUT; return what was done, in words.

    A network of ours, with TAGS, {field: value}, among its settings; or, for TORCHVISION, a state
    dict by torchvision's names. Raises DataError where the file, or torchvision, has no such one.
    """
    trunk, network = weights.trunk(), weights.known()
    settings = _settings(weights, tags)
    if torchvision:
        if network.arch != "resnet50":
            raise DataError(f"{weights.path}: torchvision has no {network.arch} like this one")
        content = {naming.torchvision(name): each for name, each in trunk.state_dict().items()}
    elif weights.own:
        raise DataError(f"{weights.path}: a network of ours: it can become one --to torchvision")
    else:
        content = {"format": networks.FORMAT, "settings": settings}
        content |= {"trunk": trunk.state_dict(), "head": {}}
    networks.save(output, content)
    report = f"{network.arch}, {settings['pretext'] or 'pretext unknown'}"
    report += f", {settings['permutations']:,} permutations" if settings["permutations"] else ""
    report += "".join(f"; unusual: {what}" for what in weights.unusual)
    report += f": {len(weights.taken)} of {len(weights.values)} names taken"
    report += "; the pretext is inferred" if settings.get("inferred") else ""
    return report + inspection.left_out(weights)


def _settings(weights: Weights, tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the network and of its training, as pretrain writes it.

    TAGS win over what the names only suggest, and not over what the file says.
    """
    network = weights.known()
    known: dict[str, Any] = {"arch": network.arch, "reads": network.reads}
    if network.certain or tags.get("pretext") in (None, network.pretext):
        known |= {"pretext": network.pretext, "permutations": network.permutations}
    source: dict[str, Any] = {"digest": weights.digest, "kind": network.layout.kind}
    plain = {n: value for n, value in weights.settings().items() if STORED.holds({n: value})}
    source |= {"settings": plain, "left_out": [legible.text(name) for name in weights.left_out()]}
    unknown = dict.fromkeys(("pretext", "permutations", "images", "data", "data_name", "seed"))
    settings = records.tagged(unknown | known, tags, weights.path)
    if network.pretext and not network.certain and "pretext" not in tags:
        settings["inferred"] = ["pretext"]
    return settings | {"converted": source}


def torchvision(arch: str, path: str) -> tuple[Trunk, dict[str, Any]]:
    """Return (trunk, settings): the trunk of torchvision's ARCH with the weights in the file PATH.

    "left_out" of the settings says what was not taken. Raises DataError for another file.
    """
    if not path:
        raise DataError(f"torchvision:{arch}: no file of weights: write torchvision:{arch}:FILE")
    weights = read_torchvision(arch, path)
    network = weights.known()
    settings: dict[str, Any] = {"arch": network.arch, "pretext": network.pretext}
    settings["left_out"] = inspection.left_out(weights)
    if network.pretext and not network.certain:
        settings["inferred"] = ["pretext"]
    return weights.trunk(), settings
