"""What must not leave the house in a file: e-mail addresses, card and account numbers. A find is told by place and kind, and never repeated."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
CARD = re.compile(r"(?<![\w.])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w.])")
ACCOUNT = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
SOCIAL = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")


def found(files: Mapping[str, bytes], known: Collection[str] = ()) -> Iterator[str]:
    """A sentence for each place of an identifier; `known` are names that may stand there, such as those of who answers for a service."""
    for name, body in files.items():
        for number, line in enumerate(body.decode("utf-8", "replace").splitlines(), 1):
            yield from (f"{name}, line {number}: {kind}" for kind in _kinds(line, known))


def _kinds(line: str, known: Collection[str]) -> Iterator[str]:
    if any(one not in known for one in MAIL.findall(line)):
        yield "an e-mail address"
    if any(_luhn(re.sub(r"\D", "", one)) for one in CARD.findall(line)):
        yield "a card number"
    if any(_whole(one.replace(" ", "")) for one in ACCOUNT.findall(line)):
        yield "an account number"
    if SOCIAL.search(line):
        yield "a social security number"


def _luhn(digits: str) -> bool:
    """The check digit of cards (ISO/IEC 7812)."""
    doubled = [int(one) * (1 + n % 2) for n, one in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def _whole(account: str) -> bool:
    """The check digits of accounts (ISO 13616)."""
    return 15 <= len(account) <= 34 and int("".join(str(int(one, 36)) for one in account[4:] + account[:4])) % 97 == 1
