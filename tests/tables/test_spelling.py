"""Numbers, durations and dates are found however they are spelled, and stand in their order."""

import numpy as np
import pytest

from bernoulli_diffusion.tables.asking import parse, question
from bernoulli_diffusion.tables.planning import plan
from bernoulli_diffusion.tables.spelling import (
    form_of_dates,
    number_of,
    spelling_of_numbers,
    timestamp,
)
from bernoulli_diffusion.tables.table import Table, values_of

INFINITY = float("inf")


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1.5", "2", "−3"], [1.5, 2, -3]),
        (["1e-300", "1e400", "-Infinity", "Inf"], [1e-300, INFINITY, -INFINITY, INFINITY]),
        (["1,5", "2", "-0,25"], [1.5, 2, -0.25]),
        (["1,234", "950", "12,500"], [1234, 950, 12500]),
        (["0,123", "1,234"], [0.123, 1.234]),
        (["1.234,5", "12", "1.234.567"], [1234.5, 12, 1234567]),
        (["1'234.5", "12"], [1234.5, 12]),
        (["1 234,5", "12"], [1234.5, 12]),
        (["$1,234.50", "-$5", "($4.00)"], [1234.5, -5, -4]),
        (["12,50 €", "1.000,00 €"], [12.5, 1000]),
        (["USD 1,200", "USD 900"], [1200, 900]),
        (["5%", "100%", "0.5%"], [5, 100, 0.5]),
        (["90 kg", "100 kg"], [90, 100]),
        (["5\nkg", "7\nkg"], [5, 7]),
        (["25:30:00", "1:05:00", "-0:00:01"], [91800, 3900, -1]),
        (["2h30m", "5h", "45m"], [9000, 18000, 2700]),
        (["3 days 04:05:00", "-1 days +23:59:59"], [273900, -1]),
        (["P1DT2H0M0S", "P-1DT23H59M59S"], [93600, -1]),
    ],
)
def test_numbers(texts, numbers):
    spelling = spelling_of_numbers(texts)
    assert [number_of(t, spelling) for t in texts] == numbers


@pytest.mark.parametrize(
    "texts",
    [
        ["x1", "x2"],
        ["3rd", "4th"],
        ["18-24", "25-30"],
        ["LHR 12", "LHR 13"],
        ["A", "5"],
        ["5 apples", "3 pears"],
        ["1)", "2)"],
        ["1.2.3", "1.2.4"],
        ["(5", "6"],
        [""],
    ],
)
def test_names_are_no_numbers(texts):
    assert spelling_of_numbers(texts) is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2024-01-02 10:00:00+02:00", "2024-01-02 10:00:00+01:00"),
        ("2024-01-02T10:00:00.123Z", "2024-01-02T10:00:00.125Z"),
        ("2024-01-02 10:00:00 UTC", "2024-01-02 10:00:01 UTC"),
        ("2024-01-02 10:00:00", "2024-01-02 10:00:00.5"),
        ("1/2/1999 11:30:00 AM", "1/2/1999 1:05:00 PM"),
        ("12/31/99", "1/1/00"),
        ("31.12.99", "01.01.00"),
        ("Jan 3 2000", "Feb 1 2000"),
        ("3 Jan 2000", "1 Feb 2000"),
        ("Mon, 3 Jan 2000 10:00:00 GMT", "Tue, 4 Jan 2000 10:00:00 GMT"),
        ("2023Q4", "2024Q1"),
        ("Q4 2023", "Q1 2024"),
        ("Dec 2023", "Jan 2024"),
        ("9:30 AM", "1:05 PM"),
    ],
)
def test_dates(earlier, later):
    form = form_of_dates([earlier, later])
    assert timestamp(earlier, form) < timestamp(later, form)


def table_of(texts):
    other = values_of(["a", "b"] * (len(texts) // 2), {""})
    return Table({"x": values_of(texts, {""}), "y": other}, "a table", {})


PRICES = [f"${v:,.2f}" for v in np.random.default_rng(0).gamma(2, 900, 300)]


def test_prices_are_numbers_to_ask_for_and_come_back_as_they_were():
    table = table_of(PRICES)
    encoding = plan(table, np.ones(300, bool))
    column = encoding.columns[0]
    assert column.type == "number"
    assert len(column.texts) == 40
    codes = encoding.codes(table)
    made = encoding.texts(codes, np.random.default_rng(0).random(codes.shape))["x"]
    assert set(made.texts) <= set(PRICES)
    for limit in ("1000", '"$1,000.00"', '"1,000"'):
        allowed = question(encoding, parse(f"x>={limit}")).allowed[0, :40]
        assert allowed.sum() == sum(
            any(float(t[1:].replace(",", "")) >= 1000 for t in ts) for ts in column.texts
        )


@pytest.mark.parametrize(
    "texts",
    [
        [f"555 {i * 7 % 900 + 100} 123" for i in range(300)],
        [f"{i * 7 % 900 * 1000 + 100_123:,}" for i in range(300)],
    ],
)
def test_numbers_that_are_ids_stay_ids(texts):
    assert plan(table_of(texts), np.ones(300, bool)).columns[0].type == "left out"


def test_the_word_that_keeps_a_column_from_being_one_of_numbers_is_told():
    texts = [str(i % 90) for i in range(299)] + ["n/a"]
    [column, _] = plan(table_of(texts), np.ones(300, bool)).columns
    assert column.type == "category"
    assert "--missing n/a" in column.reason
    texts = [f"2024-01-{i % 28 + 1:02}" for i in range(299)] + ["0000-00-00"]
    [column, _] = plan(table_of(texts), np.ones(300, bool)).columns
    assert "all others are dates" in column.reason
    assert "--missing 0000-00-00" in column.reason
