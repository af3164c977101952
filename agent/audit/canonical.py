"""The audit as one result: its canonical bytes, and how such a file is read again. Everything else that is written of an audit is made from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.model import Json, to_json

FORMAT = "watchkeeper-audit/1"
DECIMALS = 6  # of every number: what an addition leaves behind them is not a difference
MOST_BYTES = 64 * 2**20


def canonical(report: Json) -> bytes:
    """The result as bytes that are the same wherever and whenever they are made: keys sorted, six decimals, UTF-8, one line break at the end."""
    text = json.dumps(fixed(to_json(report)), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode("utf-8", "replace")


def fixed(value: Json) -> Json:
    """Numbers rounded, never -0.0; NaN and the infinities, which JSON does not have, are missing."""
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0 if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: fixed(item) for key, item in value.items()}
    return [fixed(item) for item in value] if isinstance(value, list) else value


def digest(report: Json) -> str:
    """The sha256 of the canonical bytes."""
    return hashlib.sha256(canonical(report)).hexdigest()


def read(path: Path) -> dict[str, Any]:
    """A result that was written; ConfigError for what is none, or is one of another format."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path} is larger than {MOST_BYTES // 2**20} MB; no audit is")
        body: Json = json.loads(path.read_bytes())
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read: {problem.strerror}; 'watchkeeper audit run --out audit.json' writes one") from problem
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{path} is no JSON ({problem}); 'watchkeeper audit run --out audit.json' writes an audit") from problem
    word = body.get("format") if isinstance(body, dict) else None
    if word != FORMAT:
        raise ConfigError(f"{path} is no audit of this format ({FORMAT}) but {word!r:.60}; write it anew with 'watchkeeper audit run'")
    try:
        for service in body["services"]:
            for one in service["readiness"]["items"]:
                one["item"], one["state"], float(one["points"])
    except (KeyError, TypeError, ValueError) as problem:
        raise ConfigError(f"{path} says that it is an audit and is not whole ({problem!r}); write it anew with 'watchkeeper audit run'") from problem
    return dict(body)
