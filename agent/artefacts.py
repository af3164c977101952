"""Model files from elsewhere, looked over before anything opens them: what they are, whether they are what was registered, what they reach for.

ONNX and safetensors hold no code. A pickle of torch is read with `weights_only=True` or not at all. TorchScript and exported programs (.pt2) can run
code when they are loaded, whatever torch's arguments say, so they need a person's trust and the sha256 it was given for.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from agent.errors import ArtefactError

Format = Literal["onnx", "safetensors", "torch", "torchscript", "exported"]
LARGEST = 4 * 2**30  # bytes of a model with all its files
HEADER = 100 * 2**20  # bytes of a safetensors header
MEMBERS = 100_000  # files in one archive
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"I64": 64, "U64": 64, "F64": 64, "C64": 64}
KNOWN = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc"})
UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # makes torch read any pickle as code


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model file that may be opened: where it is (links resolved), what it is, its sha256, and all its files' bytes together."""

    path: Path
    format: Format
    sha256: str
    size: int
    beside: tuple[Path, ...] = ()  # files with its weights, in its own folder


def admit(path: Path, *, sha256: str | None = None, trusted: bool = False, largest: int = LARGEST, domains: Collection[str] = ()) -> Artefact:
    """Look a model file over without loading it. ArtefactError says why it must not be opened, and what to do instead.

    `sha256` is what was registered. `trusted`: a person answers for its code, which counts only together with `sha256`. `domains` are those of
    operators that a library of the operator's own brings.
    """
    real = _regular(path)
    size = real.stat().st_size
    if size > largest:
        raise ArtefactError(f"{path} has {size:,} bytes, more than the {largest:,} that are allowed; raise the limit if it is meant to be so large")
    digest = _sha256(real)
    if sha256 is not None and digest != sha256.lower():
        raise ArtefactError(
            f"{path} is not the file that was registered: its sha256 is {digest[:12]}…, not {sha256[:12]}…; fetch or register it again"
        )
    kind = _format(real)
    beside: tuple[Path, ...] = ()
    if kind == "onnx":
        beside = _onnx(real, largest - size, domains)
    elif kind == "safetensors":
        _safetensors(real, size)
    elif kind == "torch":
        _pickled(path)
    elif not (trusted and sha256):
        said = "TorchScript" if kind == "torchscript" else "an exported program (.pt2)"
        raise ArtefactError(f"{path} is {said}, which can run code when it is loaded; export it to ONNX, or trust it by name with its sha256")
    return Artefact(real, kind, digest, size + sum(file.stat().st_size for file in beside), beside)


@contextmanager
def bounded(memory: int) -> Iterator[None]:
    """Let this process take at most so many more bytes of memory while it loads: beyond, an allocation fails and the process lives on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = now + memory
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def weights(artefact: Artefact) -> Mapping[str, Any]:
    """The tensors of a torch pickle by name, read as data and never as code. ArtefactError where torch refuses it; ImportError without torch."""
    import torch

    _pickled(artefact.path)
    try:
        found = torch.load(artefact.path, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise ArtefactError(
            f"{artefact.path} holds more than weights ({str(problem)[:200]}); save its state_dict, as safetensors at best"
        ) from problem
    return found if isinstance(found, Mapping) else {"": found}


# What it is


def _regular(path: Path) -> Path:
    try:
        real = path.resolve(strict=True)
        kind = real.stat()
    except (OSError, RuntimeError) as problem:
        raise ArtefactError(f"{path} cannot be read ({getattr(problem, 'strerror', None) or problem})") from problem
    if not stat.S_ISREG(kind.st_mode):
        raise ArtefactError(f"{path} is no file")
    return real


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _format(path: Path) -> Format:
    """By what is in the file, whatever its name says."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[:2] == b"PK":
        return _archive(path)
    if head[:1] == b"\x80":
        return "torch"
    if len(head) == 9 and head[8:] == b"{" and 0 < struct.unpack("<Q", head[:8])[0] <= HEADER:
        return "safetensors"
    if head[:1] == b"\x08":  # ir_version, the first field of every ONNX model
        return "onnx"
    raise ArtefactError(f"{path} is neither ONNX, safetensors nor a file of torch (it begins with {head[:8]!r}); export it to ONNX")


def _archive(path: Path) -> Format:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        raise ArtefactError(f"{path} is a damaged archive ({problem}); fetch it again") from problem
    if len(names) > MEMBERS:
        raise ArtefactError(f"{path} holds {len(names):,} files, more than any model has")
    parts = {PurePosixPath(name).parts[1] for name in names if len(PurePosixPath(name).parts) > 1} | set(names)
    if "constants.pkl" in parts or "code" in parts:
        return "torchscript"
    if "data.pkl" in parts and not parts & {"models", "archive_format", "serialized_exported_program.json"}:
        return "torch"
    return "exported"


