"""How far the answers of a smaller graph agree with those of the one it was made from, row by row; and with the truth, where that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.errors import DataError
from runbooks._runtime import Answers

Kind = Literal["classes", "vectors", "numbers"]
SURE = 0.05  # the chance that a variant is called worse than the truth allows although it is not


@dataclass(frozen=True, slots=True)
class Quality:
    """`kept` is what is judged, 1 at best: the share of rows with the same class, the mean cosine of vectors, or the part of the variance of numbers.

    `fidelity` is the signal-to-noise ratio of all numbers, in dB: it tells apart what keeps equally many answers. `cosine` is mean and least over
    rows; `worst` the largest difference of any number. With the truth: right before and after, `lost` right before and wrong now, `won` the reverse.
    """

    kind: Kind
    kept: float
    fidelity: float
    cosine: tuple[float, float]
    worst: float
    rows: int
    before: float | None = None
    after: float | None = None
    lost: int = 0
    won: int = 0

    @property
    def worse(self) -> bool:
        """Whether it is surely wrong more often: McNemar's exact test (1947), one-sided."""
        return _tail(self.lost, self.lost + self.won) <= SURE


def kind_of(answers: Answers, *, classes: bool) -> Kind:
    """What a graph answers with: classes where it names them or somebody says so, a number where it gives one, else a vector."""
    if answers.labels is not None or (classes and answers.width > 1):
        return "classes"
    return "vectors" if max(part.shape[1] for part in answers.vectors) > 1 else "numbers"


def compare(plain: Answers, smaller: Answers, kind: Kind, truth: Any | None = None, classes: Sequence[str] = ()) -> Quality:
    """The answers of both on the same runs. DataError for a smaller graph whose answers are no numbers, or of another shape."""
    import numpy as np

    if [part.shape for part in plain.vectors] != [part.shape for part in smaller.vectors]:
        raise DataError("its answers have another shape")
    if (bad := unsound(smaller)) > 0:
        raise DataError(f"it answers {bad} rows with something that is no number")
    pairs = list(zip(plain.vectors, smaller.vectors, strict=True))
    cosines = np.concatenate([_cosine(one, other) for one, other in pairs])
    noise = sum(float(((one - other) ** 2).sum()) for one, other in pairs)
    signal = sum(float((one**2).sum()) for one, _ in pairs)
    ours, theirs = (said(one, classes) for one in (plain, smaller)) if kind == "classes" else (None, None)
    kept = float((ours == theirs).mean()) if ours is not None else float(cosines.mean()) if kind == "vectors" else _explained(pairs)
    worst = max(float(np.abs(one - other).max()) for one, other in pairs)
    right = {} if truth is None or ours is None else _right(ours, theirs, truth)
    return Quality(kind, kept, decibels(signal, noise), (float(cosines.mean()), float(cosines.min())), worst, len(cosines), **right)


def unsound(answers: Answers) -> int:
    """How many rows it answers with something that is no number."""
    import numpy as np

    return sum(int((~np.isfinite(part)).any(axis=1).sum()) for part in answers.vectors)


def said(answers: Answers, classes: Sequence[str] = ()) -> Any:
    """The class of each row as text (of each place in it, for what answers for a whole sequence)."""
    import numpy as np

    if answers.labels is not None:
        return np.array([spelled(one) for one in answers.labels.tolist()], dtype=object)
    chosen = np.concatenate([part.reshape(-1, answers.width).argmax(axis=1) for part in answers.vectors])
    names = classes or tuple(map(str, range(answers.width)))
    if len(names) != answers.width:
        raise DataError(f"the graph gives {answers.width} scores a row, and `classes` names {len(names)}")
    return np.asarray(names, dtype=object)[chosen]


def spelled(value: Any) -> str:
    """A class as text, the same for 3 and 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def decibels(signal: float, noise: float) -> float:
    """Signal to noise; 200 where there is no noise to speak of."""
    return min(200.0, 10 * math.log10(signal / noise)) if noise > 0 and signal > 0 else 200.0 if noise == 0 else 0.0


def _cosine(one: Any, other: Any) -> Any:
    """Of each row; two rows of nothing but zeros are alike, and nothing is like zeros."""
    import numpy as np

    lengths = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    alike = np.where((one == other).all(axis=1), 1.0, 0.0)
    return np.clip(np.divide((one * other).sum(axis=1), lengths, out=alike, where=lengths > 0), -1.0, 1.0)


def _explained(pairs: Sequence[tuple[Any, Any]]) -> float:
    import numpy as np

    ours, theirs = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    spread = float(((ours - ours.mean()) ** 2).sum())
    left = float(((ours - theirs) ** 2).sum())
    return 1.0 - left / spread if spread > 0 else 1.0 if left == 0 else 0.0


def _right(ours: Any, theirs: Any, truth: Any) -> dict[str, Any]:
    import numpy as np

    known = np.array([spelled(one) for one in truth.tolist()], dtype=object)
    if len(known) != len(ours):
        raise DataError(f"the graph gives {len(ours):,} answers for {len(known):,} labels; leave the label out")
    if not (named := set(known)) & (told := set(ours)):
        raise DataError(f"the labels ({_some(named)}) are none of the answers ({_some(told)}); say with `classes` what the scores are of")
    before, after = ours == known, theirs == known
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return {"before": float(before.mean()), "after": float(after.mean()), "lost": lost, "won": won}


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5])


def _tail(hits: int, n: int) -> float:
    """P(at least so many of n fair coins)."""
    return sum(math.comb(n, k) for k in range(hits, n + 1)) / 2**n if n < 1000 else 0.5 * math.erfc((hits - 0.5 - n / 2) / math.sqrt(n / 2))
