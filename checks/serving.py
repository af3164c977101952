"""Whether the server answers, as fast and as right as when its model was registered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from agent import (
    Columns,
    Json,
    Reading,
    Registry,
    Router,
    Server,
    Verdict,
    Window,
    check,
    error,
    fail,
    golden_rows,
    nodata,
    ok,
    refused,
    served,
    spell,
    stats,
    warn,
)
from agent.errors import AnswerError, ServerError
from checks import _onnx, _profiled, _timed
from checks._answers import Gap, differences, gaps, listed, parts, size, well_formed
from checks._engines import Setting
from checks._recent import RECORD, answered, recent

UNTOLD = (
    "nobody says which version is served: the server's metadata, repository index and answers name none or several, and no router does; "
    "have the server put model_version in its answers, bind `router:`, or set `with: {version: ...}`"
)
SHAPE = "{'inputs': [{'name': ..., 'datatype': 'FP32', 'shape': [-1, 64]}, ...], 'outputs': [...]}"


@check(pillar="monitoring", asks="Does the server say it is ready to answer?", cause="errors", exact=True, answers=("DEPL-01",))
def ready(server: Server) -> Verdict:
    """Fails when the server itself says that the model is not ready. A server that cannot be reached is a TargetError, not a verdict."""
    if server.ready():
        return ok("the model says it is ready", Reading(1, 1))
    return fail("the server answers, and says that the model is not ready", Reading(0, 1))


@check(pillar="deployment", asks="Does the served model take and give what was registered?", cause="answers", exact=True)
def signature(server: Server, registry: Registry | None = None, router: Router | None = None) -> Verdict:
    """Compares the server's stated inputs and outputs with `signature` in the lineage manifest of the served version."""
    stated = server.signature()
    if stated is None:
        return nodata("the server states no inputs or outputs, so there is nothing to compare; serving.parity does not need them")
    if registry is None:
        return nodata("no registry is bound, so there is nothing to compare with; add `registry:` to the service's targets")
    version = served(server, registry, router)
    if version is None:
        return nodata(UNTOLD)
    registered = registry.version(version)
    recorded = registered.lineage.get("signature") if registered else None
    if not recorded:
        return nodata(f"the registry holds no signature of version {version}; pass lineage={{'signature': {SHAPE}}} to record()")
    if not well_formed(recorded):
        return error(f"the signature registered with version {version} cannot be read; it must be {SHAPE}")
    wrong = differences(recorded, stated)
    reading = Reading(len(wrong), 0, n=len(stated.inputs) + len(stated.outputs), unit="tensors")
    if wrong:
        return fail(f"version {version} is served with another signature than was registered: {'; '.join(wrong)}", reading)
    return ok(f"the signature served is the one registered with version {version}", reading)


@check(pillar="monitoring", asks="Does the server answer our own probes in time?", cause="latency")
def latency(
    server: Server,
    registry: Registry | None = None,
    *,
    limit: timedelta = timedelta(milliseconds=500),
    probes: int = 20,
    quantile: float = 0.5,
    request: dict[str, Any] | None = None,
) -> Verdict:
    """Times `probes` golden requests (or `request`), one after another; says nothing about the users' own requests.

    Fails only when the whole 95 % interval of the quantile lies above the limit; warns when the quantile does and the interval does not.
    One request first opens the connection, and is not counted.
    """
    if probes < 1 or not 0 < quantile < 1:
        return error(f"{probes} probes cannot tell quantile {quantile}; set `probes` to 1 or more, and `quantile` between 0 and 1")
    asked = [request] if request is not None else [row.request for row in golden_rows(server, registry)]
    if not asked:
        return nodata(f"no request to time: set `with: {{request: ...}}`, or {RECORD}")
    server.infer(asked[0])
    seconds = sorted(server.infer(asked[place % len(asked)]).seconds for place in range(probes))
    observed, (low, high) = stats.quantile(seconds, quantile), stats.quantile_interval(seconds, quantile)
    bounded = low > 0 and high < math.inf
    reading = Reading(observed, limit.total_seconds(), (low, high) if bounded else None, probes, "s")
    sure = f"95 % interval {_spelt(low)} to {_spelt(high)}" if bounded else "too few for a 95 % interval"
    said = f"the {quantile:.4g} quantile of {probes} of our own probes is {_spelt(observed)} ({sure})"
    if low > limit.total_seconds():
        return fail(f"{said}, above the limit of {spell(limit)}", reading)
    if observed > limit.total_seconds():
        return warn(f"{said}, not surely above the limit of {spell(limit)}; more probes would tell", reading)
    return ok(f"{said}, within {spell(limit)}", reading)


