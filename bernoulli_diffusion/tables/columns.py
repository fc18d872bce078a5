"""What a column is, and how its values become bits. finding.py finds it out.

A column that becomes bits has codes 0 .. k - 1, and each code stands for one text, or for several (a
bin of numbers, the rarest levels together), of which one is drawn on the way back. A missing value
is one more code where it is a value of its own.
"""

import dataclasses
from dataclasses import dataclass, field
from string import ascii_lowercase

import numpy as np

from .spelling import number_of, timestamp

ONE_HOT = ("category",)
THERMOMETER = ("yes/no", "ordered", "whole number", "number", "date")
ASIDE = ("constant", "row number", "determined", "weight", "left out")  # no bits
TYPES = (*THERMOMETER, *ONE_HOT, *ASIDE)
SYNONYMS = {
    "yesno": "yes/no",
    "bool": "yes/no",
    "boolean": "yes/no",
    "binary": "yes/no",
    "categorical": "category",
    "ordinal": "ordered",
    "integer": "whole number",
    "int": "whole number",
    "whole": "whole number",
    "float": "number",
    "numeric": "number",
    "numerical": "number",
    "time": "date",
    "datetime": "date",
    "id": "left out",
    "text": "left out",
    "drop": "left out",
    "leave out": "left out",
}
GAPS = ("a value", "unknown")


@dataclass
class Column:
    """One column of a table: what it is, and what each of its codes stands for.

    texts[c] are the texts of code c and counts[c] how often each of them stands in the training
    rows. numbers[c] is the least number of code c, for columns of numbers and dates.
    """

    name: str
    type: str
    reason: str = ""
    texts: list[list[str]] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    spelling: str = ""  # of numbers and dates, see spelling.py
    gaps: str = ""  # "a value", "unknown", or "" if there are none
    missing_text: str = ""
    dtype: str = ""
    sources: list[str] = field(default_factory=list)  # of a determined column
    rule: str = (
        ""  # "lookup", "a * b", or a sum such as "a", "a + b - c" of the sources in their order
    )
    lookup: list[list[str | None]] = field(default_factory=list)  # pairs: source's text, text
    start: int = 0  # of row numbers
    bins: int = 0  # of numbers that are not each kept: how many were asked for

    @property
    def has_bits(self) -> bool:
        return self.type not in ASIDE

    @property
    def is_one_hot(self) -> bool:
        return self.type in ONE_HOT

    @property
    def has_missing_code(self) -> bool:
        return self.gaps == "a value" and self.has_bits

    @property
    def num_codes(self) -> int:
        """Codes with the one for a missing value."""
        return len(self.texts) + self.has_missing_code

    @property
    def width(self) -> int:
        """Bits."""
        if not self.has_bits:
            return 0
        k = len(self.texts)
        return (k if self.is_one_hot else k - 1) + self.has_missing_code

    def patterns(self) -> np.ndarray:
        """(num_codes, width) uint8: the bits of each code.

        One-hot, or a thermometer: bit i says whether the code is above i. A missing value has a bit
        of its own, the last, and all others 0.
        """
        k = len(self.texts)
        table = np.zeros((self.num_codes, self.width), np.uint8)
        ladder = np.eye(k, dtype=np.uint8) if self.is_one_hot else np.tri(k, k - 1, -1, np.uint8)
        table[:k, : ladder.shape[1]] = ladder
        if self.has_missing_code:
            table[k, -1] = 1
        return table

    def is_binned(self) -> bool:
        """Whether a code stands for more than one number."""
        return bool(self.numbers) and any(len(t) > 1 for t in self.texts)

    def number(self, text: str) -> float | None:
        """The text as this column's number or date, or None if it is none."""
        if self.type == "date":
            return timestamp(text, self.spelling)
        return number_of(text, self.spelling or ".")

    def code_of(self, text: str) -> int | None:
        """The code of a text, or None for one that was never seen. A number's is that of the nearest."""
        if self._code_of_text is None:
            self._code_of_text = {t: c for c, texts in enumerate(self.texts) for t in texts}
        code = self._code_of_text.get(text)
        if code is None and self.numbers and (x := self.number(text)) is not None:
            if self.is_binned():
                code = max(0, int(np.searchsorted(self.numbers, x, "right")) - 1)
            elif x in self.numbers:  # spelled otherwise
                code = self.numbers.index(x)
            elif x == x:
                inside = min(max(x, self.numbers[0]), self.numbers[-1])
                code = int(np.abs(np.array(self.numbers) - inside).argmin())
        if code is None:  # " yes" for "yes"
            code = self._code_of_text.get(text.strip())
        return code

    def __post_init__(self):
        self._code_of_text: dict[str, int] | None = None

    def state(self) -> dict:
        """As plain Python, for a checkpoint or a file."""
        return dataclasses.asdict(self)


def column_of(state: object) -> Column:
    """A Column from its state. Raises ValueError if it is not sound: it comes from a file."""
    if not isinstance(state, dict):
        raise ValueError("a column is not a mapping")
    unknown = set(state) - {f.name for f in dataclasses.fields(Column)}
    if unknown:
        raise ValueError(f"a column has the unknown entry {sorted(map(str, unknown))[0]!r}")
    try:
        column = Column(**state)
        sound = (
            isinstance(column.name, str)
            and column.type in TYPES
            and column.gaps in ("", *GAPS)
            and all(isinstance(t, str) for texts in column.texts for t in texts)
            and [len(t) for t in column.texts] == [len(c) for c in column.counts]
            and all(len(t) and sum(c) > 0 for t, c in zip(column.texts, column.counts, strict=True))
            and all(isinstance(c, int) and c >= 0 for cs in column.counts for c in cs)
            and len(column.numbers) in (0, len(column.texts))
            and all(isinstance(x, float) for x in column.numbers)
            and all(len(pair) == 2 for pair in column.lookup)
            and all(isinstance(x, str | None) for pair in column.lookup for x in pair)
            and all(isinstance(s, str) for s in column.sources)
            and all(isinstance(s, str) for s in (column.reason, column.missing_text, column.dtype))
            and (column.type != "determined" or _is_rule(column.rule, len(column.sources)))
            and isinstance(column.start, int)
            and isinstance(column.bins, int)
            and (len(column.texts) > 0 or not column.has_bits)
        )
    except TypeError:
        sound = False
    if not sound:
        raise ValueError("a column is not sound")
    return column


def _is_rule(rule: str, num_sources: int) -> bool:
    """Whether a determined column can be computed by it."""
    if rule == "lookup":
        return num_sources == 1
    if rule == "a * b":
        return num_sources == 2
    letters, marks = rule.split()[::2], rule.split()[1::2]
    return letters == [*ascii_lowercase[:num_sources]] != [] and {*marks} <= {"+", "-"}