def _pickled(path: Path) -> None:
    if os.environ.get(UNSAFE):
        raise ArtefactError(f"{path} is a pickle, and {UNSAFE} is set, which lets it run code; unset it")


# What it reaches for


def _onnx(path: Path, largest: int, domains: Collection[str]) -> tuple[Path, ...]:
    try:
        import onnx
    except ImportError as problem:
        raise ArtefactError(f"{path} cannot be looked over without the package onnx; install watchkeeper[onnx]") from problem
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as problem:
        raise ArtefactError(f"{path} is no whole ONNX model ({str(problem)[:200]}); fetch or export it again") from problem
    own = {function.domain for function in model.functions}
    beside: dict[Path, None] = {}
    for message in _messages(model):
        name = message.DESCRIPTOR.name
        if name == "NodeProto" and message.domain not in KNOWN | own | set(domains):
            raise ArtefactError(f"{path} uses {message.domain}.{message.op_type}, which no runtime here knows; export it without, or list its domain")
        if name == "TensorProto" and (message.data_location == onnx.TensorProto.EXTERNAL or message.external_data):
            beside[_external(path, {entry.key: entry.value for entry in message.external_data})] = None
    size = sum(file.stat().st_size for file in beside)
    if size > largest:
        raise ArtefactError(f"{path} has {size:,} bytes of weights beside it, more than are allowed; raise the limit if it is meant to be so large")
    try:
        onnx.checker.check_model(str(path))
    except Exception as problem:
        raise ArtefactError(f"{path} is no valid ONNX model ({str(problem)[:200]}); export it again") from problem
    return tuple(beside)


def _messages(message: Any) -> Iterator[Any]:
    """The message and all it holds, wherever it holds it: subgraphs, functions, attributes, sparse tensors."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        yield one
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting.extend(value if field.is_repeated else [value])


def _external(model: Path, told: Mapping[str, str]) -> Path:
    """A file of weights: a plain file of its own, in the model's own folder, long enough for what it is said to hold."""
    place = told.get("location", "")
    named = PurePosixPath(place)
    if not place or named.is_absolute() or ".." in named.parts or "\\" in place:
        raise ArtefactError(f"{model} keeps weights at '{place}', outside its own folder; export it into one folder")
    for step in range(1, len(named.parts) + 1):
        if (model.parent / Path(*named.parts[:step])).is_symlink():
            raise ArtefactError(f"{model} keeps weights at '{place}', which is a link; copy the file itself there")
    file = model.parent / named
    try:
        kind = file.lstat()
    except OSError as problem:
        raise ArtefactError(f"{model} keeps weights at '{place}', which is not there ({problem.strerror}); fetch the whole folder") from problem
    if not stat.S_ISREG(kind.st_mode) or kind.st_nlink != 1:
        raise ArtefactError(
            f"{model} keeps weights at '{place}', which is {'a hard link' if kind.st_nlink > 1 else 'no plain file'}; copy the file itself"
        )
    try:
        begin, length = int(told.get("offset") or 0), int(told.get("length") or 0)
    except ValueError as problem:
        raise ArtefactError(f"{model} does not say where in '{place}' its weights lie; export it again") from problem
    if begin < 0 or length < 0 or begin + length > kind.st_size:
        raise ArtefactError(f"{model} looks for weights beyond the end of '{place}' ({kind.st_size:,} bytes): the file was cut short; fetch it again")
    return file


def _safetensors(path: Path, size: int) -> None:
    """The header is whole, and the tensors lie one after the other without holes or overlaps, up to the end of the file."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        text = file.read(length)
    try:
        header = json.loads(text)
        found = sorted(_placed(name, one) for name, one in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise ArtefactError(f"{path} has a damaged header ({str(problem)[:200]}); fetch it again") from problem
    end = 0
    for begin, stop, name in found:
        if begin != end:
            raise ArtefactError(f"{path}: tensor '{name}' begins at byte {begin:,}, and the one before it ends at {end:,}; save it again")
        end = stop
    if end != size - 8 - length:
        raise ArtefactError(f"{path} has {size - 8 - length:,} bytes of tensors and names {end:,}: it was cut short or added to; fetch it again")


def _placed(name: str, one: Mapping[str, Any]) -> tuple[int, int, str]:
    begin, stop = one["data_offsets"]
    shape = one["shape"]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, begin, stop)):
        raise ValueError(f"tensor '{name}' has a size that is no number")
    if prod(shape) * BITS[one["dtype"]] != 8 * (stop - begin):
        raise ValueError(f"tensor '{name}' does not fit the bytes it is said to have")
    return begin, stop, name
