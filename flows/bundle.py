"""A shipped bundle as an object: `Bundle(path).predict(...)`, `.verify()`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgestill.export.bundle.predict import Answer, predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.verify import Verdict, verify
from edgestill.pipeline.errors import BundleError


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder, or the zip of one.

    Every call opens it anew and checks it whole; nothing of it is run before its files are found to be those of its
    manifest.

    Args:
        public_key: PEM of the signer's ed25519 key; the bundle must be signed by it.
    """

    path: Path | str
    public_key: bytes | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order.

        Raises:
            BundleError: the bundle cannot be read, or is not what was shipped.
        """
        with open_bundle(Path(self.path), self.public_key) as opened:
            return opened.bundle.task.labels

    def predict(self, inputs: Sequence[Path | str], model: str | None = None) -> list[Answer]:
        """Label image files, or texts: a label, its probability and those of every class for each.

        Args:
            model: by its format's name, such as `int8`; None: the bundle's default.

        Raises:
            BundleError: the bundle cannot be read, is not what was shipped, or has no such model.
            ExportError: the model's runtime refuses the file, or is not here.
            DataError: an image cannot be read, or a text has nothing in it.
        """
        with open_bundle(Path(self.path), self.public_key) as opened:
            return predict(opened, [str(given) for given in inputs], model)

    @classmethod
    def from_pretrained(
        cls,
        repo_id_or_folder: Path | str,
        *,
        revision: str | None = None,
        public_key: bytes | None = None,
        digest: str | None = None,
    ) -> "Bundle":
        """Return the bundle of a folder or zip, or of a repository of the Hugging Face hub, checked whole.

        A repository's files are kept in edgestill's cache once they are found to be those of its manifest.

        Args:
            revision: branch, tag or commit on the hub; None: main.
            public_key: PEM of the signer's ed25519 key; the bundle must be signed by it, now and at each later call.
            digest: the bundle must have this one.

        Raises:
            BundleError: there is no bundle, or it is not what was shipped.
            FailedError: the hub or the network refuses.
            MissingDependencyError: huggingface_hub is not installed.
        """
        from edgestill.flows.hub import pull

        path = Path(repo_id_or_folder)
        if not path.exists():
            return cls(pull(str(repo_id_or_folder), revision, public_key, digest), public_key)
        if revision is not None:
            raise BundleError([f"{path} is a folder or file here, which has no revision {revision!r}"])
        open_bundle(path, public_key, digest).close()
        return cls(path, public_key)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, branch: str | None = None, message: str | None = None
    ) -> str:
        """Check the bundle, write it to a repository of the Hugging Face hub, and return the commit's address.

        The repository is made if it is not there. The login is huggingface_hub's own (`hf auth login`, or HF_TOKEN).

        Args:
            private: of a repository that is made; None: the account's default.
            branch: made if it is not there; None: main.
            message: of the commit; None: the bundle's digest.

        Raises:
            BundleError: the bundle cannot be read, or is not what was shipped.
            FailedError: the hub or the network refuses.
            MissingDependencyError: huggingface_hub is not installed.
        """
        from edgestill.flows.hub import prepare, push

        upload = prepare(Path(self.path), self.public_key)
        return push(upload, repo_id, private=private, branch=branch, message=message)

    def verify(self, digest: str | None = None) -> Verdict:
        """Check files and answers: problems and facts, a sentence each, and a summary; no problem, no difference.

        Args:
            digest: the bundle must have this one.
        """
        return verify(Path(self.path), self.public_key, digest)
