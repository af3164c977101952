"""Every question asked of one service: the rules that there are, and what they come to. What no rule answers is unknown, and said to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.audit import collected as collected  # importing these is what fills RULES
from agent.audit import people as people
from agent.audit import running as running
from agent.audit import seen as seen
from agent.audit import watched as watched
from agent.audit.catalogue import Catalogue, Item
from agent.audit.known import RULES, Known
from agent.audit.rests import sealed
from agent.audit.scoring import Answer


def answers(catalogue: Catalogue, known: Known) -> Mapping[str, Answer]:
    """What is known of each question, by item, with the evidence it rests on. Nothing is asked of what is not attached."""
    found = {name: one.answer(known) for name, one in RULES.items() if catalogue.items[name].within(known.attached)}
    told = {name: _by_machine(catalogue.items[name], answer) for name, answer in found.items() if answer is not None}
    return sealed(known.ledger, told)


def _by_machine(item: Item, answer: Answer) -> Answer:
    """What a machine alone can say: where a person's word is a part of the answer, half of it at most."""
    if item.mode == "automatic" or answer.said != "pass":
        return answer
    return replace(answer, said="partial", observed=f"{answer.observed}; not attested by anybody")


__all__ = ["RULES", "answers"]
