"""whylogs' binary profiles: real files by whylogs 1.6.4, against what it says of them itself (tests/data/profiles/make.py), and damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Locator, Reports, Window
from agent.errors import ConfigError, DataError
from agent.perform import perform
from agent.targets import _sketches, _whylogs, connect
from checks import _gaps, _profiles
from checks.drift import compare
from checks.imported import profiles, whylogs
from tests.conftest import HOUSE

REAL = HOUSE / "tests" / "data" / "profiles"
TOLD = json.loads((REAL / "told.json").read_text())
NOW = datetime(2026, 11, 26, 22, tzinfo=UTC)
EVERY = [(name, column) for name in ("then", "now", "many_then", "many_now", "odd", "one") for column in TOLD[name]]


def read(name):
    return _whylogs.profile((REAL / f"{name}.bin").read_bytes())


def bound(folder: Path, now: bytes | str, then: bytes | str = "then", hours=1.0):
    """A folder with a newest profile, written `hours` ago, and a reference that is newer still."""
    for name, body in (("profile-1", now), ("reference", then)):
        (folder / f"{name}.bin").write_bytes((REAL / f"{body}.bin").read_bytes() if isinstance(body, str) else body)
    at = NOW.timestamp() - 3600 * hours
    os.utime(folder / "profile-1.bin", (at, at))
    return connect(where(folder))


def where(folder, **options):
    return Locator("fraud", "report", "whylogs:*.bin", {"reference": "reference.bin", **options}, folder=str(folder))


# What is read


@pytest.mark.parametrize(("name", "column"), EVERY)
def test_what_is_read_is_what_whylogs_says(name, column):
    found, told = read(name)[column], TOLD[name][column]
    assert (found["rows"], found["nulls"]) == (told["counts/n"], told["counts/null"])
    assert found["types"] == {kind: told[f"types/{kind}"] for kind in _whylogs.TYPES if told[f"types/{kind}"]}
    assert (found["values"] or {"n": 0})["n"] == told.get("distribution/n", 0)
    if told.get("distribution/n"):
        assert found["mean"] == told.get("distribution/mean")  # that of infinite values is no number
        known = told["distribution/n"] > 1 and "distribution/stddev" in told  # whylogs says 0 of a single value
        assert found["deviation"] == (pytest.approx(told["distribution/stddev"], rel=1e-12) if known else None)


@pytest.mark.parametrize("name", ["then", "now", "many_then", "many_now"])
def test_quantiles_are_those_that_whylogs_prints_or_the_very_next_value(name):
    """whylogs' quantile is the first value beyond the share; ours is the first that reaches it."""
    names = {"0.01": "q_01", "0.05": "q_05", "0.25": "q_25", "0.5": "median", "0.75": "q_75", "0.95": "q_95", "0.99": "q_99"}
    looked = 0
    for column, found in read(name).items():
        kept = sorted(set(found["values"]["items"]))
        for share, value in _profiles.described(found).get("quantiles", {}).items():
            looked += 1
            assert abs(kept.index(value) - kept.index(TOLD[name][column][f"distribution/{names[share]}"])) <= 1, (column, share)
    assert looked >= 14


@pytest.mark.parametrize("name", ["then", "now"])
def test_a_sketch_that_has_thrown_nothing_away_holds_the_data(name):
    head, *rows = [line.split(",") for line in (REAL / f"{name}.csv").read_text().splitlines()]
    for column, found in read(name).items():
        values = [row[head.index(column)] for row in rows if row[head.index(column)]]
        if found["types"] == {"string": len(values)} or found["types"] == {"boolean": len(values)}:
            assert found["counts"] == {value: values.count(value) for value in set(values)}
        else:
            assert sorted(found["values"]["items"]) == sorted(map(float, values)) and found["values"]["error"] == 0
            assert found["values"]["levels"] == [len(values)]


