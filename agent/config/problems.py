"""One thing wrong with the configuration: where it is, and a sentence that says the next move."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from agent.model import Json
from agent.plugins import suggest

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """Sorts by file, then by place in it."""

    file: str
    line: int
    column: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place} {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class Given(str):
    """Text that came from the environment or a file: `source` is what the configuration says, and all that may be shown."""

    source: str

    def __new__(cls, value: str, source: str) -> Given:
        made = super().__new__(cls, value)
        made.source = source
        return made


def spell_path(path: Path) -> str:
    """("services", "fraud", "watches", 2) -> services.fraud.watches[2]"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def shown(value: Json) -> str:
    """A value as a problem may quote it: short, and never a secret."""
    text = value.source if isinstance(value, Given) else str(value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def kind(value: Json) -> str:
    """What a value is, in the words of someone who writes YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {shown(value)[1:-1]}"
    if isinstance(value, str):
        return f"the text {shown(value)}"
    return "a list" if isinstance(value, Sequence) else "a mapping"


def near(word: str, known: Collection[str]) -> str:
    """The suggestion for a mistyped word; a monster of a word gets none (comparing it would take too long)."""
    if len(word) > 100:
        return ""
    return suggest(word, sorted(known)[:2000])


_WANTED = {
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text, not {kind}",
    "int_type": "must be a whole number, not {kind}",
    "int_from_float": "must be a whole number, not {kind}",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number, not {kind}",
    "bool_type": "must be true or false, not {kind}",
    "list_type": "must be a list, not {kind}",
    "tuple_type": "must be a list, not {kind}",
    "set_type": "must be a list, not {kind}",
    "frozen_set_type": "must be a list, not {kind}",
    "dict_type": "must be a mapping, not {kind}",
    "model_type": "must be a mapping, not {kind}",
    "none_required": "must be left out, not {kind}",
    "greater_than_equal": "must be at least {ge}, not {kind}",
    "greater_than": "must be more than {gt}, not {kind}",
    "less_than_equal": "must be at most {le}, not {kind}",
    "less_than": "must be less than {lt}, not {kind}",
    "finite_number": "must be a finite number",
    "unexpected_keyword_argument": "is no key that is known here",
    "literal_error": "must be {expected}, not {kind}",
    "enum": "must be {expected}, not {kind}",
    "too_short": "needs at least {min_length}, and has {actual_length}",
    "too_long": "may have at most {max_length}, and has {actual_length}",
}


def phrase(error: Mapping[str, Any], value: Json) -> str:
    """A pydantic error about `value` in a sentence of ours."""
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])
    pattern = _WANTED.get(error["type"])
    if pattern is None:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}"
    text = pattern.format(kind=kind(value), **{name: str(held) for name, held in context.items()})
    if error["type"] != "literal_error" or not isinstance(value, str):
        return text
    words = [word.strip("' ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
    meant = near(value, words)
    return text + (meant if "did you mean" in meant else "")
