"""A shipped bundle as an object: `Bundle(path).predict(...)`, `.verify()`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgestill.export.bundle.predict import Answer, predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.verify import Verdict, verify


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

    def verify(self, digest: str | None = None) -> Verdict:
        """Check files and answers: problems and facts, a sentence each, and a summary; no problem, no difference.

        Args:
            digest: the bundle must have this one.
        """
        return verify(Path(self.path), self.public_key, digest)