def _spelt(seconds: float) -> str:
    return spell(timedelta(seconds=seconds))


@check(
    pillar="deployment",
    asks="Does the server still answer golden requests as the training code did?",
    cause="answers",
    exact=True,
    answers=("MODEL-01",),
)
def parity(
    server: Server,
    registry: Registry,
    router: Router | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    rows: int | None = None,
    version: str | None = None,
) -> Verdict:
    """Asks the golden rows of the served version again (of `version`, where it is given, addressed by name if the server can).

    An output differs when it is beyond atol + rtol * |expected|; both are the recorded ones unless given. A golden request that is
    refused with 4xx, or answered with what is no JSON, is a wrong answer. Rows that another version answered, because traffic is split
    or was moved while we asked, are not judged.
    """
    asked = server.at(version) if version is not None and "at" in server.can else server
    judged = version or served(server, registry, router)
    if judged is None:
        return nodata(UNTOLD)
    try:
        golden = registry.golden(judged)
    except AnswerError as problem:
        return error(f"the golden rows of version {judged} cannot be trusted: {problem}")
    if golden is None or not golden.rows:
        lacks = "has no golden rows" if registry.version(judged) else "is served and was never registered, so it has no golden rows"
        return nodata(f"version {judged} {lacks}; {RECORD}")
    rtol, atol = golden.rtol if rtol is None else rtol, golden.atol if atol is None else atol
    found = [_ask(asked, row.request, judged, partial(gaps, row.expected, rtol=rtol, atol=atol)) for row in golden.rows[: rows or None]]
    return _told(judged, found, "golden rows", "recorded")


@check(pillar="deployment", asks="Could a good version have the traffic back this second?", cause="", exact=True, severity="ticket")
def way_back(
    server: Server,
    registry: Registry,
    good: Sequence[str],
    *,
    rtol: float | None = None,
    atol: float | None = None,
    rows: int | None = None,
) -> Verdict:
    """Asks the version that a rollback would go to, whether it is loaded and ready, and for its golden rows, as `serving.parity` does.

    Warns when no version but the one served is known to be good: there is no way back then. A server that cannot be asked about one loaded version
    is a CannotError.
    """
    if not good:
        return warn("no version but the one served is known to be good, so a rollback would be refused", Reading(0, 1, unit="versions"))
    back = good[0]
    if not server.at(back).ready():
        return fail(f"version {back}, the way back, is not ready: load it beside the one served, or a rollback has nowhere to go", Reading(0, 1))
    seen = parity(server, registry, rtol=rtol, atol=atol, rows=rows, version=back)
    return replace(seen, reason=f"the way back: {seen.reason}")


def _ask(server: Server, request: Json, version: str, differ: Callable[[Json], Iterable[Gap]]) -> list[Gap] | str:
    """The gaps of one row; the version that answered, when it is another one."""
    try:
        answer = server.infer(request)
    except ServerError:
        raise
    except AnswerError as problem:
        if not refused(problem) and not _unreadable(problem):
            raise
        return [Gap("answer", f"cannot be compared ({problem})")]
    if answer.version is not None and answer.version != version:
        return answer.version
    return list(differ(answer.body))


