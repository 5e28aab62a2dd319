"""Bundles to and from the Hugging Face hub, by huggingface_hub; nothing that comes from there is run.

On the hub a bundle is its files, and `README.md` beside them, the model card under the name that the hub shows.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgestill.export.bundle.hub_card import hub_metadata
from edgestill.export.bundle.manifest import MANIFEST
from edgestill.export.bundle.names import known_names
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.schema import CARD
from edgestill.export.files import MAX_TOTAL_BYTES, read_regular
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.errors import BundleError, FailedError, MissingDependencyError, first_line

README = "README.md"


class Upload(NamedTuple):
    """Files for a repository of the hub: those of a checked bundle, and its card as README.md."""

    files: dict[str, bytes]
    digest: str  # of the bundle
    metadata: dict[str, Any]  # of the card


def prepare(path: Path, public_key: bytes | None = None) -> Upload:
    """Check a bundle, and gather the files to push.

    Raises:
        BundleError: it is not what was shipped.
    """
    with open_bundle(path, public_key) as opened:
        files = dict(sorted(opened.files.items()))
        if CARD in files:
            files[README] = files[CARD]
        return Upload(files, opened.manifest.digest, hub_metadata(opened.bundle))


def push(
    upload: Upload, repo_id: str, *, private: bool | None = None, branch: str | None = None, message: str | None = None
) -> str:
    """Make the repository if it is not there, write the files in one commit, and return the commit's address.

    Files that an earlier bundle left there are deleted in the same commit; all others stay.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        FailedError: the hub or the network refuses.
    """
    hub = _library()
    with _told(f"{repo_id} was not written"):
        api = hub.HfApi(library_name="edgestill")
        api.create_repo(repo_id, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        there = set(api.list_repo_files(repo_id, revision=branch)) & known_names()
        commit = api.create_commit(
            repo_id,
            operations=[
                *(hub.CommitOperationAdd(name, data) for name, data in upload.files.items()),
                *(hub.CommitOperationDelete(name) for name in sorted(there - upload.files.keys())),
            ],
            commit_message=message or f"bundle {upload.digest[:12]}",
            revision=branch,
        )
        return str(commit.commit_url)


def pull(repo_id: str, revision: str | None = None, public_key: bytes | None = None, digest: str | None = None) -> Path:
    """Fetch a bundle, check it whole, and return its folder in edgestill's cache, named by its digest.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        FailedError: the hub or the network refuses.
        BundleError: the repository holds no bundle, or one that is not what was shipped; none of it is kept.
    """
    kept = cache_folder() / "hub"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept, prefix=".") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        for name, data in _fetched(repo_id, revision):
            (folder / name).write_bytes(data)
        with open_bundle(folder, public_key, digest) as opened:
            place = kept / opened.manifest.digest
        if not _is_whole(place):
            _put(folder, place, Path(temporary) / "damaged")
    return place


def _fetched(repo_id: str, revision: str | None) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a bundle in a repository, all of one commit; others of the repository are left there."""
    hub = _library()
    with _told(f"{repo_id} was not fetched"):
        info = hub.HfApi(library_name="edgestill").model_info(repo_id, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if file.rfilename in known_names()}
    if MANIFEST not in sizes:
        raise BundleError([f"{repo_id} holds no bundle: there is no {MANIFEST} in it"])
    if sum(sizes.values()) > MAX_TOTAL_BYTES:
        raise BundleError([f"{repo_id} has {sum(sizes.values()):,} bytes; at most {MAX_TOTAL_BYTES:,} are read"])
    for name in sorted(sizes):
        with _told(f"{name} of {repo_id} was not fetched"):
            path = Path(hub.hf_hub_download(repo_id, name, revision=info.sha))
        yield name, read_regular(path.resolve(), MAX_TOTAL_BYTES)


def _is_whole(place: Path) -> bool:
    try:
        open_bundle(place).close()
    except BundleError:
        return False
    return True


def _put(folder: Path, place: Path, aside: Path) -> None:
    """Move a checked folder to its place; a damaged one there is taken away."""
    if place.exists():
        Path(place).replace(aside)
    Path(folder).replace(place)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingDependencyError("the hub needs `pip install 'edgestill[hub]'`") from None
    return huggingface_hub


@contextmanager
def _told(failed: str) -> Iterator[None]:
    """Turn an error of the hub's library, or of the network, into one of ours."""
    try:
        yield
    except Exception as error:
        why = first_line(error)[:300] or type(error).__name__
        raise FailedError(
            f"{failed} ({why}); `hf auth login` logs in, and HF_TOKEN names a token for one command"
        ) from error
