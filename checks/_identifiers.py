"""What looks like an identifier of a person, by its form and its check digits; only counts leave here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent import Json

MAIL = re.compile(r"[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
SOCIAL = re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b")
PHONE = re.compile(r"(?<![\w.])\+[1-9]\d{0,2}[ ()/-]?(?:\d[ ()/-]?){6,12}\d(?![\w.])")
CARD = re.compile(r"(?<![\d.])(?:\d[ -]?){12,18}\d(?![\d.])")
LONGEST = 10_000  # characters of a cell that are searched
FEW = 0.5  # of the cells that hold a number of a card's form: one in ten has the right check digit by chance


def found(cells: Sequence[Json], name: str) -> dict[str, int]:
    """Kind -> in how many of these cells one is found."""
    texts = [str(cell)[:LONGEST] for cell in cells if cell is not None and not isinstance(cell, bool | float)]
    counts = {
        "mail addresses": sum(MAIL.search(text) is not None for text in texts),
        "IBANs": sum(any(_iban(match[0]) for match in IBAN.finditer(text)) for text in texts),
        "social security numbers": sum(SOCIAL.search(text) is not None for text in texts),
        "telephone numbers": sum(PHONE.search(text) is not None for text in texts),
        "card numbers": _cards(texts),
    }
    return {kind: count for kind, count in counts.items() if count}


def _cards(texts: Sequence[str]) -> int:
    """By Luhn's check digit; a column where only some pass holds other long numbers, some of which pass by chance."""
    shaped = [[re.sub(r"\D", "", match[0]) for match in CARD.finditer(text)] for text in texts]
    shaped = [numbers for numbers in shaped if numbers]
    right = sum(any(_luhn(number) for number in numbers) for numbers in shaped)
    return right if shaped and right >= FEW * len(shaped) else 0


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(one - 9 if one > 9 else one for one in doubled) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the first four characters moved to the end, letters as numbers, modulo 97."""
    plain = text.replace(" ", "")
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1