def _unreadable(problem: AnswerError) -> bool:
    """The server thinks that it answered (2xx), and what came is NaN, cut off or no JSON: certainly not what was recorded."""
    return problem.status is not None and 200 <= problem.status < 300


def _told(version: str, found: list[list[Gap] | str], rows_are: str, told: str) -> Verdict:
    others = sorted({one for one in found if isinstance(one, str)})
    rows = {place: one for place, one in enumerate(found) if not isinstance(one, str)}
    wrong = {place: one for place, one in rows.items() if one}
    if not rows:
        return nodata(f"version {version} was asked {len(found)} {rows_are} and {' and '.join(others)} answered: the traffic is split or just moved")
    reading = Reading(len(wrong) / len(rows), 0, n=len(rows))
    aside = f" ({len(found) - len(rows)} more were answered by {', '.join(others)})" if others else ""
    if not wrong:
        return ok(f"version {version} answers all {len(rows)} {rows_are} as {told}{aside}", reading)
    place, worst = max(((place, gap) for place, one in wrong.items() for gap in one), key=lambda pair: size(pair[1]))
    by = "" if worst.difference is None or not worst.tolerance else f" (off by {worst.difference:.4g}, allowed {worst.tolerance:.4g})"
    return fail(
        f"version {version} answers {len(wrong)} of {len(rows)} {rows_are} otherwise than {told}{aside}; worst in row {place}: "
        f"'{worst.output}' {worst.what}{by}",
        reading,
        parts=parts(wrong),
        data={"differences.json": listed(wrong)},
    )


@check(pillar="deployment", asks="Does the server answer recent inputs as the registered artefact does?", cause="answers")
def replay(
    server: Server,
    registry: Registry,
    live: Columns,
    router: Router | None = None,
    *,
    file: str = "model.onnx",
    rows: int = 20,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    request: dict[str, Any] | None = None,
) -> Verdict:
    """Runs the registered ONNX `file` of the served version on the newest `rows` logged inputs, and asks the server the same.

    It replays the graph and nothing else: where the server prepares inputs outside the graph, the two differ and nothing is wrong. So it
    is for servers whose graph takes the raw inputs; golden rows (serving.parity) need no such assumption. Outputs that both name are
    compared, beyond atol + rtol * |what the graph gives|. Inputs that the graph does not take, or gives no numbers for, are not judged.
    """
    judged = served(server, registry, router)
    if judged is None:
        return nodata(UNTOLD)
    registered = registry.version(judged)
    if registered is None or file not in registered.files or not hasattr(registry, "file"):
        return nodata(f"the registry has no file '{file}' of version {judged}; pass it to record(), name another with `file`, or use serving.parity")
    asked = recent(server, live, registry, rows, request)
    if isinstance(asked, Verdict):
        return asked
    try:
        graph = _onnx.load(registry.file(judged, file))
    except ImportError:
        return nodata(f"onnxruntime is not installed, so '{file}' cannot be run; install watchkeeper[onnx], or use serving.parity")
    except (AnswerError, _onnx.DamagedError) as problem:
        return error(f"'{file}' of version {judged} cannot be run: {problem}")
    try:
        pairs = [(one, given) for one in asked if (given := _onnx.answer(graph, one)) is not None]
        found = [_ask(server, one, judged, partial(_onnx.differ, given, rtol=rtol, atol=atol)) for one, given in pairs]
    except _onnx.UnlikeError as problem:
        return nodata(f"nothing to compare '{file}' of version {judged} by: {problem}")
    if not pairs:
        return nodata(f"'{file}' of version {judged} takes none of the {len(asked)} newest live inputs, so it may not be a graph of raw inputs")
    aside = f" ({len(asked) - len(pairs)} more the graph does not take)" if len(pairs) < len(asked) else ""
    return _told(judged, found, f"live inputs{aside}", f"its {file} does")


