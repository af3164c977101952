"""Who leads a store. Its lock goes with its holder; a number in the store stops a holder that was only paused, and wakes up when another leads.

Who leads counts a beat in the store every second, in the thread that writes it. Who stands by looks as often, and takes the lead once it has seen no
beat in so many looks in a row. No clock is read for this, so none can be wrong: a machine that slept, or a clock that was set, is one look.
The number that only grows, and is asked for with what it protects, is the sequencer of Burrows, The Chubby lock service (OSDI 2006).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.errors import CancelledError, LeadLostError, StoreBusyError, StoreError, StoreFullError
from agent.lock import Spare, locked, signed, this_process
from agent.model import Lead, spell
from agent.store import BEAT, Ledger, Store

log = logging.getLogger(__name__)
Say = Callable[[str], None]
PATIENCE = timedelta(seconds=10)  # without a beat, after which the lead may be taken
LEAST = timedelta(seconds=3 * BEAT)  # of patience: one beat may come late
PAUSE = 0.2  # seconds between two tries to have the lock


@contextmanager
def leading(path: Path, patience: timedelta | None = None, say: Say = log.info, over: Callable[[], bool] = lambda: False) -> Iterator[Store]:
    """The store, held and written by this process and no other; a damaged one is set aside first.

    With `patience` it stands by while another leads: until that process ends, or has let that much time pass without a beat; `took` of the store
    says so then. CancelledError when `over` says meanwhile that it is not wanted any more. Without, StoreBusyError when another leads.
    """
    with ExitStack() as held:
        try:
            name = held.enter_context(locked(path))
        except StoreBusyError:
            if patience is None:
                raise
            yield _stood_by(path, patience, say, over, held)
        else:
            yield _begun(path, name, held)


def taken(store: Store, name: str) -> Lead | None:
    """The lead, for who holds the lock of the store under that name.

    None when the disk cannot be written: then it has the lock alone, and nobody takes that from it as long as it lives.
    """

    def take(ledger: Ledger) -> Lead:
        if (now := signed(store.path)).name != name:
            raise LeadLostError(f"{store.path} is held by {now.process} meanwhile: this process was paused for too long")
        return ledger.take_lead(name, this_process(), datetime.now(UTC))

    try:
        return store.once(take)
    except (StoreBusyError, StoreFullError) as problem:
        log.warning("the lead is not written down, and cannot be taken over as long as this process lives: %s", problem)
        return None


def _begun(path: Path, name: str, held: ExitStack, took: str = "") -> Store:
    store = Store.open(path, set_aside=True)
    held.callback(store.close)
    store.took = took
    return store.start(taken(store, name))


# Standing by


def _stood_by(path: Path, patience: timedelta, say: Say, over: Callable[[], bool], held: ExitStack) -> Store:
    late = f"has not renewed its lead for {spell(patience)}"
    before, seen, quiet = signed(path).process, None, 0
    say(f"standing by: {before} leads {path}; this one will when that has ended or {late}")
    while True:
        name = _next_lock(path, over, held)
        if name is not None:
            return _begun(path, name, held, f"{this_process()} leads since {before} has ended")
        now = _seen(path)
        quiet = quiet + 1 if now is not None and now == seen else 0
        before, seen = signed(path).process, now
        if now is not None and quiet * BEAT >= patience.total_seconds():
            try:
                return _displaced(path, now, held, f"{this_process()} leads: {now.by} {late}, and does nothing more")
            except (StoreError, OSError) as problem:
                say(f"{now.by} {late}, and it cannot be taken over: {problem}")
                quiet = 0


def _next_lock(path: Path, over: Callable[[], bool], held: ExitStack) -> str | None:
    """The name under which the lock is ours, if its holder ends before the next beat is due."""
    until = time.monotonic() + BEAT
    while time.monotonic() < until:
        if over():
            raise CancelledError("asked to end while standing by")
        try:
            return held.enter_context(locked(path))
        except StoreBusyError:
            time.sleep(PAUSE)
    return None


def _seen(path: Path) -> Lead | None:
    """The lead as its holder last renewed it.

    None where whoever has the lock leads by no number: it is starting, or takes the store to a new schema, or could never write its number down.
    """
    if not path.exists():
        return None
    store = Store(path)
    try:
        with store.read() as ledger:
            lead = ledger.lead()
    except StoreError:
        return None
    finally:
        store.close()
    return lead if lead is not None and lead.name == signed(path).name else None


def _displaced(path: Path, seen: Lead, held: ExitStack, took: str) -> Store:
    """Number and lock change hands in one transaction, so that of several who stand by one has both. StoreError when they cannot."""
    with ExitStack() as mine:
        lock = Spare(path)
        mine.callback(lock.close)
        store = Store.open(path)
        mine.callback(store.close)

        def displace(ledger: Ledger) -> Lead:
            if ledger.lead() != seen or signed(path).name != seen.name:
                raise StoreBusyError(f"{path} is led again")
            lead = ledger.take_lead(lock.name, this_process(), datetime.now(UTC))
            lock.put()
            return lead

        try:
            lead = store.once(displace)
        except BaseException:
            lock.back()
            raise
        lock.keep()
        store.took = took
        store.start(lead)
        held.push(mine.pop_all())
        return store
