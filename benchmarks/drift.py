"""A million rows of 60 columns against as many (drift.compare), beside a loop over scipy; and against a stored profile (drift.features).

`python -m benchmarks.drift FOLDER` keeps the tables in FOLDER and finds them there again.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks._running import load, scratch

ROWS, NUMBERS, TEXTS = 1_000_000, 50, 10
MOVED = {0: (0.5, 1.0), 1: (0.2, 1.0), 2: (0.0, 1.3), 3: (0.02, 1.0), 4: (0.1, 1.0)}  # number -> mean in sd, scale
SHIFTED = {0: 0.15, 1: 0.02}  # text -> share of rows moved from its commonest value to its rarest
CATEGORIES = (2, 5, 8, 12, 20, 40, 80, 150, 400, 1000)
LONG = (2_500_000, 5_000_000, 10_000_000)  # rows of the one-column tables
TIMES = 3
SIDES = ("reference", "live")
FIRST = 1_000  # rows in the first hour of the tables; the others are in the second


def main(folder):
    folder.mkdir(exist_ok=True)
    for name, rows in {"wide": ROWS, **{f"long{rows}": rows for rows in LONG}}.items():
        child("write", folder, name, rows)
    wide(folder)
    tall(folder)


def wide(folder):
    ours, all_values, theirs = (child(what, folder, "wide") for what in ("ours", "described", "scipy"))
    note = f"median of {TIMES}; imports before it {ours['imports']:.2f} s; {load()}"
    figure(f"CPU of comparing {ROWS:,} x {NUMBERS + TEXTS}", ours["cpu"], "s", note, at_most=4.5)
    figure("its peak memory", ours["peak"], "MB", f"{ours['before']:.0f} of it imports", at_most=250)
    figure("the loop over scipy / ours", theirs["cpu"] / ours["cpu"], "x", f"{theirs['cpu']:.1f} s, {theirs['peak']:.0f} MB")
    judged = child("stored", folder, "wide")
    figure(f"CPU of a window of {ROWS:,} x {NUMBERS + TEXTS} against a stored profile", judged["cpu"], "s", f"{judged['peak']:.0f} MB", at_most=2)
    figure("the same with every distance", all_values["cpu"], "s", f"describe: true; {all_values['peak']:.0f} MB")


def tall(folder):
    """One column, more and more rows: CPU per row from the shortest to the longest, and memory at the longest."""
    found = {rows: child("ours", folder, f"long{rows}") for rows in LONG}
    least, most = min(LONG), max(LONG)
    each = {rows: one["cpu"] / rows * 1e6 for rows, one in found.items()}
    note = ", ".join(f"{rows / 1e6:g}M {one['cpu']:.2f} s {one['peak']:.0f} MB" for rows, one in found.items())
    figure(f"CPU a row at {most:,} rows / at {least:,}", each[most] / each[least], "x", note, at_most=1.2)
    binned = {rows: child("stored", folder, f"long{rows}")["peak"] for rows in (least, most)}
    figure(
        f"peak memory of one window, {most:,} rows / {least:,}",
        binned[most] / binned[least],
        "x",
        "against a stored profile; four times the rows",
        at_most=1.5,
    )
    figure(f"peak memory of comparing one column of {most:,} rows", found[most]["peak"], "MB", "130 MB and 40 B a row", at_most=130 + 40 * most / 1e6)


def child(what, *args):
    """One part in a process of its own, so that its CPU and memory are nobody else's: the middle one of three by CPU, and the highest peak."""
    found = sorted((once(what, *args) for _ in range(TIMES if what == "ours" else 1)), key=lambda one: one.get("cpu", 0))
    return {**found[len(found) // 2], "peak": max(one.get("peak", 0) for one in found)}


def once(what, *args):
    done = subprocess.run([sys.executable, "-m", "benchmarks.drift", f"--{what}", *map(str, args)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# The tables


def write(folder, name, rows):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = int(rows)
    for side in SIDES:
        place = Path(folder) / f"{name}-{side}.parquet"
        if place.exists():
            continue
        rng = np.random.default_rng([7, side == "live", rows])
        wide = name == "wide"
        columns = {f"n{j:02d}": number(rng, j, rows, side == "live" and wide) for j in range(NUMBERS if wide else 1)}
        columns |= {f"c{j:02d}": text(rng, j, rows, side == "live") for j in range(TEXTS if wide else 0)}
        columns["at"] = np.where(np.arange(rows) < FIRST, 0, 3600) + np.arange(rows) % 3600
        table = pa.table(columns)
        pq.write_table(table, place.with_suffix(".part"))
        place.with_suffix(".part").rename(place)
    return {}


def number(rng, j, rows, moved):
    """Normal, lognormal, exponential, Student's t or uniform, each of mean 0 and sd 1; in every seventh 2 % are missing."""
    import numpy as np

    draw = (
        lambda: rng.standard_normal(rows),
        lambda: (rng.lognormal(0, 0.6, rows) - np.exp(0.18)) / 0.787,
        lambda: rng.exponential(1.0, rows) - 1.0,
        lambda: rng.standard_t(4, rows) / np.sqrt(2.0),
        lambda: (rng.random(rows) - 0.5) * np.sqrt(12),
    )
    shift, scale = MOVED.get(j, (0.0, 1.0)) if moved else (0.0, 1.0)
    values = draw[j % 5]() * scale + shift
    if j % 7 == 6:
        values[rng.random(rows) < 0.02] = np.nan
    return values


def text(rng, j, rows, moved):
    import numpy as np
    import pyarrow as pa

    shares = 1.0 / np.arange(1, CATEGORIES[j] + 1) ** 0.8
    shares /= shares.sum()
    if moved and j in SHIFTED:
        shares[0] -= SHIFTED[j]
        shares[-1] += SHIFTED[j]
    codes = pa.array(rng.choice(CATEGORIES[j], rows, p=shares).astype(np.int32))
    return pa.DictionaryArray.from_arrays(codes, [f"v{i}" for i in range(CATEGORIES[j])]).cast(pa.string())


# The two ways


def ours(folder, name, **parameters):
    from agent.perform import perform
    from agent.workers import AHEAD

    for module in AHEAD:
        __import__(module)
    imports, before = spent(), peak()
    verdict = perform({"check": "drift.compare", "locators": {role: locator(folder, name, role) for role in SIDES}, "parameters": parameters})
    print(verdict.reason, file=sys.stderr)
    return {"cpu": spent() - imports, "imports": imports, "before": before, "peak": peak()}


def described(folder, name):
    return ours(folder, name, describe=True)


def stored(folder, name):
    """The second window of a watch: the first, in a process of its own, has read the reference and leaves its memory in a file."""
    from agent.perform import perform
    from agent.workers import AHEAD

    kept = Path(folder) / f"{name}-memory.json"
    window = [f"1970-01-01T0{hour}:00:00+00:00" for hour in ((1, 2) if kept.exists() else (0, 1))]
    for module in AHEAD:
        __import__(module)
    job = {"check": "drift.features", "locators": {role: locator(folder, name, role) for role in SIDES}, "window": window, "run_length": 2160.0}
    if not kept.exists():
        kept.write_text(json.dumps(perform(job).memory))
        return once("stored", folder, name)
    imports, before = spent(), peak()
    verdict = perform({**job, "memory": json.loads(kept.read_text())})
    print(verdict.reason, file=sys.stderr)
    return {"cpu": spent() - imports, "imports": imports, "before": before, "peak": peak()}


def locator(folder, name, role):
    options = {"time": {"column": "at", "unit": "s"}}
    return {"service": "benchmark", "role": role, "url": f"parquet:{name}-{role}.parquet", "folder": folder, "options": options}


def scipy(folder, name):
    """Read both tables, and call scipy a column at a time."""
    import numpy as np
    import pyarrow.parquet as pq
    from scipy import stats

    imports = spent()
    one, other = (pq.read_table(Path(folder) / f"{name}-{side}.parquet") for side in SIDES)
    ps = []
    for column in (name for name in one.column_names if name != "at"):
        now, then = one[column].to_numpy(), other[column].to_numpy()
        if now.dtype == float:
            ps.append(stats.ks_2samp(now[~np.isnan(now)], then[~np.isnan(then)], method="asymp").pvalue)
        else:
            keys = sorted({*now, *then})
            counts = [dict(zip(*np.unique(side.astype(str), return_counts=True), strict=True)) for side in (now, then)]
            ps.append(stats.chi2_contingency([[count.get(key, 0) for key in keys] for count in counts]).pvalue)
    print(f"{sum(p <= 0.05 for p in stats.false_discovery_control(ps))} of {len(ps)} significant", file=sys.stderr)
    return {"cpu": spent() - imports, "imports": imports, "peak": peak()}


def figure(name, value, unit, note, **limits):
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **limits}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("--"):
        print(json.dumps({"write": write, "ours": ours, "described": described, "scipy": scipy, "stored": stored}[sys.argv[1][2:]](*sys.argv[2:])))
    elif sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with scratch() as made:
            main(Path(made))
