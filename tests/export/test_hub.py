"""A bundle's card as the hub reads it, and bundles to and from a hub that is played by a fake."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from pydantic import ValidationError

from edgestill.export.bundle.card import model_card
from edgestill.export.bundle.card_config import CardConfig
from edgestill.export.bundle.hub_card import hub_metadata
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.schema import Bundle as Described
from edgestill.export.bundle.schema import Hub, Licences
from edgestill.flows.bundle import Bundle
from edgestill.flows.cli.main import execute
from edgestill.pipeline.errors import BundleError, FailedError
from edgestill.pipeline.frozen import digest

REPO = "somebody/parcels"


class FakeHub:
    """Repositories in memory, and the calls of huggingface_hub that edgestill makes."""

    def __init__(self, cache: Path) -> None:
        self.repos: dict[tuple[str, str], dict[str, bytes]] = {}
        self.cache, self.asked = cache, list[str]()

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        self.repos.setdefault((repo_id, "main"), {".gitattributes": b"", "notes.txt": b"theirs"})
        self.private = private

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        self.repos.setdefault((repo_id, branch), dict(self.repos[repo_id, "main"]))

    def list_repo_files(self, repo_id: str, *, revision: str | None) -> list[str]:
        return [*self.repos[repo_id, revision or "main"]]

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str, revision: str | None) -> Any:
        files = self.repos[repo_id, revision or "main"]
        for one in operations:
            if isinstance(one, huggingface_hub.CommitOperationDelete):
                del files[one.path_in_repo]
            else:
                files[one.path_in_repo] = one.path_or_fileobj
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def model_info(self, repo_id: str, *, revision: str | None, files_metadata: bool) -> Any:
        if (repo_id, revision or "main") not in self.repos:
            raise RuntimeError("404 Client Error")
        files = self.repos[repo_id, revision or "main"]
        siblings = [SimpleNamespace(rfilename=name, size=len(data)) for name, data in files.items()]
        return SimpleNamespace(sha=revision or "main", siblings=siblings)

    def download(self, repo_id: str, name: str, *, revision: str) -> str:
        """Give a link into a store of blobs, as the hub's cache does."""
        self.asked.append(name)
        blob, link = self.cache / f"blob-{len(self.asked)}", self.cache / f"link-{len(self.asked)}"
        blob.write_bytes(self.repos[repo_id, revision][name])
        link.symlink_to(blob)
        return str(link)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    (tmp_path / "blobs").mkdir()
    fake = FakeHub(tmp_path / "blobs")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **given: fake)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.download)
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))
    return fake


def described(bundles: Any, **changes: Any) -> Described:
    return bundles(3).bundle.model_copy(update=changes)


