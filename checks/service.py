"""Whether somebody answers for the service."""

from __future__ import annotations

from agent import Party, Verdict, check, fail, ok


@check(pillar="deployment", asks="Is there a named owner whom a page would reach?", cause="owner", severity="ticket", exact=True)
def owner(party: Party) -> Verdict:
    """Fails when the service has no owner, or when its owner or anybody in its escalation can be reached by no channel."""
    if not party.owner:
        return fail(f"{party.service} has no owner; write `owner: <name>` under services.{party.service}")
    unreachable = list(party.missing) if party.channels else [party.owner, *(name for name in party.missing if name != party.owner)]
    if unreachable:
        return fail(
            f"no channel reaches {' or '.join(unreachable)} of {party.service}; add one of that name under notify.channels, or name somebody else"
        )
    after = f", then {', '.join(party.escalation)}" if party.escalation else ""
    return ok(f"{party.owner} answers for {party.service}, reached by {', '.join(party.channels)}{after}")
