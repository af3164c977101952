"""The schema of the one result, JSON Schema 2020-12: what every audit that is written holds, and what others may rely on."""

from __future__ import annotations

import json

from agent.audit.canonical import FORMAT
from agent.audit.catalogue import DEBTS, OTHER_DEBTS, SECTIONS, SOURCES
from agent.audit.comparing import ORDER
from agent.model import Json

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}
MOMENT: Json = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$"}
DIGEST: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
POINTS: Json = {"type": "number", "minimum": 0, "maximum": 10}
SHARE: Json = {"type": "number", "minimum": 0, "maximum": 1}
ITEM: Json = {"type": "string", "pattern": "^(DATA|MODEL|DEPL|MON|TEAM|ORG)-[0-9]{2}$"}
STATE: Json = {"enum": ["pass", "partial", "fail", "stale", "unknown", "n/a"]}
LEVEL: Json = {"enum": ["R0", "R1", "R2", "R3", "R4", "R5"]}
VERDICT: Json = {"enum": ["READY", "CONDITIONAL", "NOT-READY", "UNVERIFIED"]}
CRITICALITY: Json = {"enum": ["blocker", "high", "medium", "low"]}
ANYTHING: Json = {"type": "object"}


def none_or(one: Json) -> Json:
    return {"anyOf": [one, {"type": "null"}]}


def many(one: Json) -> Json:
    return {"type": "array", "items": one}


def exactly(fields: dict[str, Json], **maybe: Json) -> Json:
    """An object with these keys, perhaps with those, and no other."""
    return {"type": "object", "properties": {**fields, **maybe}, "required": sorted(fields), "additionalProperties": False}


def at_least(fields: dict[str, Json]) -> Json:
    """An object with these keys, and others."""
    return {"type": "object", "properties": fields, "required": sorted(fields)}


def of(kind: str) -> Json:
    return {"$ref": f"#/$defs/{kind}"}