def test_the_hub_reads_the_cards_metadata_and_the_accuracy(bundles: Any) -> None:
    told = Hub(base_model="timm/resnet50.a1_in1k", datasets=("cifar10",), tags=("parcels",))
    bundle = described(bundles, hub=told, licences=Licences(model="Apache-2.0"))
    card = ModelCard(model_card(bundle))
    assert card.data.library_name == "edgestill"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "timm/resnet50.a1_in1k"
    assert card.data.datasets == ["cifar10"]
    assert {"knowledge-distillation", "onnx", "fp32", "parcels"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert result.metric_value == bundle.metrics["shipped"].test_accuracy
    assert (result.dataset_type, result.task_type) == ("cifar10", "image-classification")
    assert card.text.lstrip().startswith("# ")


def test_what_nobody_said_is_left_out_of_the_metadata(bundles: Any) -> None:
    found = hub_metadata(described(bundles, licences=Licences()))
    assert found.keys() == {"library_name", "pipeline_tag", "tags", "model-index"}


@pytest.mark.parametrize(
    ("spdx", "told"),
    [
        ("MIT", {"license": "mit"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("LicenseRef-ours", {"license": "other", "license_name": "LicenseRef-ours"}),
        ("MIT OR Apache-2.0", {"license": "other", "license_name": "MIT OR Apache-2.0"}),
    ],
)
def test_a_licence_that_the_hub_has_no_name_for_is_other(bundles: Any, spdx: str, told: dict[str, str]) -> None:
    found = hub_metadata(described(bundles, licences=Licences(model=spdx)))
    assert {name: value for name, value in found.items() if name.startswith("license")} == told


def test_names_of_others_are_no_yaml_in_the_front_matter(bundles: Any) -> None:
    hostile = "x\n---\n<script>`|: &a *b !!python/object"
    text = model_card(described(bundles, name=hostile, data={"name": hostile, "sizes": {}}))
    assert "\n---\n" not in text.split("\n---\n", 1)[1].split("\n## Use")[0]
    assert ModelCard(text).data.library_name == "edgestill"


def test_card_settings_of_the_hub_are_ids_and_leave_older_digests_alone() -> None:
    assert CardConfig(licence="MIT").model_dump(mode="json").keys() == {
        "intended", "limits", "data", "licence", "data_licence",
    }  # fmt: skip
    assert digest(CardConfig(tags=("a",))) != digest(CardConfig())
    for wrong in ({"base_model": "/etc/passwd"}, {"datasets": ["a/b/c"]}, {"tags": ["a\nb"]}):
        with pytest.raises(ValidationError):
            CardConfig(**wrong)


def test_a_pushed_bundle_comes_back_the_same_whatever_else_the_repository_holds(bundles: Any, hub: FakeHub) -> None:
    folder = bundles(3).folder
    assert Bundle(folder).push_to_hub(REPO, private=True).endswith("/commit/1")
    there = hub.repos[REPO, "main"]
    assert hub.private is True
    assert there["README.md"] == (folder / "MODEL_CARD.md").read_bytes()
    there["evil.py"] = b"raise SystemExit"
    back = Bundle.from_pretrained(REPO)
    assert {p.name: p.read_bytes() for p in Path(back.path).iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }
    assert not {"evil.py", "README.md", ".gitattributes"} & set(hub.asked)
    assert back.labels == Bundle(folder).labels


def test_a_push_takes_away_files_of_the_bundle_before_and_leaves_the_users(bundles: Any, hub: FakeHub) -> None:
    Bundle(bundles(3).folder).push_to_hub(REPO)
    hub.repos[REPO, "main"]["model.int8.onnx"] = b"of an earlier bundle"
    Bundle(bundles(3).folder).push_to_hub(REPO)
    assert "model.int8.onnx" not in hub.repos[REPO, "main"]
    assert hub.repos[REPO, "main"]["notes.txt"] == b"theirs"


def test_an_altered_bundle_of_the_hub_is_refused_and_not_kept(bundles: Any, hub: FakeHub, tmp_path: Path) -> None:
    Bundle(bundles(3).folder).push_to_hub(REPO)
    hub.repos[REPO, "main"]["model.onnx"] += b"\0"
    with pytest.raises(BundleError, match=r"model\.onnx has"):
        Bundle.from_pretrained(REPO)
    assert list((tmp_path / "cache" / "hub").iterdir()) == []


def test_a_revision_names_one_of_several_bundles_and_a_digest_the_only_one(bundles: Any, hub: FakeHub) -> None:
    Bundle(bundles(3).folder).push_to_hub(REPO)
    Bundle(bundles(1).folder).push_to_hub(REPO, branch="grey")
    digests = {name: json.loads(hub.repos[REPO, name]["manifest.json"])["digest"] for name in ("main", "grey")}
    assert Path(Bundle.from_pretrained(REPO, revision="grey").path).name == digests["grey"]
    assert Path(Bundle.from_pretrained(REPO).path).name == digests["main"]
    with pytest.raises(BundleError, match="another bundle"):
        Bundle.from_pretrained(REPO, digest=digests["grey"])


def test_a_spoilt_copy_in_the_cache_is_replaced(bundles: Any, hub: FakeHub) -> None:
    Bundle(bundles(3).folder).push_to_hub(REPO)
    kept = Path(Bundle.from_pretrained(REPO).path)
    (kept / "labels.txt").write_text("mine")
    open_bundle(Path(Bundle.from_pretrained(REPO).path)).close()


def test_a_repository_without_a_bundle_or_at_all_is_told_in_a_sentence(hub: FakeHub) -> None:
    hub.create_repo(REPO, private=None, exist_ok=True)
    with pytest.raises(BundleError, match=r"holds no bundle: there is no manifest\.json"):
        Bundle.from_pretrained(REPO)
    with pytest.raises(FailedError, match=r"nobody/nothing was not fetched \(404 Client Error"):
        Bundle.from_pretrained("nobody/nothing")


def test_a_folder_is_taken_without_the_hub_and_has_no_revision(bundles: Any, hub: FakeHub) -> None:
    folder = bundles(3).folder
    assert Bundle.from_pretrained(folder) == Bundle(folder)
    with pytest.raises(BundleError, match="no revision"):
        Bundle.from_pretrained(folder, revision="v1")
    assert hub.asked == []


def test_a_dry_run_shows_files_and_metadata_and_asks_nobody(
    bundles: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **given: pytest.fail("the hub was asked"))
    assert execute(["push", str(bundles(3).folder), REPO, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for words in ("README.md", "model.onnx", "library_name: edgestill", "digest  ", "nothing is written"):
        assert words in said
