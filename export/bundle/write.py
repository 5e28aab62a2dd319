"""Bundle folder to hand to a person: its contents, and how it is written. `export/bundle/read.py` reads it."""

import json
from collections.abc import Mapping
from pathlib import Path

from edgestill.export.bundle.card import model_card
from edgestill.export.bundle.manifest import MANIFEST, manifest_bytes
from edgestill.export.bundle.names import labels_text
from edgestill.export.bundle.probes import make_probes
from edgestill.export.bundle.sbom import SBOM, sbom_bytes
from edgestill.export.bundle.schema import BUNDLE, CARD, LABELS, PROBES, RUN, TOKENIZER, Bundle
from edgestill.export.bundle.scripts.join import PROFILE, profile_script, run_script
from edgestill.pipeline.nicety import nicety


def write_bundle(
    folder: Path, bundle: Bundle, models: Mapping[str, Path], tokenizer: str | None = None
) -> tuple[str, ...]:
    """Write the bundle into an empty folder; return the cautions, a sentence for each thing missing from it.

    Args:
        models: name in the bundle -> file in the run, for the models' files and those needed beside them.
        tokenizer: a text task's tokenizer, as JSON.
    """
    files = {name: path.read_bytes() for name, path in models.items()}
    files[LABELS] = labels_text(bundle.task)
    if tokenizer is not None:
        files[TOKENIZER] = tokenizer.encode()
    files[RUN] = run_script(bundle.task.inputs.script).encode()
    files[PROFILE] = profile_script().encode()
    cautions: list[str] = []
    with nicety(f"{SBOM} was not written", cautions):
        contents = {name: files[name] for name in models}
        files[SBOM] = sbom_bytes(bundle.name, bundle.created, bundle.licences.model, contents, cautions)
    with nicety(f"{CARD} was not written", cautions):
        files[CARD] = model_card(bundle.model_copy(update={"cautions": tuple(cautions)})).encode()
    bundle = bundle.model_copy(update={"cautions": tuple(cautions)})
    text = json.dumps(bundle.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
    files[BUNDLE] = f"{text}\n".encode()
    for name in models:
        (folder / name).write_bytes(files[name])
    files[PROBES] = make_probes(folder, bundle)
    files[MANIFEST] = manifest_bytes(files)
    for name in files.keys() - models.keys():
        (folder / name).write_bytes(files[name])
    return bundle.cautions