def test_what_a_sketch_has_thrown_away_is_in_the_weight_of_the_rest_and_in_its_error():
    values = read("many_now")["amount"]["values"]
    assert sum(size * 2**level for level, size in enumerate(values["levels"])) == 20_000 and len(values["items"]) < 300
    assert values["error"] == pytest.approx(0.04025530254712599, rel=1e-12)  # what the library itself answers for k = 64


def test_counts_of_more_values_than_were_kept_are_not_taken_for_counts():
    """whylogs prints nothing for this column: its sketch of frequent items forgot all 500 names and calls itself empty."""
    assert read("many_now")["name"]["counts"] is None
    assert sum(read("many_now")["code"]["counts"].values()) == 20_000


# The comparison


def test_profiles_that_keep_every_value_are_judged_as_the_tables_are(tmp_path):
    ours = profiles(bound(tmp_path, "now"), NOW)
    now, then = (connect(Locator("fraud", "live", f"csv:{REAL / name}.csv")) for name in ("now", "then"))
    theirs = compare(now, then)
    assert ours.status == theirs.status == "fail"
    assert ours.parts == theirs.parts and list(ours.parts) == list(theirs.parts) and len(ours.parts) == 6
    assert ours.reason == f"{theirs.reason}\nwhylogs' profile-1.bin, 1h old, against reference.bin"
    assert ours.reason.startswith("2 of 6 comparisons drifted (150 rows against 200): amount by 0.37 (0.23 to 0.52, limit 0.1), country")
    kept = json.loads(ours.data["profiles.json"])
    assert kept["comparisons"][0].items() >= {"name": "amount", "drifted": True}.items()
    assert kept["columns"]["age"]["now"].items() >= {"rows": 150, "nulls": 9, "types": {"fractional": 141}, "rank_error": 0.0}.items()


def test_the_error_of_sketches_widens_the_interval_and_holds_the_true_distance(tmp_path):
    for name, true in TOLD["distances"].items():
        gap = _profiles.gap(read("many_now")[name]["values"], read("many_then")[name]["values"])
        error = 2 * 0.04025530254712599
        assert abs(gap.effect - true) <= error and gap.interval[0] <= true <= gap.interval[1]
        assert gap.interval[1] == pytest.approx(gap.effect + error + _gaps.reach(20_000, 20_000))
    verdict = profiles(bound(tmp_path, "many_now", "many_then"), NOW)
    assert verdict.status == "ok" and "a distance below 0.19 cannot be called at these sizes" in verdict.reason
    assert "not compared: name: its values are not all counted in the profile" in verdict.reason
    assert profiles(bound(tmp_path, "many_now", "many_then"), NOW, floor_number=0.02).reason.startswith("1 of 2 comparisons drifted")


def test_a_profile_against_itself_has_not_drifted(tmp_path):
    for name in ("then", "many_now"):
        verdict = profiles(bound(tmp_path, name, name), NOW)
        assert verdict.status == "ok" and all(part.observed == 0 for part in verdict.parts.values())


def kept(levels):
    """A sketch's values as they are read: those of each level in turn."""
    sizes = [len(level) for level in levels]
    n = sum(size << place for place, size in enumerate(sizes))
    return {"n": n, "items": np.array([value for level in levels for value in level], dtype=float), "levels": sizes, "error": 1e-9}


@given(*[st.lists(st.lists(st.integers(-5, 5), max_size=8), min_size=1, max_size=4).filter(any) for _ in range(2)])
@settings(max_examples=100, deadline=None)
def test_a_value_of_level_l_counts_as_two_to_the_l_equal_values(ours, theirs):
    now, then = (np.sort([float(v) for place, level in enumerate(side) for v in level for _ in range(1 << place)]) for side in (ours, theirs))
    assert _profiles.gap(kept(ours), kept(theirs)).effect == pytest.approx(_gaps.numbers(now, then).effect, abs=1e-12)


