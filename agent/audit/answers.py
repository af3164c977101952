"""Every question asked of one service: the rules that there are, and what they come to. What no rule answers is unknown, and said to be."""

from __future__ import annotations

from collections.abc import Mapping

from agent.audit import collected as collected  # importing these is what fills RULES
from agent.audit import people as people
from agent.audit import promised as promised
from agent.audit import running as running
from agent.audit import seen as seen
from agent.audit import watched as watched
from agent.audit.attested import heard
from agent.audit.catalogue import Catalogue
from agent.audit.known import RULES, Known
from agent.audit.rests import sealed
from agent.audit.scoring import Answer


def answers(catalogue: Catalogue, known: Known) -> Mapping[str, Answer]:
    """What is known of each question, by item, with the evidence it rests on. Nothing is asked of what is not attached."""
    found = {name: one.answer(known) for name, one in RULES.items() if catalogue.items[name].within(known.attached)}
    return sealed(known.ledger, heard(known, {name: answer for name, answer in found.items() if answer is not None}))


__all__ = ["RULES", "answers"]