@check(
    pillar="monitoring", asks="Does the server take the inputs it gets, and answer with numbers?", cause="answers", exact=True, answers=("MON-04",)
)
def answers(
    server: Server,
    live: Columns,
    registry: Registry | None = None,
    window: Window | None = None,
    *,
    limit: float = 0.05,
    rows: int = 20,
    request: dict[str, Any] | None = None,
) -> Verdict:
    """Replays the newest `rows` logged inputs of the window through the server, as probes; fails when more than `limit` of them go wrong.

    Wrong is an answer that is refused (4xx, 5xx), unreadable, or holds something that is no finite number. The inputs are put, as
    logged, into `request` where it says "{inputs}", else in place of the data of a golden request. Asked of the last known good, the
    same question tells a bad version (it does better) from bad inputs (it does not).
    """
    asked = recent(server, live if window is None else live.between(window.start, window.end), registry, rows, request)
    if isinstance(asked, Verdict):
        return asked
    faults = [said for one in asked if isinstance(said := answered(server, one), str)]
    reading = Reading(len(faults) / len(asked), limit, n=len(asked))
    said = f"{len(faults)} of the {len(asked)} newest live inputs, asked again, are answered wrongly"
    if reading.observed is not None and reading.observed > limit:
        return fail(f"{said}, more than {limit:.3g} of them; first: {faults[0]}", reading)
    return ok(
        f"{said}, within {limit:.3g}" if faults else f"the {len(asked)} newest live inputs, asked again, are all answered with numbers", reading
    )


@check(pillar="deployment", asks="Where does an inference's time go, and would another setting surely be faster?", cause="", severity="ticket")
def profile(
    scratch: Path,
    tell: Callable[[float, str], None],
    registry: Registry | None = None,
    server: Server | None = None,
    router: Router | None = None,
    live: Columns | None = None,
    *,
    path: str | None = None,
    factory: str | None = None,
    file: str = "model.onnx",
    version: str | None = None,
    features: Sequence[str] = (),
    batches: Sequence[int] = (1, 8, 32),
    threads: int = 1,
    rows: int = 256,
    seconds: timedelta = timedelta(seconds=10),
    worth: float = 0.2,
    memory: int = 4 * 2**30,
) -> Verdict:
    """Runs the registered `file` of the served version (or the file at `path`) here, in `threads`, and says where the time goes.

    Operators by their share, a curve over `batches`, memory, and other settings of the runtime timed in the same rounds for about `seconds`: warns
    where one would surely save `worth` of the time at a batch size and surely cost nothing at the others; by accident that happens in one look of
    twenty at most. Rows are the newest of `live`, else made up. Weights need `factory` (module:function). The server's own machine may differ.
    """
    if threads < 1 or rows < 1 or not batches or min(batches) < 1 or not 0 <= worth <= 1:
        return error("`threads`, `rows` and each of `batches` are whole numbers from 1 on, and `worth` a share, 0 to 1; there is one batch at least")
    found = _file(path, registry, server, router, file, version)
    if isinstance(found, Verdict):
        return found
    engine = _profiled.engine(found, factory, memory)
    fed, whence = _profiled.rows(engine, live, features, rows)
    told = _timed.measure(engine, Setting(threads), fed, batches, seconds.total_seconds(), memory, scratch, tell)
    return _profiled.verdict(told, engine, found, whence, threads, worth)


def _file(
    path: str | None, registry: Registry | None, server: Server | None, router: Router | None, file: str, version: str | None
) -> Path | Verdict:
    """Where the model lies, or why that is not known."""
    if path is not None:
        return Path(path)
    if registry is None or not hasattr(registry, "file"):
        return nodata("no registry that keeps files is bound, and no `path` names one")
    judged = version or (served(server, registry, router) if server is not None else None)
    if judged is None:
        return nodata(UNTOLD)
    registered = registry.version(judged)
    if registered is None or file not in registered.files:
        return nodata(f"the registry has no file '{file}' of version {judged}; pass it to record(), or name another with `file`")
    return Path(registry.file(judged, file))
