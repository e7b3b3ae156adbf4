"""A folder of tensors and plain values that is whole or not there, and that nobody altered unseen.

``run.json`` names every other file with its SHA-256 and length, and holds a hash of itself. Files whose content
changes are named by their content, and ``run.json`` is replaced last: a process killed at any moment leaves a
folder that reads as it was before or as it is after. Nothing here is ever unpickled.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pyrovae.base.errors import InputError

Held = tuple[dict[str, Any], dict[str, bytes]]  # of a run folder: content, and logical name -> bytes
FORMAT = 1
MANIFEST = "run.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")


def holds_run(folder: str | Path) -> bool:
    """Whether a folder holds a run, readable or not."""
    return (Path(folder) / MANIFEST).exists()


def write(folder: str | Path, content: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Replaces what a run folder holds, whole or not at all.

    Args:
        folder: made if it is not there.
        content: plain values (no NaN) for ``run.json``.
        files: logical name -> bytes; ``weights.safetensors`` is stored as ``weights-<hash>.safetensors``.

    Raises:
        OSError: if the folder cannot be written; what it held before is still there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {name: _write_named_by_content(folder, name, data) for name, data in files.items()}
    manifest = {"format": FORMAT, "content": content, "files": entries}
    manifest["sha256"] = _sha256(_canonical(manifest))
    write_whole(folder / MANIFEST, _canonical(manifest))
    _remove_unnamed(folder, {entry["file"] for entry in entries.values()})


def update(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Adds files to a run, or replaces those of the same name.

    Raises:
        InputError: if the run is being written by another process, or is damaged.
    """
    with locked(folder):
        content, others = read(folder)
        write(folder, content, {**others, **files})


def read(folder: str | Path) -> Held:
    """Reads a run folder and checks every byte of it: (content, logical name -> bytes).

    Raises:
        InputError: naming the file, if the folder holds no run, a newer format, or anything altered.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    try:
        files = {name: _read_file(folder, entry) for name, entry in manifest["files"].items()}
    except InputError:
        if _read_manifest(folder) == manifest:
            raise
        return read(folder)  # a fit wrote a checkpoint meanwhile
    return manifest["content"], files


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def unpack(data: bytes, what: str = "weights") -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: if the bytes are anything else.
    """
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{what}: not a safetensors file ({error})") from error


def flatten(value: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    """Nested state as plain JSON values; each tensor goes into ``tensors`` and leaves its name behind."""
    if isinstance(value, Tensor):
        tensors[prefix] = value
        return {"tensor": prefix}
    if isinstance(value, Mapping):
        pairs = [[key, flatten(item, tensors, f"{prefix}/{key}")] for key, item in value.items()]
        return {"mapping": pairs}
    if isinstance(value, list | tuple):
        items = [flatten(item, tensors, f"{prefix}/{i}") for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # which JSON has no number for
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"cannot store {prefix}, a {type(value).__name__}: only tensors and plain values are stored")


def unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`flatten`."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "float":
        return float(inner)
    if kind == "mapping":
        return {key: unflatten(item, tensors) for key, item in inner}
    items = [unflatten(item, tensors) for item in inner]
    return tuple(items) if kind == "tuple" else items


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keeps a run folder to one writing process.

    Raises:
        InputError: if another process writes into it.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the name of a folder")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{folder}: another process is writing this run; choose another folder") from error
        yield
    finally:
        os.close(handle)
        if new and not any(folder.iterdir()):
            folder.rmdir()  # nothing came of it


def _write_named_by_content(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    digest, path = _sha256(data), Path(name)
    stored = str(path.with_name(f"{path.stem}-{digest[:12]}{path.suffix}"))
    (folder / stored).parent.mkdir(exist_ok=True)
    if not (folder / stored).exists() or _sha256((folder / stored).read_bytes()) != digest:
        write_whole(folder / stored, data)
    return {"file": stored, "sha256": digest, "bytes": len(data)}


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: to a temporary name, down to the disk, then over the old one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_unnamed(folder: Path, named: set[str]) -> None:
    """Removes what an earlier state of the run named, and what a killed write left behind; nothing else."""
    ours = re.compile(r".+-[0-9a-f]{12}\.[a-z]+|\.writing-.+")
    for path in [*folder.iterdir(), *folder.glob("*/*")]:
        if path.is_file() and ours.fullmatch(path.name) and str(path.relative_to(folder)) not in named:
            path.unlink(missing_ok=True)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a run")
    if not path.is_file():
        raise InputError(f"{folder}: holds no run (there is no {MANIFEST} in it)")
    data = path.read_bytes()
    try:
        manifest = json.loads(data)
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: truncated or altered; it is not the manifest of a run ({error})") from error
    if isinstance(version, int) and version > FORMAT:
        raise InputError(f"{path}: has format {version}, this version reads up to {FORMAT}; update pyrovae")
    _check_manifest(path, manifest, data)
    return manifest


def _check_manifest(path: Path, manifest: dict[str, Any], data: bytes) -> None:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    if data != _canonical(manifest) or manifest.get("sha256") != _sha256(_canonical(rest)):
        raise InputError(f"{path}: altered since it was written (its own SHA-256 does not fit)")
    for name, entry in manifest["files"].items():
        if not all(_NAME.fullmatch(text) and ".." not in text for text in (name, entry["file"])):
            raise InputError(f"{path}: names a file outside the run, {entry['file']!r}")


def _read_file(folder: Path, entry: dict[str, Any]) -> bytes:
    path = folder / entry["file"]
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path}: missing from the run (or not a plain file)")
    if path.stat().st_size != entry["bytes"]:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes long, {entry['bytes']} were written; truncated or altered"
        )
    data = path.read_bytes()
    if _sha256(data) != entry["sha256"]:
        raise InputError(f"{path}: altered since it was written (its SHA-256 does not fit)")
    return data


def _canonical(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
