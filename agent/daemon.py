"""The long-running agent: schedule, looks, responses, letters and the web surface, from start to a clean end."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent import audit, metrics, notify, objectives, permit, verbs, web
from agent import config as configuration
from agent.audit import attested, daily
from agent.changes import see_changes
from agent.config import Config
from agent.errors import CancelledError, ConfigError, LeadLostError, StoreError
from agent.judge import escalate, let_go
from agent.lead import leading
from agent.model import Finding, Locator, error
from agent.observe import fold, found, observe
from agent.respond import Responder
from agent.scheduler import Job, Scheduler
from agent.store import Ledger, Store
from agent.workers import Pool
from agent.world import Watched, World

log = logging.getLogger("watchkeeper")
GRACE = timedelta(seconds=30)
LOADS = "load tests"  # the cap key that they share
TRACK = "~"  # keys that start with it follow what a service serves, rather than look with a check
FIRST = timedelta(minutes=1)  # a watch slower than this has its first look at the start
LOST = timedelta(minutes=2)  # a look that has not come back by then is given up
STALE = 10.0  # seconds without a commit, with work waiting, after which the store is not ready
LATE = 5.0  # seconds of lag after which the loop is not ready


def run(path: Path, *, standby: timedelta | None = None, say: Callable[[str], None] = log.info) -> int:
    """Run the agent on a configuration until SIGTERM or SIGINT; the exit code. ConfigError and StoreError before anything is started.

    With `standby` it waits where another process leads the store, as `leading` says, and again when it has lost the lead itself; without, that is a
    LeadLostError.
    """
    gc.disable()  # until all is read that will stay: see _settled
    config = configuration.load(path)
    _many_connections()
    asked = threading.Event()  # to end, before there is a daemon that could
    while True:
        if standby is not None:
            _listen_for(asked)
        try:
            lost = _lead(path, config, standby, say, asked.is_set)
        except CancelledError as problem:
            say(str(problem))
            return 0
        if not lost:
            return 0
        if standby is None:
            raise LeadLostError(f"{lost}; with 'watchkeeper run --standby' it would wait for the lead now")


def _lead(path: Path, config: Config, standby: timedelta | None, say: Callable[[str], None], asked: Callable[[], bool]) -> str:
    """Lead until that is over; how the lead was lost, if it was."""
    with leading(Path(config.store), standby, say, asked) as store:
        config = _as_it_stands(path, config) if store.took else config
        with Daemon(config, store, path) as daemon:
            say(f"watching {len(daemon.world.watched)} watches of {len(config.services)} services; {daemon.url}")
            if store.aside:
                say(f"the store was damaged: it now lies at {store.aside}, and {config.store} was begun afresh")
            if store.took:
                say(store.took)
            daemon.serve(asked)
            say(store.lost or "stopping: no new looks; those under way may finish")
        return store.lost


def _listen_for(asked: threading.Event) -> None:
    """SIGTERM and SIGINT from now on; the configuration is read again anyway by who takes over."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    signal.signal(signal.SIGHUP, lambda *_: None)


def _as_it_stands(path: Path, config: Config) -> Config:
    """The configuration read again after a wait that may have taken weeks; a bad one is refused, and the one that was read before it stays."""
    try:
        found = configuration.load(path)
    except ConfigError as problem:
        log.error("the configuration is refused, and the one read at the start used: %s (%d problems)", problem.problems[0], len(problem.problems))
        return config
    if found.store != config.store:
        log.error("store: is read at start only; the configuration read then is used")
        return config
    return found


def _many_connections() -> None:
    """As many open connections as this machine allows a process: one is kept for each target, and the usual limit is a thousand."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # then fewer are kept, and looks cost more
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _settled() -> None:
    """Spare the garbage collector what stays: walking over ten thousand services, again and again, it would hold up every look for a second."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # what looks leave behind is freed without it; a connection is made of a hundred objects that stay
    gc.enable()


