"""A registry that is a folder: each version once, with digests, lineage and golden rows; `record` is what training code calls."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from agent import UTC, Golden, GoldenRow, Json, Locator, ModelVersion, Swap, adapter, digest
from agent.errors import AnswerError, CannotError, UnreachableError
from agent.targets import _disk, _shapes
from agent.targets._register import Register

GOLDEN = "golden.json"
PROMOTED = "_promoted"  # no version can be called that
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}")


@adapter(role="registry", schemes=("folder",))
class Folder:
    """`folder:models/digits`: `<version>/manifest.json` and `<version>/golden.json` beside the version's files; `_promoted` names one of them."""

    can: frozenset[str] = frozenset({"versions", "golden", "record", "files", "register"})

    def __init__(self, at: Locator) -> None:
        self.root = Path(at.folder) / at.address.removeprefix("folder://")

    def versions(self) -> Sequence[ModelVersion]:
        """All versions, oldest first. Folders without a manifest are none: a server may keep others beside them."""
        self._mounted()
        names = [path.parent.name for path in self.root.glob("*/manifest.json") if _NAME.fullmatch(path.parent.name)]
        return sorted((found for found in map(self.version, names) if found), key=lambda one: (one.registered_at, one.version))

    def version(self, name: str) -> ModelVersion | None:
        """One version; None if it is not registered; AnswerError if its manifest was changed after it was recorded."""
        path = self._inside(name) / "manifest.json"
        manifest = _read(path)
        if manifest is None:
            return None
        if manifest.get("digest") != _seal(manifest) or manifest.get("version") != name:
            raise AnswerError(f"{path} was changed after it was recorded: its digest does not match; record the model again as a new version")
        return _manifest(manifest, path)

    def golden(self, version: str) -> Golden | None:
        """Its golden rows; None if none were recorded; AnswerError if they are not those that were recorded."""
        path, registered = self._inside(version) / "golden.json", self.version(version)
        sealed = registered.files.get(path.name) if registered else None
        stored = _read(path)
        if stored is None and sealed is None:
            return None
        if stored is None or stored.get("digest") != _seal(stored) or sealed != _file(path) or stored.get("version") != version:
            raise AnswerError(f"{path} was changed after it was recorded: its digest does not match; restore it, or record a new version")
        rows = tuple(GoldenRow(row["request"], row["expected"]) for row in stored["rows"])
        return Golden(version, rows, float(stored["rtol"]), float(stored["atol"]), stored["digest"])

    def file(self, version: str, name: str) -> Path:
        """Where a file of a version lies, once its sha256 has been found to be the recorded one."""
        registered = self.version(version)
        if registered is None or name not in registered.files:
            raise AnswerError(f"{self.root}: version {version} has no file '{name}'")
        path = self._inside(version) / name
        if not path.is_file() or _file(path) != registered.files[name]:
            raise AnswerError(f"{path} is gone, or was changed after it was recorded; restore it, or record a new version")
        return path

    @property
    def record(self) -> Swap:
        """Writes `{"to": version}`, None for none, into the file `_promoted`: compare-and-set on what it held. A record, which moves no traffic."""
        return Swap(self._promoted, self._promote, word="in force by the registry")

    @property
    def register(self) -> Register:
        """Writes a new version, all of it at once; its golden rows are those in its `golden.json`, where it has one."""
        return Register(self.version, self._register)

    def close(self) -> None:
        """Nothing is held open."""

    def _register(self, version: str, folder: Path, files: Mapping[str, str], lineage: Mapping[str, Json]) -> None:
        self._mounted()
        rows = _read(folder / GOLDEN) if GOLDEN in files else None
        try:
            said = {"rtol": 1e-3, "atol": 1e-5, "rows": (), **(rows or {})}
            golden = [(row["request"], row["expected"]) for row in said["rows"]]
            rtol, atol = float(said["rtol"]), float(said["atol"])
            others = {name: digest for name, digest in files.items() if name != GOLDEN}
            made = {name: folder / name for name in others}
            record(self.root, version, made, golden=golden, lineage=lineage, rtol=rtol, atol=atol, digests=others)
        except (TypeError, KeyError, AttributeError, ValueError) as problem:
            raise AnswerError(f"{folder / GOLDEN} holds no golden rows ({problem}); write {{rows: [{{request, expected}}], rtol, atol}}") from problem
        except OSError as problem:
            raise UnreachableError(
                f"{self.root}: version {version} could not be written ({problem.strerror or problem}); none of it is there"
            ) from problem

    def _mounted(self) -> None:
        if not self.root.is_dir():
            raise UnreachableError(f"no registry folder {self.root}; mount it, or mend `registry:`")

    def _promoted(self) -> str | None:
        self._mounted()
        said = _disk.read(self.root / PROMOTED, str(self.root))
        return None if said is None else _named(said.decode("utf-8", "replace").strip())

    def _promote(self, to: Json, expected: Json) -> None:
        path = self.root / PROMOTED
        with _disk.alone(self.root, str(self.root)):
            if (found := self._promoted()) != expected:
                raise _shapes.moved(str(path), expected, f"it names {found}")
            if to is not None and self.version(to) is None:
                raise CannotError(f"{path}: version {to} is not registered here; record() it first")
            _disk.written(path, None if to is None else f"{to}\n", str(self.root))

    def _inside(self, version: str) -> Path:
        path = self.root / _named(version)
        if path.resolve().parent != self.root.resolve():
            raise AnswerError(f"{path} leads out of the registry {self.root}; a version's folder must lie in it")
        return path