TOLD: dict[str, Json] = {
    "item": ITEM,
    "question": TEXT,
    "criticality": CRITICALITY,
    "state": STATE,
    "points": SHARE,
    "why": TEXT,
    "at": none_or(MOMENT),
    "until_at": none_or(MOMENT),
}
ANSWER = exactly(
    {"said": {"enum": ["pass", "partial", "fail"]}, "at": MOMENT, "repeated": FLAG, "version": none_or(TEXT), "observed": TEXT, "attested": FLAG}
)
EVIDENCE = exactly(
    {
        "kind": TEXT,
        "source": TEXT,
        "vantage": {"enum": ["independent", "self"]},
        "at": MOMENT,
        "collector": TEXT,
        "query": TEXT,
        "locator": TEXT,
        "digest": TEXT,
        "link": none_or({"type": "integer", "minimum": 1}),
    }
)
FIX = exactly(
    {
        "item": ITEM,
        "question": TEXT,
        "criticality": CRITICALITY,
        "why": TEXT,
        "effort": {"enum": ["S", "M", "L"]},
        "gain": SHARE,
        "final": POINTS,
        "lifts": NUMBER,
        "earn": TEXT,
        "commands": many(TEXT),
        "kind": {"enum": ["safe", "live", "set up"]},
    }
)
KIND: Json = {"enum": ["attested", "waived", "not applicable"]}
WORD = at_least({"kind": KIND, "item": ITEM, "by": TEXT, "until_at": MOMENT, "note": TEXT, "reason": none_or(TEXT)})
BEFORE = none_or(exactly({"state": STATE, "points": SHARE}))
CHANGE = exactly({"item": ITEM, "state": {"enum": list(ORDER)}, "before": BEFORE, "now": BEFORE, "since": MOMENT, "why": TEXT})
QUESTION = exactly(
    {
        **TOLD,
        "mode": {"enum": ["automatic", "attested in part", "attested"]},
        "answer": none_or(of("answer")),
        "expected": exactly({"pass": TEXT, "partial": TEXT, "fail": TEXT}),
        "best": SHARE,
        "earn": none_or(TEXT),
        "fresh_days": COUNT,
        "versioned": FLAG,
        "criteria": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        "evidence": many(of("evidence")),
        "attestation": none_or(of("word")),
        "waiver": none_or(of("word")),
        "fix": none_or(of("fix")),
        "maps": exactly({key: many(TEXT) for key in ("failures", "ml_test_score", "debt", "ai_act", "nist")}),
    },
    delta=exactly({"state": {"enum": list(ORDER)}, "since": MOMENT, "before": BEFORE}),
)
CHANGES = exactly(
    {
        "since": MOMENT,
        "final": exactly({"before": POINTS, "like_for_like": POINTS, "now": POINTS}),
        "level": exactly({"before": LEVEL, "now": LEVEL}),
        "verdict": exactly({"before": VERDICT, "now": VERDICT}),
        "served": exactly({"before": none_or(TEXT), "now": none_or(TEXT)}),
        "counts": {"type": "object", "additionalProperties": COUNT, "propertyNames": {"enum": list(ORDER)}},
        "items": many(of("change")),
    }
)
DEBT = exactly({"index": {"type": "number", "minimum": 0, "maximum": 100}, "hours_a_week": NUMBER, "rank": {"type": "integer", "minimum": 1}})
BUDGET = exactly({"of": TEXT, "days": NUMBER, "allowed_days": NUMBER, "used": NUMBER, "spent": FLAG})
COMPARED = none_or(
    exactly(
        {
            "as_of": MOMENT,
            "final": POINTS,
            "level": LEVEL,
            "verdict": VERDICT,
            "served": none_or(TEXT),
            "arrow": {"enum": ["up", "level", "down"]},
            "worse": many(ITEM),
            "better": many(ITEM),
        }
    )
)
TREND = exactly(
    {
        "audits": COUNT,
        "seen_days": NUMBER,
        "of_days": NUMBER,
        "readiness": many(BUDGET),
        "evidence": exactly({"item_days": NUMBER, "share": none_or(SHARE), "allowed_share": SHARE, "used": NUMBER, "spent": FLAG}),
        "repairs": many(exactly({"item": ITEM, "times": COUNT, "mean_days": none_or(NUMBER), "since": none_or(MOMENT)})),
        "comparisons": exactly(dict.fromkeys(("last", "last_ready", "same_version"), COMPARED)),
    }
)
READINESS = exactly(
    {
        "headline": TEXT,
        "verdict": VERDICT,
        "why": TEXT,
        "final": POINTS,
        "level": LEVEL,
        "coverage": SHARE,
        "fresh": COUNT,
        "answerable": COUNT,
        "served": none_or(TEXT),
        "sections": many(exactly({"section": {"enum": list(SECTIONS)}, "points": POINTS, "least": FLAG})),
        "blockers": many(exactly(TOLD)),
        "ml_test_score": exactly({"points": {"type": "number", "minimum": 0, "maximum": 7}, "band": TEXT}),
        "items": many(of("question")),
        "plan": many(of("fix")),
        "steps": many(exactly({"do": {"type": "integer", "minimum": 1}, "final": POINTS})),
        "debt": exactly(dict.fromkeys((*DEBTS, *OTHER_DEBTS), of("debt"))),
        "elsewhere_hours_a_week": NUMBER,
        "hurt": {"type": "object", "additionalProperties": COUNT},
        "questions": many(exactly({"question": TEXT, "answer": none_or(TEXT), "why": TEXT})),
        "budgets": many(at_least({"objective": TEXT, "used": NUMBER, "spent": FLAG, "said": TEXT})),
        "attached": many({"enum": list(SOURCES)}),
        "sources": many(exactly({"source": {"enum": list(SOURCES)}, "attached": FLAG, "questions": COUNT, "fresh": COUNT})),
        "ceiling": POINTS,
        "next": none_or(exactly({"source": TEXT, "ceiling": POINTS, "more": COUNT})),
        "catalogue": exactly({"version": COUNT, "digest": DIGEST}),
        "changes": none_or(of("changes")),
        "trend": none_or(of("trend")),
    }
)
SERVICE = at_least(
    {
        "service": TEXT,
        "readiness": of("readiness"),
        **{key: many(ANYTHING) for key in ("incidents", "runs", "findings", "changes", "drills")},
        "targets": {"type": "object", "additionalProperties": TEXT},
    }
)
SCHEMA: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": f"urn:{FORMAT.replace('/', ':')}",
    "title": "The audit of one or more services by Watchkeeper",
    **exactly(
        {
            "format": {"const": FORMAT},
            "as_of": MOMENT,
            "since_at": MOMENT,
            "config": exactly({"path": TEXT, "digest": DIGEST}),
            "store": TEXT,
            "evidence": exactly({"verified": FLAG, "problems": many(TEXT), "links": COUNT, "last_link": DIGEST}),
            "looking": exactly({"events": many(ANYTHING)}),
            "everywhere": many(ANYTHING),
            "services": many(of("service")),
        }
    ),
    "$defs": {
        "answer": ANSWER,
        "change": CHANGE,
        "changes": CHANGES,
        "debt": DEBT,
        "evidence": EVIDENCE,
        "fix": FIX,
        "question": QUESTION,
        "readiness": READINESS,
        "service": SERVICE,
        "trend": TREND,
        "word": WORD,
    },
}


def schema() -> bytes:
    """The schema as a file."""
    return (json.dumps(SCHEMA, sort_keys=True, indent=1) + "\n").encode()