def test_a_number_named_nominal_is_compared_by_the_counts_of_its_values(tmp_path):
    reports = bound(tmp_path, "now")
    verdict = profiles(reports, NOW, columns=["vis*", "age"], nominal=["visits"])
    kept = {one["name"]: one["how"] for one in json.loads(verdict.data["profiles.json"])["comparisons"]}
    assert kept["visits"].startswith("chi-square") and kept["age"] == "Kolmogorov-Smirnov" and set(kept) == {"visits", "age", "age.nulls"}
    with pytest.raises(DataError, match=r"columns: 'amont' is in neither profile; there is age, amount"):
        profiles(reports, NOW, columns=["amont"])


def test_what_could_not_be_compared_is_said_and_a_changed_column_is_a_warning(tmp_path):
    verdict = profiles(bound(tmp_path, "odd", "odd"), NOW, rows_at_least=1)
    assert verdict.status == "ok" and set(verdict.parts) == {"none.nulls", "mixed.nulls", "infinite"}
    notes = {one["name"]: one["why"] for one in json.loads(verdict.data["profiles.json"])["not_compared"]}
    assert notes == {
        "none": "every value is null in the newest profile",
        "day": "object, which has no distribution",
        "list": "tensor, which has no distribution",
        "mixed": "a mix of integer, text, which has no distribution",
    }
    verdict = profiles(bound(tmp_path, "many_now", "then"), NOW, columns=["age", "amount", "code"], floor_number=0.5)
    assert verdict.status == "warn" and "age: missing in the newest profile; code: missing in the reference" in verdict.reason
    assert profiles(bound(tmp_path, "one", "then"), NOW, columns=["amount"]).status == "nodata"


def test_a_column_that_changed_its_type_is_a_warning_and_an_empty_one_is_told():
    how = _profiles.How(0.1, 0.1, 0.02, 100, (), False)
    now, then = read("now"), read("then")
    (note,) = _profiles.compared("x", now["visits"], then["country"], how)
    assert note.changed and note.why == "integer now, text in the reference"
    (note,) = _profiles.compared("x", {**now["visits"], "rows": 0}, then["visits"], how)
    assert note.why == "the newest profile counts no rows"
    (note,) = _profiles.compared("x", {**now["visits"], "values": None}, then["visits"], how)
    assert note.why == "the newest profile keeps no distribution of it"


# Which profile


def test_the_reference_is_never_the_newest_of_its_own_pattern(tmp_path):
    reports = bound(tmp_path, "now")
    assert reports.newest().name == "profile-1.bin" and isinstance(reports, Reports)
    (tmp_path / "profile-1.bin").unlink()
    assert profiles(reports, NOW).reason == "no report yet"


def test_an_old_profile_is_no_data_and_a_missing_reference_an_error(tmp_path):
    verdict = profiles(bound(tmp_path, "now", hours=25), NOW)
    assert verdict.status == "nodata" and verdict.reason == "profile-1.bin is 1d1h old (limit 1d)"
    (tmp_path / "reference.bin").unlink()
    with pytest.raises(DataError, match=r"there is no reference profile reference.bin; write one, or mend `reference:`"):
        profiles(connect(where(tmp_path)), NOW)


def test_the_reference_has_to_be_named():
    for options in ({}, {"reference": ""}, {"reference": 3}):
        with pytest.raises(ConfigError, match=r"fraud.report.reference: names the profile to compare with"):
            connect(Locator("fraud", "report", "whylogs:*.bin", options))


def test_reports_and_profiles_are_not_taken_for_each_other(tmp_path):
    reports = bound(tmp_path, "now")
    with pytest.raises(DataError, match=r"profile-1.bin is no drift report of whylogs"):
        whylogs(reports, NOW)
    shutil.copy(REAL / "told.json", tmp_path / "told.json")
    with pytest.raises(DataError, match=r"told.json is no profile with a reference: bind `report` to whylogs:PATTERN with `reference:`"):
        profiles(connect(Locator("fraud", "report", "json:*.json", folder=str(tmp_path))), datetime.now(UTC) + timedelta(minutes=1))


def test_a_look_through_the_platform_ends_as_a_finding(tmp_path):
    bound(tmp_path, "now")
    job = {"check": "imported.profiles", "locators": {"report": where(tmp_path)}, "window": Window(NOW, NOW), "now": NOW}
    assert perform({**job, "parameters": {"floor_category": 0.5, "floor_number": 0.5}}).status == "ok"


