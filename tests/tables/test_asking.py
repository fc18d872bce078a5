"""Conditions by name: what they mean for the codes, and every mistake in them."""

import numpy as np
import pytest

from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import asking
from bernoulli_diffusion.tables.description import Wish
from bernoulli_diffusion.tables.planning import plan
from bernoulli_diffusion.tables.table import Table, values_of

N = 300
RANDOM = np.random.default_rng(0)
AGE = RANDOM.integers(18, 60, N)
CHILDREN = RANDOM.integers(0, 9, N)
COLUMNS = {
    "age": AGE,
    "children": CHILDREN,
    "household": AGE + CHILDREN,
    "agesq": AGE**2,
    "minor": np.where(AGE < 21, "yes", "no"),
    "smoker": RANDOM.choice(["yes", "no"], N),
    "town": RANDOM.choice(["Bonn", "Trier", "Ulm, Donau", "Aix"], N),
    "pay": [None if i % 7 == 0 else f"{x:.2f}" for i, x in enumerate(RANDOM.gamma(2, 900, N))],
    "grade": RANDOM.choice(["low", "mid", "high"], N),
    "since": np.datetime64("2000-01-01") + RANDOM.integers(0, 3000, N),
    "key": [f"k{i}" for i in RANDOM.permutation(N)],
    "year": ["2020"] * N,
}


@pytest.fixture(scope="module")
def table():
    made = {
        n: values_of(["" if v is None else str(v) for v in c], {""}) for n, c in COLUMNS.items()
    }
    return Table(made, "", {"separator": ",", "header": True})


@pytest.fixture(scope="module")
def encoding(table):
    wishes = {"grade": Wish(type="ordered", levels=["low", "mid", "high"])}
    return plan(table, np.ones(N, bool), wishes)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("age>=40", AGE >= 40),
        ("age > 40, age<50", (AGE > 40) & (AGE < 50)),
        ("age=20|30", np.isin(AGE, [20, 30])),
        ("agesq<=900", AGE <= 30),
        ("minor=yes", AGE < 21),
        (
            "smoker=yes, town=Bonn|Aix",
            (COLUMNS["smoker"] == "yes") & np.isin(COLUMNS["town"], ["Bonn", "Aix"]),
        ),
        ('town="Ulm, Donau"', COLUMNS["town"] == "Ulm, Donau"),
        ("town != Bonn", COLUMNS["town"] != "Bonn"),
        ("pay=", np.array([v is None for v in COLUMNS["pay"]])),
        ("pay!=", np.array([v is not None for v in COLUMNS["pay"]])),
        ("pay>=2000", np.array([v is not None and float(v) >= 2000 for v in COLUMNS["pay"]])),
        ("grade>=mid", np.isin(COLUMNS["grade"], ["mid", "high"])),
        ("since<2004-01-01", COLUMNS["since"] < np.datetime64("2004-01-01")),
        ("year=2020", np.ones(N, bool)),
    ],
)
def test_conditions_mean_the_records_that_fulfil_them(text, fits, table, encoding):
    conditions = asking.parse(text)
    found = asking.question(encoding, conditions)
    assert (asking.all_fit(encoding, table.columns, conditions) == fits).all()
    codes = encoding.codes(table)
    allowed = found.allowed[np.arange(codes.shape[1]), codes].all(axis=1)
    assert (allowed | ~fits).all()  # who fits is allowed
    if "pay>" not in text:  # elsewhere than in bins the reverse is true
        assert (allowed == fits).all()
    pattern = found.pattern(encoding)
    bits = encoding.encode(table)
    assert ((bits == pattern) | (pattern == -1)).all(axis=1)[fits].all()


def test_an_interval_is_said_by_its_known_bits(table, encoding):
    pattern = asking.question(encoding, asking.parse("age>=40,age<50")).pattern(encoding)
    bits = encoding.encode(table)
    matches = ((bits == pattern) | (pattern == -1)).all(axis=1)
    assert (matches == ((AGE >= 40) & (AGE < 50))).all()


