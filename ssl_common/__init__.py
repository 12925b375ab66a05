"""ssl-bench as a library: what notebooks and other people's code use, loaded when first used.

The rooms below hold a stage of the experiment each, in its order; see CONTRIBUTING.md. What is not
named here may change.
"""

import importlib
from typing import Any

_PLACES = {
    "DataError": "streams",
    "Layers": "evaluation.features",
    "LinearSVMs": "evaluation.svm.estimator",
    "Manifest": "data.manifest",
    "average_precision": "evaluation.metrics",
    "image_features": "evaluation.features",
    "make_permutations": "pretext.permutations",
    "read_image": "data.images",
    "read_records": "records",
    "tabulate": "reporting.report",
}
_NAMES = {"make_permutations": "make", "read_image": "read"}  # where they are called otherwise
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PLACES[name]}")
    value = globals()[name] = getattr(module, _NAMES.get(name, name))
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
