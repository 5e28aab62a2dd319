"""Front matter of `MODEL_CARD.md`, by which the Hugging Face hub files and finds a model."""

from typing import Any

from edgestill.export.bundle.schema import Bundle
from edgestill.pipeline.runs.yaml_text import write_yaml

LIBRARY = "edgestill"
_LONGEST = 100  # characters of a name
_NO_METHODS = frozenset({"none", "prune"})  # steps of a run that no tag names
# Licences with an identifier on the hub; SPDX expressions beyond them are "other" there, with their name beside.
_LICENCES = (
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc "
    "lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1 osl-3.0 postgresql unlicense wtfpl zlib"
)


def front_matter(bundle: Bundle) -> str:
    """Return the YAML between its two lines of dashes."""
    return f"---\n{write_yaml(hub_metadata(bundle))}---\n"


def hub_metadata(bundle: Bundle) -> dict[str, Any]:
    """Return the metadata, by the hub's names; what nobody said and nothing tells is left out."""
    hub = bundle.hub
    known = {
        "library_name": LIBRARY,
        "pipeline_tag": _pipeline(bundle),
        **_licence(bundle.licences.model),
        "base_model": _plain(hub.base_model or ""),
        "datasets": [_plain(name) for name in hub.datasets],
        "tags": _tags(bundle),
        "model-index": [{"name": _plain(bundle.name), "results": [_result(bundle)]}],
    }
    return {name: value for name, value in known.items() if value}


def _licence(spdx: str | None) -> dict[str, str]:
    if spdx is None:
        return {}
    identifier = spdx.lower().removesuffix("-only").removesuffix("-or-later")
    return (
        {"license": identifier}
        if identifier in _LICENCES.split()
        else {"license": "other", "license_name": _plain(spdx)}
    )


def _tags(bundle: Bundle) -> list[str]:
    methods = [str(method["name"]) for method in bundle.methods if method["name"] not in _NO_METHODS]
    found = ["knowledge-distillation", "onnx", *bundle.models, *methods, *bundle.hub.tags]
    return [_plain(tag) for tag in dict.fromkeys(found)]


def _result(bundle: Bundle) -> dict[str, Any]:
    """The default file's accuracy on the test split, as an entry of the hub's model-index."""
    shipped = bundle.metrics["shipped"]
    data = _plain(str(bundle.data.get("name", ""))) or "unknown"
    return {
        "task": {"type": _pipeline(bundle)},
        "dataset": {
            "type": bundle.hub.datasets[0] if len(bundle.hub.datasets) == 1 else data,
            "name": data,
            "split": "test",
        },
        "metrics": [{"type": "accuracy", "name": f"test accuracy, n = {shipped.n}", "value": shipped.test_accuracy}],
    }


def _pipeline(bundle: Bundle) -> str:
    """The hub's name of the task."""
    return "text-generation" if bundle.task.inputs.continues else f"{bundle.task.kind}-classification"


def _plain(text: str) -> str:
    """Keep letters, digits and a few signs: no markup and no YAML of others remains."""
    return "".join(c if c.isalnum() or c in " ._/+-:()" else "-" for c in text)[:_LONGEST].strip()
