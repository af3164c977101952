"""The audit in the formats that other programs read: SARIF, JUnit, CSV, and a badge. Each is a pure function of the one result."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from agent.audit.canonical import fixed
from agent.audit.gates import SEEN
from agent.model import Json

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"blocker": "error", "high": "error", "medium": "warning", "low": "note"}
STATES = {"regressed": "updated", "unchanged": "unchanged", "new": "new", "improved": "updated", "criteria-changed": "updated"}
COLUMNS = ("service", "item", "criticality", "state", "points", "question", "why", "at", "until_at", "earn")
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FORMULA = re.compile(r"[=+\-@\t\r]")
COLOURS = {"READY": "#1a7f37", "CONDITIONAL": "#8a5a00", "NOT-READY": "#b3261e", "UNVERIFIED": "#6b3fa0"}
GRAVITY = ("NOT-READY", "UNVERIFIED", "CONDITIONAL", "READY")


# SARIF


def sarif(report: Mapping[str, Json]) -> bytes:
    """SARIF 2.1.0: a result for each question that fails or is met in part, at the configuration, whose change would mend it.

    What passes is left out, because places that show SARIF make an alert of it, and so is what is not known: that nobody looked is no finding.
    """
    items = [one for service in report["services"] for one in service["readiness"]["items"]]
    first = {one["item"]: one for one in reversed(items)}
    driver = {"name": "Watchkeeper", "rules": [_rule(first[name]) for name in sorted(first)]}
    results = [
        _result(service["service"], one, report["config"]["path"])
        for service in report["services"]
        for one in service["readiness"]["items"]
        if one["state"] in ("fail", "partial")
    ]
    run = {
        "tool": {"driver": driver},
        "results": results,
        "columnKind": "unicodeCodePoints",
        "properties": {"as_of": report["as_of"], "format": report["format"], "last_link": report["evidence"]["last_link"]},
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return (json.dumps(fixed(log), sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _rule(one: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "id": one["item"],
        "shortDescription": {"text": one["question"]},
        "fullDescription": {"text": f"pass: {one['expected']['pass']}; partial: {one['expected']['partial']}; fail: {one['expected']['fail']}"},
        "help": {"text": f"watchkeeper audit explain {one['item']}"},
        "defaultConfiguration": {"level": LEVELS[one["criticality"]]},
        "properties": {"criticality": one["criticality"], "criteria": one["criteria"], "tags": one["maps"]["failures"]},
    }


def _result(service: str, one: Mapping[str, Json], place: str) -> dict[str, Json]:
    said = f"{service}: {one['why']}" + (f". Do: {one['fix']['earn']}" if one["fix"] else "")
    where = {"physicalLocation": {"artifactLocation": {"uri": _uri(place)}, "region": {"startLine": 1}}}
    made = {
        "ruleId": one["item"],
        "kind": "fail",
        "level": LEVELS[one["criticality"]] if one["state"] == "fail" else "warning" if LEVELS[one["criticality"]] == "error" else "note",
        "message": {"text": said},
        "locations": [{**where, "logicalLocations": [{"fullyQualifiedName": f"{service}/{one['item']}", "kind": "resource"}]}],
        "partialFingerprints": {"serviceAndItem/v1": hashlib.sha256(f"{service}/{one['item']}".encode()).hexdigest()},
        "properties": {"state": one["state"], "points": one["points"], "service": service},
    }
    if one.get("delta"):
        made["baselineState"] = STATES.get(one["delta"]["state"], "new")
    if one["waiver"]:
        given = one["waiver"]
        made["suppressions"] = [{"kind": "external", "status": "accepted", "justification": f"{given['by']}: {given['reason']}, {given['note']}"}]
        made["properties"]["waiver"] = given
    return made


def _uri(place: str) -> str:
    """The name of the file alone: a folder of this machine means nothing where the result is read."""
    from urllib.parse import quote

    return quote(place.replace("\\", "/").rpartition("/")[2] or "watchkeeper.yaml")


# JUnit


def junit(report: Mapping[str, Json]) -> bytes:
    """JUnit XML: a suite for each section of each service. What is not met fails, what is not known is an error, what does not apply is skipped."""
    root = Element("testsuites", name="watchkeeper audit")
    told = [(one["service"], part["section"], one["readiness"]) for one in report["services"] for part in one["readiness"]["sections"]]
    totals = [_suite(root, *one, report["as_of"]) for one in told]
    for n, key in enumerate(("tests", "failures", "errors")):
        root.set(key, str(sum(total[n] for total in totals)))
    indent(root, " ")
    text: str = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode("utf-8", "replace")


def _suite(root: Element, service: str, section: str, told: Mapping[str, Json], as_of: str) -> tuple[int, int, int, int]:
    items = [one for one in told["items"] if one["item"].startswith(f"{section}-")]
    suite = SubElement(root, "testsuite", name=xml(f"{service}.{section}"))
    ends = [_case(suite, service, section, one) for one in items]
    counts = (len(items), ends.count("failure"), ends.count("error"), ends.count("skipped"))
    for key, n in zip(("tests", "failures", "errors", "skipped"), counts, strict=True):
        suite.set(key, str(n))
    suite.set("time", "0")
    suite.set("timestamp", as_of[:19])
    return counts


def _case(suite: Element, service: str, section: str, one: Mapping[str, Json]) -> str:
    case = SubElement(suite, "testcase", classname=xml(f"{service}.{section}"), name=xml(f"{one['item']} {one['question']}"), time="0")
    if one["state"] == "pass":
        return ""
    end = "skipped" if one["state"] == "n/a" else "failure" if one["state"] in SEEN else "error"
    told = SubElement(case, end, message=xml(f"{one['state']}: {one['why']}"))
    if end != "skipped":
        told.set("type", one["state"])
        told.text = xml("\n".join([one["why"], *([f"Do: {one['fix']['earn']}"] if one["fix"] else [])]))
    return end


def xml(value: str) -> str:
    """Text without the characters that XML cannot hold."""
    return NOT_XML.sub("\ufffd", value)


# CSV and badge


def table(report: Mapping[str, Json]) -> bytes:
    """CSV, a row for each question of each service. A cell that a spreadsheet would run as a formula begins with an apostrophe."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(_rows(report["services"]))
    return out.getvalue().encode("utf-8", "replace")


def _rows(services: Sequence[Mapping[str, Json]]) -> Iterator[list[str]]:
    for service in services:
        for one in service["readiness"]["items"]:
            told = {**one, "service": service["service"], "earn": (one["fix"] or {}).get("earn", "")}
            yield [_cell(told[name]) for name in COLUMNS]


def _cell(value: Json) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"'{text}" if FORMULA.match(text) else text


def badge(report: Mapping[str, Json]) -> bytes:
    """A badge as SVG: the worst verdict, with the lowest level and score of those that have it."""
    told = [service["readiness"] for service in report["services"]]
    worst = min(told, key=lambda one: (GRAVITY.index(one["verdict"]), one["final"]), default=None)
    said = "no service" if worst is None else f"{worst['verdict']} {worst['level']} {worst['final']:g}/10"
    colour = COLOURS["UNVERIFIED" if worst is None else worst["verdict"]]
    left, right = 74, 16 + 7 * len(said)
    return _SVG.format(width=left + right, left=left, right=right, colour=colour, said=said, at=left + right / 2).encode()


_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="readiness: {said}">
<title>readiness: {said}</title>
<rect width="{left}" height="20" fill="#444c56"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="37" y="14">readiness</text><text x="{at:g}" y="14">{said}</text>
</g>
</svg>
"""