def test_whether_bits_say_all_that_is_asked(encoding):
    for text, is_said in {
        "age>=40": True,
        "smoker=yes, town=Bonn": True,
        "pay=": True,
        "town=Bonn|Trier": True,  # neither of the two others
        "age=20|30": False,
        "pay>=2000": False,  # part of a bin
        "household>30": False,  # of two columns
    }.items():
        asked = asking.question(encoding, asking.parse(text))
        assert asked.is_all_in_bits(encoding) == is_said, text


def test_a_number_may_have_a_point_where_the_column_has_commas():
    texts = [f"{i % 70},5" for i in range(N)]
    table = Table({"x": values_of(texts, {""}), "y": values_of("ab" * (N // 2), {""})}, "", {})
    encoding = plan(table, np.ones(N, bool))
    for one, other in (("x>10.5", 'x>"10,5"'), ("x=3.5", 'x="3,5"')):
        found = [asking.question(encoding, asking.parse(text)) for text in (one, other)]
        assert (found[0].share == found[1].share).all()


def test_quotes_of_other_languages_are_no_part_of_a_value():
    [one, other, odd] = asking.parse("""'smoker' = 'yes', town="O'Neil's", "x=y">=2""")
    assert (odd.name, odd.operator, odd.values) == ("x=y", ">=", ["2"])
    assert (one.name, one.values, other.values) == ("smoker", ["yes"], ["O'Neil's"])


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ('town="a|b"|c', "town", ["a|b", "c"]),
        ("town='a,b'", "town", ["a,b"]),
        ("'a,b'=c", "a,b", ["c"]),
        ('town=say "hi"', "town", ['say "hi"']),
        ('town="say ""hi"""', "town", ['say "hi"']),
        ('say "hi"=1', 'say "hi"', ["1"]),
        ("it's=it's", "it's", ["it's"]),
        ('town=" sp "', "town", [" sp "]),
        ("town=|b", "town", ["", "b"]),
    ],
)
def test_quotes_keep_what_separates_elsewhere(text, name, values):
    for given in (text, f", {text} ,"):
        [condition] = asking.parse(given)
        assert (condition.name, condition.values) == (name, values)
    assert [c.values for c in asking.parse(f"{text}, y!=2")] == [values, ["2"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age=17", ["never '17'", "nearest is '18'"]),
        ("pay=NA", ["pay= asks for a gap"]),
        ("age>=40;smoker=yes", ["with commas, not with ';'"]),
        ("town=Ulm, Donau", ["--given: 'Donau' is no condition", "double quotes"]),
        ("since>=2004", ["expected one date, such as 2000-"]),
        ("agee>=40", ["no column 'agee'", "did you mean 'age'"]),
        ("smoker", ["is no condition", "NAME=VALUE"]),
        ("smoker=Yes", ["never 'Yes'", "did you mean 'yes'"]),
        ("town=Paris", ["never 'Paris'", "there are Aix"]),
        ("age>=200", ["no value of age", "age>=200"]),
        ("age>=40,age<30", ["no value of age", "age>=40, age<30"]),
        ("age>=old", ["expected one number"]),
        ("town>Bonn", ["has no order"]),
        ("key=k7", ["'key' was left out"]),
        ("smoker=", ["has no gaps"]),
        ("year=1999", ["always '2020'"]),
        ("minor=maybe", ["never 'maybe'"]),
        ("grade>=best", ["expected one level"]),
        ("since>soon", ["expected one date"]),
        ("minor=yes, age>50", ["no value of age"]),
        ("age>30 and smoker=yes", ["with commas, not with 'and'"]),
        ("age>30 & smoker=yes", ["with commas, not with '&'"]),
        ("household>200", ["no value of household", "age + children in every row", "to 67"]),
        ("household<=17", ["no value of household", "from 18"]),
        ("household>60, age<40", ["no value of household", "to 47"]),
        ("household=500", ["no value of household"]),
        ("household>many", ["expected one number"]),
        ("household=many", ["expected one number"]),
    ],
)
def test_mistakes_in_conditions_are_told_before_anything_is_drawn(text, words, encoding):
    with pytest.raises(UserError) as error:
        asking.question(encoding, asking.parse(text))
    for word in words:
        assert word in str(error.value)
