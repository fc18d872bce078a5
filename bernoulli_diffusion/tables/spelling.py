"""How numbers, durations and dates are spelled, and what a text stands for.

A value goes back out as it is spelled; what is computed here is its place among the others.
"""

import itertools
import re
from collections.abc import Iterator
from datetime import datetime

from .table import is_number

# of thousands and of decimals, in the order in which they are tried
MARKS = (("", "."), (",", "."), ("", ","), (".", ","), ("'", "."), ("’", "."))
MARKS += tuple((blank, decimal) for blank in (" ", "\xa0", "\u202f") for decimal in ",.")
THOUSANDS = re.compile(r"\s*[+−-]?(?:\d{1,3}|[1-9]\d{0,2}(?:,\d{3})+)\s*")
CODES = ("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "SEK", "NOK", "DKK", "PLN")
CURRENCY = rf"(?:[A-Z]{{0,2}}[$€£¥₹₽₩₺₪฿₫₴₦]|{'|'.join(CODES)}|Rs\.?|kr\.?)"
SPELLED = re.compile(
    rf"(?P<sign>[(+-]?)(?P<prefix>(?:{CURRENCY})?)\s*(?P<inner>[+-]?)"
    r"(?P<body>[\d.,]*\d(?:[.,'’ \xa0\u202f]?\d)*[.,]?(?:[eE][+-]?\d+)?)"
    r"(?P<suffix>\D{0,15}?)(?P<end>\)?)"
)
EXAMPLE = re.compile(r"(.*?)1(.?)000(.)5(.*)", re.DOTALL)  # prefix, thousands, decimals, suffix
# days, sign, hours, minutes, seconds
CLOCK = re.compile(r"(?:(-?\d+) days?,? *)?\+?(-?)(\d+):(\d\d)(?::(\d\d(?:\.\d+)?))?")
UNITS = re.compile(
    r"P?(?:(-?\d+) ?d(?:ays?)?)?[T ,]*(-?)(?:(\d+) ?h)? ?(?:(\d+) ?m(?:in)?)? ?"
    r"(?:(\d+(?:\.\d+)?) ?s)?",
    re.IGNORECASE,
)
QUARTER = re.compile(r"(?:(?P<year>\d{4})[- ]?Q(?P<q>[1-4])|Q(?P<q2>[1-4])[- /]?(?P<year2>\d{4}))")
WEEK = re.compile(r"\d{4}-\d\d-\d\d/\d{4}-\d\d-\d\d")  # of pandas
DATES = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y-%m-%dT%H:%M:%S.%f%z",
    "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%d %H:%M:%S.%f%z",
    "%Y-%m-%d %H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M%z",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%d-%m-%Y",
    "%d-%m-%Y %H:%M",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a, %d %b %Y %H:%M:%S %z",
    "%Y-%m",
    "%b %Y",
    "%B %Y",
    "%b-%y",
    "%d.%m.%y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%m/%d/%y %H:%M",
    "%d-%b-%y",
    "%H:%M:%S",
    "%H:%M",
    "%I:%M %p",
    "quarter",
    "week",
    "iso",
)


def spelling_of_numbers(texts: list[str]) -> str | None:
    """How texts spell numbers, for number_of; None if they are none.

    ".": plainly; ",": with decimal commas; "$1,000.5 kg": with these marks and with what stands around
    each; "duration": in hours, minutes and seconds.
    """
    candidates = itertools.chain((".", ","), _spelled_alike(texts))
    if texts and any("," in t for t in texts) and all(map(THOUSANDS.fullmatch, texts)):
        return "1,000.5"  # 12,500 and 950, which decimal commas would fit as well
    for spelling in candidates:
        if texts and all(number_of(t, spelling) is not None for t in texts):
            return spelling
    return None


