"""CycloneDX software bill of materials: the model files, and every distribution of the environment that made them."""

import functools
import hashlib
import importlib.metadata
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from edgestill.pipeline.frozen import digest
from edgestill.pipeline.nicety import nicety

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

SBOM = "sbom.cdx.json"
_PYPI = re.compile(r"[-_.]+")  # a run of these is one hyphen in PyPI's normalised names


def sbom_bytes(
    name: str, created: str, licence: str | None, models: Mapping[str, bytes], cautions: list[str] | None = None
) -> bytes:
    """Return `sbom.cdx.json`, CycloneDX 1.6; one environment, one time and the same models give equal bytes.

    Args:
        created: ISO 8601; the document's timestamp.
        licence: of the model, an SPDX expression.
        models: file name -> content.
        cautions: gets a sentence for each library left out because its own metadata are broken.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    cautions = [] if cautions is None else cautions
    root = _model_component(name, licence, models)
    libraries = _installed(importlib.metadata.distributions(), cautions)
    components: dict[str, Component] = {}
    for key in sorted(libraries):
        with nicety(f"{SBOM} lacks {key}", cautions):
            components[key] = _library_component(libraries[key])
    bom = Bom(components=components.values())
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromisoformat(created)
    hashes = {file: hashlib.sha256(data).hexdigest() for file, data in models.items()}
    versions = {key: component.version for key, component in components.items()}
    bom.serial_number = uuid.UUID(digest(name, created, licence, versions, hashes)[:32], version=4)
    for key, component in components.items():
        wanted = sorted(_required(libraries[key].requires) & components.keys())
        bom.register_dependency(component, [components[other] for other in wanted])
    bom.register_dependency(root, components.values())
    text: str = JsonV1Dot6(bom).output_as_string(indent=1)
    return f"{text}\n".encode()


class _Library(NamedTuple):
    """A distribution's metadata, which importlib parses anew for each field that it is asked for."""

    name: str
    fields: importlib.metadata.PackageMetadata
    requires: tuple[str, ...]

    def field(self, name: str) -> str | None:
        """Read a field; None if it is not there, which importlib_metadata, once imported, takes ill."""
        return str(self.fields[name]) if name in self.fields else None


def _installed(found: Iterable[importlib.metadata.Distribution], cautions: list[str]) -> dict[str, _Library]:
    """Index distributions by name, without nameless ones. Of several, take the first on the path: it is imported."""
    libraries: dict[str, _Library] = {}
    for distribution in found:
        with nicety(f"{SBOM} lacks {_folder_of(distribution)}", cautions):
            fields = distribution.metadata
            name = fields["Name"] if fields is not None and "Name" in fields else None
            if name and _key(name) not in libraries:
                libraries[_key(name)] = _Library(name, fields, tuple(distribution.requires or ()))
    return libraries


def _folder_of(distribution: importlib.metadata.Distribution) -> str:
    """Return a distribution's folder, such as `numpy-2.3.0.dist-info`, to name one with broken metadata."""
    path = getattr(distribution, "_path", None)
    return str(getattr(path, "name", "a distribution without a name"))


def _model_component(name: str, licence: str | None, models: Mapping[str, bytes]) -> "Component":
    """Return the bundle as a component, with the SHA-256 of each model file."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    files = [
        Component(
            name=file,
            type=ComponentType.FILE,
            bom_ref=f"file:{file}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(data).hexdigest())],
        )
        for file, data in sorted(models.items())
    ]
    return Component(
        name=name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        licenses=_licences(licence, ()),
        components=files,
    )


def _library_component(found: _Library) -> "Component":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    version = found.fields["Version"]
    purl = PackageURL("pypi", None, _key(found.name), version)
    classifiers = tuple(c for c in found.fields.get_all("Classifier") or () if c.startswith("License :: "))
    return Component(
        name=found.name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=_licences(found.field("License-Expression") or found.field("License"), classifiers),
    )


@functools.cache
def _licences(stated: str | None, classifiers: tuple[str, ...]) -> tuple[Any, ...]:
    """Return an SPDX expression or identifier if one is known, else the package's own words, else nothing."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.license import DisjunctiveLicense

    factory = LicenseFactory()
    known = sorted({_CLASSIFIERS[words] for words in classifiers if words in _CLASSIFIERS})
    for text in (_SPELLINGS.get(stated or "", stated), " OR ".join(known)):
        if text and text.upper() != "UNKNOWN":
            made = factory.make_from_string(text.strip())
            if not isinstance(made, DisjunctiveLicense) or made.id is not None:
                return (made,)
    words = (stated or "").strip()
    if not words or "\n" in words:  # a whole licence's text says less than a classifier
        words = next((c.rsplit(" :: ", 1)[-1] for c in classifiers), "") or words
    name = next(iter(words.splitlines()), "")[:100]
    return (factory.make_with_name(name),) if name else ()


_SPELLINGS = {  # of common packages
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
}
_CLASSIFIERS = {  # of PyPI, those that name one licence of SPDX's list
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: OSI Approved :: The Unlicense (Unlicense)": "Unlicense",
}


@functools.cache
def _required(lines: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the distributions that these lines of Requires-Dist require here, without extras."""
    from packaging.requirements import Requirement

    def parsed() -> Iterator[str]:
        for line in lines:
            try:
                requirement = Requirement(line)
                is_asked = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            except ValueError:  # not a requirement, or a meaningless condition: pip leaves it out too
                continue
            if is_asked:
                yield _key(requirement.name)

    return frozenset(parsed())


def _key(name: str) -> str:
    return _PYPI.sub("-", name).lower()