# Damage


def test_a_file_cut_short_anywhere_is_an_error(tmp_path):
    whole = (REAL / "now.bin").read_bytes()
    for end in [*range(0, 700, 7), *range(700, len(whole), 61), len(whole) - 1]:
        with pytest.raises(DataError):
            _whylogs.profile(whole[:end])
    with pytest.raises(DataError, match=r"whylogs:\*.bin: profile-1.bin is no whylogs profile, or only a part of it: .*; write to another name"):
        bound(tmp_path, whole[:-1]).newest()


@given(st.integers(0, 6_793), st.integers(1, 255), st.integers(0, 6_793))
@settings(max_examples=100, deadline=None)
def test_a_damaged_profile_is_an_error_or_still_a_verdict_and_never_anything_else(at, by, cut):
    body = bytearray((REAL / "now.bin").read_bytes())
    body[at] ^= by
    body[cut] ^= by
    how = _profiles.How(0.1, 0.1, 0.02, 100, (), False)
    try:
        found = _whylogs.profile(bytes(body))
    except DataError:
        return
    then = read("then")
    for name in {*found, *then}:
        list(_profiles.compared(name, found.get(name), then.get(name), how))
        json.dumps(_profiles.described(found.get(name)))


def field(number: int, value: int | bytes | float) -> bytes:
    """One field as protobuf writes it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    return (bytes([value & 127 | 128]) + varint(value >> 7)) if value > 127 else bytes([value])


def delimited(message: bytes) -> bytes:
    return varint(len(message)) + message


def entry(key: bytes | int, value: bytes) -> bytes:
    return field(1, key) + field(2, value)


def written(components: dict[str, bytes], columns: int = 1, offsets: bytes = field(1, 0)) -> bytes:
    """A profile by hand: columns that all lie at the same place."""
    chunk = b"".join(field(1, entry(place, component)) for place, component in enumerate(components.values()))
    header = b"".join(field(2, entry(f"c{n}".encode(), offsets)) for n in range(columns))
    header += b"".join(field(5, entry(place, path.encode())) for place, path in enumerate(components))
    return b"WHY1" + delimited(b"") + delimited(header) + delimited(field(1, 2) + field(3, len(chunk))) + chunk


ROWS = {"counts/n": field(2, 9), "counts/null": field(2, 4), "types/string": field(2, 5)}


def sketch(kind: int, body: bytes) -> bytes:
    return field(kind, field(1, body))


def frequent(*counts: int, total: int, missed: int = 0, kept: int | None = None, names: bytes = b"") -> bytes:
    names = names or b"".join(struct.pack("<I", 1) + bytes([65 + place]) for place in range(len(counts)))
    head = struct.pack("<BBBBBBHIIQQ", 4, 1, 10, 3, 3, 0, 0, len(counts) if kept is None else kept, 0, total, missed)
    return head + struct.pack(f"<{len(counts)}Q", *counts) + names


def test_a_profile_written_by_hand_is_read_with_its_offsets_one_by_one_or_packed():
    counted = {**ROWS, "frequent_items/frequent_strings": sketch(4, frequent(3, 2, total=5))}
    for offsets in (field(1, 0), field(1, b"\0")):
        (column,) = _whylogs.profile(written(counted, offsets=offsets)).values()
        assert (column["rows"], column["nulls"], column["counts"]) == (9, 4, {"A": 3, "B": 2})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it begins with b'' and not with WHY1"),
        (b"PK\3\4 and so on", "not with WHY1"),
        (b"WHY1" + b"\xff" * 20, "a number of it has no end"),
        (b"WHY1\0" + varint(2**62), "it is cut short at byte"),
        (b"WHY1\0" + delimited(field(2, b"")[:1] + varint(2**40)), "a field of it is cut short"),
        (b"WHY1\0" + delimited(b"\x0b" * 50), "a field of it is cut short, or is none"),  # a group, which could nest
        (b"WHY1" + delimited(field(5, b"") * 2), "it holds 2 segments"),
        (b"WHY1\0" + delimited(field(5, b"") * 100_001), "holds more than 100,000 fields"),
        (written(ROWS, columns=9), "its columns lie over each other"),
        (written(ROWS, offsets=field(1, b"\0" * 500)), "its columns lie over each other"),
        (written(ROWS, offsets=field(1, 2**63)), "it is cut short"),
        (written({**ROWS, "counts/n": field(2, 3)}), "column 'c0': 4 nulls in 3 rows"),
        (written({**ROWS, "counts/n": field(2, 2**64 - 1)}), "counts/n is 18446744073709551615, which no table has"),
        (written({**ROWS, "counts/n": field(2, b"nine")}), "column 'c0': field 2 of it is written as something else"),
        (written({**ROWS, "frequent_items/frequent_strings": sketch(4, frequent(3, 2, total=6))}), "do not add up to the 6 values"),
        (written({**ROWS, "frequent_items/frequent_strings": sketch(4, frequent(3, total=3, kept=2**32 - 1))}), "is cut short"),
        (written({**ROWS, "frequent_items/frequent_strings": sketch(4, frequent(3, total=3, names=b"\xff" * 6))}), "is cut short"),
        (written({**ROWS, "frequent_items/frequent_strings": sketch(4, b"")}), "a sketch of 0 bytes is cut short"),
        (written({**ROWS, "distribution/kll": sketch(6, b"\1\1\7\1" + b"\0" * 9)}), "a distribution is no KLL sketch"),
    ],
)
def test_each_kind_of_damage_is_named(body, said):
    with pytest.raises(DataError, match=said):
        _whylogs.profile(body)


def a_kll(n=6, k=64, starts=(10, 12), items=(1.0, 2.0, 3.0, 4.0), least=64):
    head = struct.pack("<BBBBHBBQHBB", 5, 1, 15, 0, k, 8, 0, n, least, len(starts), 0)
    return head + struct.pack(f"<{len(starts)}I2d{len(items)}d", *starts, 1.0, 4.0, *items)


def test_a_kll_sketch_whose_levels_do_not_add_up_is_an_error():
    """Two of weight one and two of weight two are six values; laid out as newer versions of the library do, with five words before the data."""
    good = _sketches.kll(a_kll())
    assert (good["n"], list(good["items"]), good["levels"], good["error"]) == (6, [1, 2, 3, 4], [2, 2], pytest.approx(0.0402553, rel=1e-6))
    for wrong in (
        {"n": 7},
        {"k": 0, "least": 0},
        {"least": 128},
        {"starts": (12, 10)},
        {"starts": ()},
        {"starts": (0,) * 255},
        {"items": ()},
        {"items": (1.0, float("nan"), 3.0, 4.0)},
    ):
        with pytest.raises(DataError):
            _sketches.kll(a_kll(**wrong))
    with pytest.raises(DataError):
        _sketches.kll(a_kll()[:-3])


def test_a_small_file_costs_little_memory_whatever_it_claims():
    """A quarter of a MiB of each: fields of no length, offsets to the same column, columns at one place, and values of a sketch."""
    most = 2**18
    bombs = [
        b"WHY1\0" + delimited(field(7, b"") * (most // 2)),
        written(ROWS, offsets=field(1, b"\0" * most)),
        written({**ROWS, "x": field(10, b"x" * (most // 2))}, columns=20_000),
        written({**ROWS, "distribution/kll": sketch(6, a_kll(n=most // 8, starts=(0,), items=(1.0,) * (most // 8)))}),
    ]
    for bomb in bombs:
        tracemalloc.start()
        with suppress(DataError):
            _whylogs.profile(bomb)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * most


def test_a_profile_larger_than_any_is_refused_unread(tmp_path):
    with pytest.raises(DataError, match=r"profile-1.bin is larger than 67,108,864 bytes"):
        bound(tmp_path, b"WHY1" + b"\0" * 64 * 2**20).newest()