def _spelled_alike(texts: list[str]) -> Iterator[str]:
    """The spellings that may be of texts: with the currency, unit and so on that all of them have."""
    around = set()
    for text in texts:
        if not is_infinite(text):
            match = SPELLED.fullmatch(_plain_minus(text))
            around.add((match["prefix"], match["suffix"]) if match else None)
        if None in around or len(around) > 1:
            break
    else:
        for (prefix, suffix), (thousands, decimal) in itertools.product(around, MARKS):
            yield f"{prefix}1{thousands}000{decimal}5{suffix}"
    if form_of_dates(texts) is None:
        yield "duration"


def number_of(text: str, spelling: str) -> float | None:
    """The number that a text stands for, or None. A plain number is one in most spellings."""
    text = _plain_minus(text)
    if is_infinite(text):
        return float(text)
    if spelling == "duration":
        return _seconds(text)
    if spelling not in (".", ","):
        return _spelled_number(text, spelling)
    if spelling == ",":
        text = "" if "." in text else text.replace(",", ".")
    return float(text) if is_number(text) else None


def has_unit(spelling: str) -> bool:
    """Whether something else than digits and marks stands in the numbers: a currency, a unit, colons."""
    return spelling == "duration" or not re.fullmatch(r"1?.?(000)?[.,](5\w*)?", spelling)


def is_infinite(text: str) -> bool:
    return text.strip().lower().lstrip("+-") in ("inf", "infinity")


def _plain_minus(text: str) -> str:
    return text.strip().replace("−", "-")


def _spelled_number(text: str, spelling: str) -> float | None:
    prefix, thousands, decimal, suffix = EXAMPLE.fullmatch(spelling).groups()
    if is_number(text) and thousands != ".":  # as in a question: price>=1000
        return float(text)
    match = SPELLED.fullmatch(text)
    if not match or match["prefix"] not in ("", prefix) or match["suffix"] not in ("", suffix):
        return None
    if (match["sign"] == "(") != (match["end"] == ")"):  # of a loss in accounts
        return None
    whole = rf"\d+|[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+" if thousands else r"\d+"
    fraction = rf"(?:{re.escape(decimal)}\d*)?(?:[eE][+-]?\d+)?"
    if not re.fullmatch(rf"(?:{whole})?{fraction}", match["body"]):
        return None
    digits = match["body"].replace(thousands, "") if thousands else match["body"]
    number = float(digits.replace(decimal, "."))
    return -number if {match["sign"], match["inner"]} & {"(", "-"} else number


def _seconds(text: str) -> float | None:
    match = CLOCK.fullmatch(text) or UNITS.fullmatch(text)
    if not match or not any(c.isdigit() for c in text):
        return float(text) if is_number(text) else None
    days, sign, *rest = match.groups()
    hours, minutes, seconds = (float(x or 0) for x in rest)
    seconds += 60 * (minutes + 60 * hours)
    return 86400 * float(days or 0) + (-seconds if sign else seconds)


def form_of_dates(texts: list[str], is_iso: bool = False) -> str | None:
    """The form in which all texts are dates or times, for timestamp; None if there is none."""
    for form in ("iso",) if is_iso else DATES:
        if texts and all(timestamp(t, form) is not None for t in texts):
            return form
    return None


def timestamp(text: str, form: str) -> float | None:
    """Seconds since 1970 (of a time of day: since midnight). form: of DATES."""
    text = text.strip()
    try:
        if form == "week" and WEEK.fullmatch(text):
            moment = datetime.fromisoformat(text[:10])
        elif form == "quarter":
            if not (match := QUARTER.fullmatch(text)):
                return None
            year, q = match["year"] or match["year2"], match["q"] or match["q2"]
            moment = datetime(int(year), 3 * int(q) - 2, 1)
        else:
            moment = (
                datetime.fromisoformat(text) if form == "iso" else datetime.strptime(text, form)
            )
    except ValueError:
        return None
    if form in ("%H:%M:%S", "%H:%M", "%I:%M %p"):
        moment = moment.replace(year=1970, month=1, day=1, microsecond=0)
    zone = moment.utcoffset()
    seconds = (moment.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
    return seconds - (zone.total_seconds() if zone else 0)
