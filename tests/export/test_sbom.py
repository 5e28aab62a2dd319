"""The bill of materials: valid by CycloneDX's own schema, whole, and the same every time."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_expression, is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from edgestill.export.bundle.sbom import sbom_bytes

MODELS = {"model.onnx": b"a model", "model.int8.onnx": b"another"}


@pytest.fixture(scope="module")
def data():
    return sbom_bytes("digits", "2025-01-01T00:00:00+00:00", "CC-BY-4.0", MODELS)


@pytest.fixture(scope="module")
def sbom(data):
    return json.loads(data)


def test_it_is_valid_by_the_schema_of_its_version(data):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    spoilt = json.loads(data) | {"components": [{"name": "no type"}]}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(spoilt)) is not None


def test_every_distribution_of_the_environment_is_in_it_with_its_version(sbom):
    found = reversed(list(importlib.metadata.distributions()))  # the first of a name is the one that is imported
    installed = {canonicalize_name(one.metadata["Name"]): one.version for one in found}
    assert {canonicalize_name(c["name"]): c["version"] for c in sbom["components"]} == installed
    torch = next(c for c in sbom["components"] if c["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@")


def test_licences_are_of_spdx_where_they_can_be(sbom):
    licences = {c["name"]: c.get("licenses", []) for c in sbom["components"]}
    assert licences["edgestill"][0] == {"license": {"id": "Apache-2.0"}}
    for found in (found for entries in licences.values() for found in entries):
        if "expression" in found:
            assert is_expression(found["expression"])
        elif "id" in found["license"]:
            assert is_supported_id(found["license"]["id"])
        else:
            assert 0 < len(found["license"]["name"]) <= 100
    named = sum("license" in entries[0] and "name" in entries[0]["license"] for entries in licences.values() if entries)
    assert named < len(licences) / 8


def test_the_model_files_are_in_it_by_their_digests(sbom):
    model = sbom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    found = {c["name"]: c["hashes"] for c in model["components"]}
    assert found == {
        name: [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}] for name, content in MODELS.items()
    }


def test_dependencies_are_those_that_the_distributions_declare(sbom):
    depends = {d["ref"]: d.get("dependsOn", []) for d in sbom["dependencies"]}
    refs = {canonicalize_name(c["name"]): c["bom-ref"] for c in sbom["components"]}
    assert refs["numpy"] in depends[refs["edgestill"]]
    assert refs["pytest"] not in depends[refs["edgestill"]]  # of an extra
    assert set(depends) >= set(refs.values())


def test_it_is_the_same_in_another_process_and_another_for_another_model(data):
    models = dict(reversed(MODELS.items()))
    script = f"""
import hashlib
from edgestill.export.bundle.sbom import sbom_bytes
data = sbom_bytes("digits", "2025-01-01T00:00:00+00:00", "CC-BY-4.0", {models!r})
print(hashlib.sha256(data).hexdigest())
other = sbom_bytes("digits", "2025-01-01T00:00:00+00:00", "CC-BY-4.0", {{"model.onnx": b"b"}})
print(hashlib.sha256(other).hexdigest())"""
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    same, other = done.stdout.split()
    assert same == hashlib.sha256(data).hexdigest() != other


def test_remains_without_a_name_are_left_out_and_the_first_on_the_path_counts(tmp_path, monkeypatch):
    for folder, version in (("first", "1.0"), ("second", "2.0")):
        info = tmp_path / folder / f"twice_here-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twice-here\nVersion: {version}\n")
    (tmp_path / "first" / "remains-1.dist-info").mkdir()
    for folder in ("second", "first"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    found = json.loads(sbom_bytes("digits", "2025-01-01T00:00:00+00:00", "MIT", {}))
    assert [part["version"] for part in found["components"] if part["name"] == "twice-here"] == ["1.0"]


BROKEN = {
    "not_utf8": b"Metadata-Version: 2.1\nName: oldpkg\nVersion: 1.0\nAuthor: J\xf6rg\n",
    "no_version": b"Metadata-Version: 2.1\nName: oldpkg\n",
    "empty": b"",
    "unknown_marker": b"Name: oldpkg\nVersion: 1.0\nRequires-Dist: foo ; bogus_variable == '1'\n",
    "odd_marker": b"Name: oldpkg\nVersion: 1.0\nRequires-Dist: foo ; python_version >= '3.x'\n",
    "odd_licence": b"Name: oldpkg\nVersion: 1.0\nLicense: MIT AND (Apache-2.0 OR\nLicense-Expression: NOT-A AND\n",
    "odd_name": b"Name: old pkg @ home\x1b[2J\nVersion: 1.0 beta/3\n",
}


def test_packages_with_broken_metadata_cost_their_own_line_and_a_caution_at_most(tmp_path, monkeypatch, sbom):
    for name, body in BROKEN.items():
        (tmp_path / name / f"{name}-1.0.dist-info").mkdir(parents=True)
        (tmp_path / name / f"{name}-1.0.dist-info" / "METADATA").write_bytes(body)
        monkeypatch.syspath_prepend(str(tmp_path / name))
    cautions: list[str] = []
    data = sbom_bytes("digits", "2025-01-01T00:00:00+00:00", "MIT", MODELS, cautions)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    found = {part["name"] for part in json.loads(data)["components"]}
    assert found >= {part["name"] for part in sbom["components"]}
    assert any(caution.startswith("sbom.cdx.json lacks not_utf8-1.0.dist-info (Unicode") for caution in cautions)
    assert all(caution.isprintable() for caution in cautions)


class StrictFields:
    """Metadata that raise for a missing field instead of answering None."""

    def __init__(self, fields):
        self._fields = fields

    def __contains__(self, name):
        return name in self._fields

    def __getitem__(self, name):
        if name not in self._fields:
            raise KeyError(name)
        return self._fields[name]

    def get_all(self, name):
        return self._fields.get_all(name)


class Strict:
    def __init__(self, found):
        self._found = found

    def __getattr__(self, name):
        return StrictFields(self._found.metadata) if name == "metadata" else getattr(self._found, name)


def test_metadata_as_importlib_metadata_gives_them_cost_nothing(data, monkeypatch):
    """It takes the place of Python's own once a library imports it, as MLflow does."""
    found, cautions = [*importlib.metadata.distributions()], []
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: map(Strict, found))
    assert sbom_bytes("digits", "2025-01-01T00:00:00+00:00", "CC-BY-4.0", MODELS, cautions) == data
    assert cautions == []
