"""Atomic writes of files and folders, and reading of weights without running code in them."""

import argparse
import hashlib
import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError, RunDirError, first_line

_MOST_HEADER = 2**24  # bytes of a safetensors header; enough for 100,000 tensors


def write_atomic(path: Path, data: bytes) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one, never a part of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp's 0600 would keep a colleague from reading a run
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # errors on an open file do not name it
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def copy_file(source: Path, target: Path) -> str:
    """Copy a file, and return the digest of what was copied.

    Raises:
        RunDirError: it is gone.
    """
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise RunDirError(f"{source} is missing; put it back, or start a new run") from None
    write_atomic(target, data)
    return hashlib.sha256(data).hexdigest()


def write_folder(target: Path, fill: Callable[[Path], object]) -> Path:
    """Write a folder whole or not at all: fill it aside, then rename it into place. One that is there is replaced."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        temporary.chmod(0o755)
        fill(temporary)
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(target.parent)
    return target


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def weights_bytes(network: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """The network's parameters and buffers as safetensors; equal weights give equal bytes."""
    tensors = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})
    # One entry: safetensors writes several in an order that changes from process to process.
    return safetensors_save(tensors, metadata={"edgestill": json.dumps(dict(metadata or {}), sort_keys=True)})


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with an earlier one: safetensors refuses tied weights."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if tensor.numel() and place in seen:
            tensors[name] = tensor.clone()
        seen.add(place)
    return tensors


def state_bytes(state: Mapping[str, Any]) -> bytes:
    """Serialise a training state (nested dicts of tensors and plain values) for `read_state`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def read_state(data: bytes) -> dict[str, Any]:
    """Read a training state of our own; no code in it is run."""
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged byte leads torch's unpickler into errors of any kind
        raise CheckpointError(f"not a readable training state ({_first_line(error)})") from error
    return state


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors file or a torch file, without running code in it.

    A torch file may hold the tensors at its top level, under `state_dict`, `model`, `net` or `model_state_dict`, or
    under the only key that has any.

    Raises:
        CheckpointError: the file is missing, unreadable, a pickle that would run code, or without tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}; give a .safetensors file or a torch checkpoint")
    _require_no_script(path)
    try:
        loaded: Any
        _require_stored(path)
        if path.suffix == ".safetensors":
            loaded = safetensors_load(path.read_bytes())
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # inert; timm's training script keeps its own
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # torch's word for a class or function that a pickle asks for
            raise CheckpointError(f"{path} is truncated or not a weights file (no torch checkpoint)") from error
        raise CheckpointError(
            f"{path} holds more than tensors and was not opened, because that could run code; "
            "save its state_dict() alone, as safetensors or with torch.save"
        ) from error
    except Exception as error:  # a damaged byte leads torch's unpickler into errors of any kind
        raise CheckpointError(f"{path} is truncated or not a weights file ({_first_line(error)})") from error
    return _named(loaded, path)


def _named(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Find the tensors by name in what a file holds.

    Raises:
        CheckpointError: there are none, or those of several networks.
    """
    for key in ("state_dict", "model", "net", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = _tensors(loaded)
    if tensors:
        return tensors
    below = (
        {str(key): found for key, value in loaded.items() if (found := _tensors(value))}
        if isinstance(loaded, dict)
        else {}
    )
    if len(below) > 1:
        raise CheckpointError(f"{path} holds several networks ({_few(list(below))}); save the state_dict() of one")
    if not below:
        raise CheckpointError(f"{path} holds no tensors by name; it should be a state_dict()")
    return next(iter(below.values()))


def _tensors(value: Any) -> dict[str, Tensor]:
    return {str(k): v for k, v in value.items() if isinstance(v, Tensor)} if isinstance(value, dict) else {}


def _require_no_script(path: Path) -> None:
    """Refuse (CheckpointError) a TorchScript archive, which is a program."""
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            is_script = any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return  # told as a damaged file
    if is_script:
        raise CheckpointError(f"{path} is a TorchScript archive; take it as the teacher, teacher: torchscript:{path}")


def _require_stored(path: Path) -> None:
    """Refuse (ValueError) a checkpoint that unpacks to more than its own size: torch compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if unpacked > size:
        raise ValueError(f"it has {size:,} bytes and says that it unpacks to {unpacked:,}")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that `weights_bytes` was given; empty for a file that is not ours."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MOST_HEADER:
            return {}
        try:
            metadata = json.loads(json.loads(file.read(size))["__metadata__"]["edgestill"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
    return {str(name): str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a file's weights into the network. They must fit exactly, but for wrapper prefixes and known spellings.

    Prefixes of wrappers (`module.`, `model.`, `_orig_mod.`, …) are stripped; `fc` and `classifier` are read as
    `linear`, `downsample` as `shortcut`. A file without the input normalisation (any file that is not our own) leaves
    the network's own as it was built.

    Raises:
        CheckpointError: names are missing or left over, or shapes differ, with the first few.
    """
    own = network.state_dict()
    given = {_our_name(name, own): tensor for name, tensor in _strip_prefixes(read_weights(path), own).items()}
    load_tensors(network, given, path)


def load_tensors(network: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors of a file into the network. They must fit exactly, as `load_weights` says.

    Raises:
        CheckpointError: names are missing or left over, or shapes differ, with the first few.
    """
    own = network.state_dict()
    given = {name: tensor for name, tensor in given.items() if not _is_batch_count(name, own)}
    optional = {name for name in own if name.startswith("normalize.") or name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in given and name not in optional]
    unexpected = sorted(name for name in given if name not in own)
    shapes = [
        f"{name} is {_shape(given[name])} in the file and {_shape(own[name])} in the network"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    problems = [*shapes]
    if missing:
        problems.append(f"the file lacks {_few(missing)}")
    if unexpected:
        problems.append(f"the file has {_few(unexpected)} beyond the network")
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise CheckpointError(f"{path} is a checkpoint of another architecture: {shown}")
    network.load_state_dict(own | given)


def _strip_prefixes(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    while tensors and not any(_our_name(name, own) in own for name in tensors):
        heads = {name.split(".", 1)[0] for name in tensors}
        if len(heads) != 1 or not all("." in name for name in tensors):
            break
        tensors = {name.split(".", 1)[1]: tensor for name, tensor in tensors.items()}
    return tensors


def _our_name(name: str, own: Mapping[str, Tensor]) -> str:
    if name in own:
        return name
    for theirs, ours in (("fc.", "linear."), ("downsample.", "shortcut."), ("classifier.", "linear.")):
        name = name.replace(theirs, ours)
    return name


def _is_batch_count(name: str, own: Mapping[str, Tensor]) -> bool:
    return name.endswith("num_batches_tracked") and name not in own


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(error: BaseException) -> str:
    return first_line(error, type(error).__name__)[:200]