def record(
    root: str | Path,
    version: str,
    files: Mapping[str, str | Path | bytes],
    *,
    golden: Iterable[tuple[Json, Json]] = (),
    lineage: Mapping[str, Json] | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    now: datetime | None = None,
    digests: Mapping[str, str] = {},
) -> ModelVersion:
    """Register one version: all of it appears at once, or none of it does. A version is written once, ever.

    `files`: name -> a path to copy, or the bytes themselves. `golden`: (raw request, expected answer) pairs made by the training code.
    `lineage`: what it was made from; a "signature" in it ({"inputs": [{"name", "datatype", "shape"}], "outputs": [...]}) is what
    `serving.signature` compares with. `digests`: what the sha256 of a file must be, by its name; AnswerError where it is
    another. CannotError if the version is there already; ValueError for NaN or what JSON cannot hold.
    """
    home = Path(root) / _named(version)
    if home.exists():
        raise _taken(home)
    draft = home.parent / f".{version}.{secrets.token_hex(8)}"
    draft.mkdir(parents=True)
    try:
        manifest = _fill(draft, version, files, list(golden), {"rtol": rtol, "atol": atol}, lineage or {}, now or datetime.now(UTC))
        if odd := sorted(name for name, expected in digests.items() if manifest["files"].get(name) != expected):
            raise AnswerError(f"{odd[0]} is not what was handed in: its sha256 is another; version {version} was not recorded")
        _publish(draft, home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _manifest(manifest, home / "manifest.json")


def _fill(
    draft: Path,
    version: str,
    files: Mapping[str, str | Path | bytes],
    rows: Sequence[tuple[Json, Json]],
    tolerance: Mapping[str, float],
    lineage: Mapping[str, Json],
    now: datetime,
) -> Mapping[str, Json]:
    for name, source in files.items():
        _place(draft, name, source)
    if rows:
        pairs = [{"request": request, "expected": expected} for request, expected in rows]
        _write(draft / "golden.json", {"version": version, **tolerance, "rows": pairs})
    digests = {path.relative_to(draft).as_posix(): _file(path) for path in sorted(draft.rglob("*")) if path.is_file()}
    stamp = now.astimezone(UTC).isoformat()
    return _write(draft / "manifest.json", {"version": version, "registered_at": stamp, "files": digests, "lineage": dict(lineage)})


def _place(draft: Path, name: str, source: str | Path | bytes) -> None:
    path = draft / name
    if draft.resolve() not in path.resolve().parents or name in ("manifest.json", "golden.json"):
        raise CannotError(f"no file of a version can be called '{name}'; name it relative to the version's folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        shutil.copyfile(source, path)


def _publish(draft: Path, home: Path) -> None:
    for path in (*draft.rglob("*"), draft):
        _disk.synced(path)
    if home.exists():  # rename() would replace an empty folder without a word
        raise _taken(home)
    try:
        draft.rename(home)
    except OSError as problem:
        if home.exists():  # somebody recorded the same version at the same time
            raise _taken(home) from problem
        raise
    _disk.synced(home.parent)


def _taken(home: Path) -> CannotError:
    return CannotError(f"{home} is there already and a version is written once; record this model under another version")


def _named(version: str) -> str:
    if not isinstance(version, str) or not _NAME.fullmatch(version):
        raise AnswerError(f"{version!r:.80} names no version: letters, digits and . _ + @ - only, beginning with a letter or digit")
    return version


def _seal(document: Mapping[str, Json]) -> str:
    """The digest over all that is recorded; a later declaration that the version is good breaks no seal."""
    return digest({key: value for key, value in document.items() if key not in ("digest", "declared_good_by")})


def _write(path: Path, document: Mapping[str, Json]) -> Mapping[str, Json]:
    plain = json.loads(json.dumps(document, allow_nan=False, default=_plain))
    sealed: Mapping[str, Json] = {**plain, "digest": _seal(plain)}
    path.write_text(json.dumps(sealed, indent=1) + "\n", encoding="utf-8")
    return sealed


def _plain(value: Json) -> Json:
    """numpy arrays and scalars, which is what training code has at hand, as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"JSON cannot hold a {type(value).__name__}; give lists, numbers and text")


def _read(path: Path) -> Json | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise UnreachableError(f"{path} cannot be read: {problem.strerror}; give the agent's user the right to read it") from problem
    except ValueError as problem:
        raise AnswerError(f"{path} is no JSON ({problem}); restore it, or record a new version") from problem
    if not isinstance(document, dict):
        raise AnswerError(f"{path} holds no JSON object; restore it, or record a new version")
    return document


def _manifest(manifest: Mapping[str, Json], path: Path) -> ModelVersion:
    registered_at = datetime.fromisoformat(manifest["registered_at"])
    if registered_at.tzinfo is None:
        raise AnswerError(f"{path}: registered_at has no zone")
    return ModelVersion(
        manifest["version"],
        manifest["digest"],
        manifest["files"],
        manifest["lineage"],
        registered_at.astimezone(UTC),
        manifest.get("declared_good_by"),
    )


def _file(path: Path) -> str | None:
    if not path.is_file():
        return None
    found = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