class Daemon:
    """Everything that runs, held together; `with` starts and ends it."""

    def __init__(self, config: Config, store: Store, path: Path) -> None:
        self.path, self.store = path, store
        self.started_at = datetime.now(UTC)
        self._wake, self._over, self._reload = threading.Event(), threading.Event(), threading.Event()
        self.world = World(config, store, Pool(config.workers), wake=self._wake.set, again=self._again, stopping=self._over.is_set)
        self.scheduler = Scheduler(self._fire, self._no_room, clock_jumped=self._clock_jumped, lost=self._lost)
        self.responder = Responder(self.world)
        self.postman = notify.Postman(store, _channels(config), self.world.clock)
        self.heart = _heart(config, lambda: not self.unready(), self.world.clock)
        self.metrics = metrics.exporter(
            metrics.Watching(
                store,
                self.world.clock,
                self.scheduler,
                letter_failures=lambda: self.postman.failures,
                heartbeat_failures=lambda: self.heart.failures if self.heart else 0,
                halted=lambda: bool(permit.halted(self.world)),
                budgets=lambda ledger: objectives.everywhere(ledger, self.world.config, self.world.clock()),
                audits=audit.reader(),
            )
        )
        self.token = secrets.token_urlsafe(24)
        self.url = ""
        self._web: Any = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Daemon:
        self._take_up()
        self.responder.recover()
        host, _, port = self.world.config.listen.rpartition(":")
        tokens = [self.token, *([self.world.config.token.get_secret_value()] if self.world.config.token else [])]
        self._web = self._listen(web.app(self.world, verbs, tokens, self.unready, self.metrics), host.strip("[]"), int(port))
        self.url = self._web.url
        _publish(self.store.path, self.url, self.token)
        self._schedule()
        self.scheduler.also("retention", timedelta(hours=1), self._retain)
        self.scheduler.also("audit", timedelta(minutes=1), self._audit)
        self.scheduler.also("escalation", timedelta(seconds=1), self._escalate)
        if self.heart is not None and self.world.config.heartbeat is not None:
            self.scheduler.also("heartbeat", self.world.config.heartbeat.every, self.heart.beat)
        self.scheduler.start()
        self._threads = [threading.Thread(target=loop, name=loop.__name__, daemon=True) for loop in (self._respond, self._tell)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._wake.set()
        self.scheduler.stop(GRACE)
        self.responder.stop()
        for thread in self._threads:
            thread.join(GRACE.total_seconds())
        self.postman.close()
        self.world.close()
        with contextlib.suppress(StoreError):
            self.store.write(lambda ledger: ledger.record(self.world.clock(), "agent.stop", "the agent stopped"), within=5.0)
        self._web.stop()
        _unpublish(self.store.path, self.token)

    def _listen(self, app: Any, host: str, port: int) -> Any:
        """At the port that is configured; at a free one where a process that was paused, and led before, may still have it."""
        try:
            return web.serve(app, host, port)
        except ConfigError as problem:
            if not self.store.took:
                raise
            log.error("%s; until the next start another port is listened on, which commands find by themselves", problem)
            return web.serve(app, host, 0)

    def serve(self, asked: Callable[[], bool] = lambda: False) -> None:
        """Wait for SIGTERM or SIGINT, which `asked` says came before, or until the lead is lost; SIGHUP reads the configuration again."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._over.set())
            signal.signal(signal.SIGHUP, lambda *_: self._reload.set())
        while not (asked() or self.store.lost or self._over.wait(0.2)):
            if self._reload.is_set():
                self._reload.clear()
                with _logged("reload"):
                    self.reload()

    def stop(self) -> None:
        """End `serve`."""
        self._over.set()

    # Configuration

    def reload(self) -> None:
        """Use the configuration as it stands now; a bad one is refused, told, and the old one stays."""
        try:
            config = configuration.load(self.path)
        except ConfigError as problem:
            said = f"the new configuration is refused and the old one stays: {problem.problems[0]} ({len(problem.problems)} problems)"
            log.error("%s", said)
            self.store.write(lambda ledger: self._told(ledger, "config.refused", said))
            return
        if config.store != self.world.config.store or config.listen != self.world.config.listen:
            log.warning("store: and listen: are read at start only; the rest of the new configuration is used")
        self.world.use(config)
        self.postman.use(_channels(config))
        self._take_up()
        self._schedule()

    def _schedule(self) -> None:
        """Plan every watch; those of an hour and more that were never looked at are looked at now, not in an hour."""
        if any(w.heavy and w.load is None for w in self.world.watched.values()):
            self.world.pool.warm()
        jobs = _jobs(self.world)
        _settled()  # takes seconds for ten thousand watches, so it comes before the first slot and not after
        self.scheduler.plan(jobs)
        for w in self.world.watched.values():
            if w.watch.every > FIRST and self.store.signal(w.key) is None:
                self._again(w.key)

    def _told(self, ledger: Ledger, kind: str, said: str) -> None:
        now = self.world.clock()
        number = ledger.record(now, kind, said)
        body = {"what": kind, "severity": "ticket", "state": "open", "title": said, "text": said, "at": now}
        for channel in self.world.channels:
            ledger.post(f"event-{number}", channel, f"[ticket] {said}", body, now)

    def _take_up(self) -> None:
        """Note what is new since the last start: the configuration, watches that are gone, a store that was set aside, what was served."""
        now, config = self.world.clock(), self.world.config

        def note(ledger: Ledger) -> None:
            before = ledger.setting("config") or {}
            if before.get("digest") != config.digest:
                if before:
                    ledger.record(now, "change.config", "the configuration of Watchkeeper changed", body={"digest": config.digest})
                ledger.set("config", {"digest": config.digest}, now, "watchkeeper")
            attested.take_up(ledger, config, now)
            let_go(self.world, ledger, now)
            if self.store.aside:
                said = f"the store failed its integrity check; it was set aside as {self.store.aside} and a new one begun: restore a backup"
                self._told(ledger, "store.corrupt", said)
            if self.store.took:
                self._told(ledger, "lead.taken", self.store.took)
            number = self.store.lead.number if self.store.lead else None
            ledger.record(now, "agent.start", f"watching {len(self.world.watched)} watches", body={"pid": os.getpid(), "lead": number})
            for name in config.services:
                served = ledger.served_now(name)
                if served is not None:
                    self.world.served[name] = served.version

        self.store.write(note)

    # Looking

    def _fire(self, key: str, due_at: datetime) -> None:
        with contextlib.suppress(LeadLostError):  # `serve` sees it too, and ends
            if key.startswith(TRACK):
                if key[1:] in self.world.config.services:
                    see_changes(self.world, self.world.service(key[1:]))
            elif key in self.world.watched:
                observe(self.world, key, due_at).add_done_callback(_complain)

    def _again(self, key: str) -> None:
        if key in self.world.watched and self.world.watched[key].load is not None:
            return  # load is made on schedule, or when a person asks for it
        with contextlib.suppress(KeyError):
            self.scheduler.now(key)

    def _no_room(self, key: str, due_at: datetime) -> None:
        self._unseen(key, due_at, "no room: the lane of this watch is full, so it was not looked at; give the daemon fewer or faster checks")

    def _unseen(self, key: str, due_at: datetime, why: str) -> None:
        if key.startswith(TRACK) or key not in self.world.watched:
            return
        w, now, verdict = self.world.watched[key], self.world.clock(), error(why)
        finding = found(w, w.window(due_at), now, verdict, None, 0.0)
        self.store.submit(lambda ledger: fold(self.world, ledger, w, finding, verdict)).add_done_callback(_complain)

    def _lost(self, key: str, due_at: datetime) -> None:
        self._unseen(key, due_at, "the look has not come back for long past its time: its lane was given another thread")

    def _clock_jumped(self, seconds: float) -> None:
        said = f"the wall clock moved by {seconds:+.1f} s against the monotonic one; every watch was planned anew"
        log.warning("%s", said)
        self.store.submit(lambda ledger: ledger.record(self.world.clock(), "clock_jump", said, body={"seconds": seconds}))
        if seconds < 0:
            self.store.submit(lambda ledger: ledger.hurry(self.world.clock()))

    # Loops

    def _respond(self) -> None:
        while not self._over.is_set():
            self._wake.wait(0.2 if self.responder.busy else 1.0)  # what wants a run wakes this loop; asking the store costs CPU
            self._wake.clear()
            with _logged("respond"):
                self.responder.tick(self.world.clock())

    def _tell(self) -> None:
        while not self._over.wait(0.5):
            with _logged("notify"):
                self.postman.tick(self.world.clock())

    def _escalate(self) -> None:
        with _logged("escalate"):
            self.store.write(lambda ledger: escalate(self.world, ledger, self.world.clock()))

    def _audit(self) -> None:
        with _logged("audit"):
            daily.tick(self.world, self.world.clock())

    def _retain(self) -> None:
        now, keep = self.world.clock(), self.world.config.retention
        with _logged("retention"):
            self.store.write(lambda ledger: ledger.prune(now - keep.findings, now - keep.rollups, now - 10 * keep.findings, now))

    # Telling how it is

    def unready(self) -> list[str]:
        """Why this agent should not be relied on at the moment; empty when it should."""
        reasons = [self.store.lost] if self.store.lost else []
        if self.scheduler.lag() > LATE:
            reasons.append(f"the loop is {self.scheduler.lag():.1f} s late")
        if self.store.afloat:
            reasons.append(f"the store is kept in memory: {self.store.afloat}")
        elif self.store.backlog and time.monotonic() - self.store.written_at > STALE:
            reasons.append(f"the store was last written {time.monotonic() - self.store.written_at:.0f} s ago and work waits")
        return reasons


def _jobs(world: World) -> dict[str, Job]:
    jobs = {w.key: _job(w) for w in world.watched.values()}
    for name, service in world.config.services.items():
        if "router" in service.targets or "registry" in service.targets:
            every = min((w.watch.every for w in world.of_service(name)), default=timedelta(seconds=10))
            jobs[f"{TRACK}{name}"] = Job(max(timedelta(seconds=1), every))
    return jobs


def _job(w: Watched) -> Job:
    """Load tests wait for each other, whatever they ask, and hold no thread meanwhile."""
    key, cap = (LOADS, 1) if w.load is not None else (_cap(w), None)
    return Job(w.watch.every, key, w.watch.splay, w.heavy, max(LOST, 3 * w.watch.within), cap)


def _cap(w: Watched) -> str:
    return next((at.url.split("?")[0] for at in w.locators.values()), "")


def _heart(config: Config, healthy: Callable[[], bool], clock: Callable[[], datetime]) -> notify.Heartbeat | None:
    return notify.Heartbeat(Locator("", "heartbeat", config.heartbeat.url), healthy, clock) if config.heartbeat else None


def _channels(config: Config) -> dict[str, Any]:
    return {name: channel.at for name, channel in config.notify.channels.items()}


def _complain(future: Future[Finding | None]) -> None:
    problem = future.exception()
    if problem is not None:
        log.error("a look was not kept: %s: %s", type(problem).__name__, problem)


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except LeadLostError as problem:  # `serve` sees it too, and ends
        log.warning("%s: %s", what, problem)
    except Exception:
        log.exception("%s", what)


# How other processes on this machine find the daemon


def _file(store: Path) -> Path:
    return Path(f"{store}.daemon")


def _publish(store: Path, url: str, token: str) -> None:
    file = _file(store)
    file.unlink(missing_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump({"url": url, "token": token, "pid": os.getpid()}, out)


def _unpublish(store: Path, token: str) -> None:
    """Take back what was published, unless another daemon has published itself since."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(_file(store).read_text())["token"] == token:
            _file(store).unlink()
