"""Types are found by what columns hold, and can be overruled."""

import numpy as np
import pytest

from bernoulli_diffusion.system.errors import UserError
from bernoulli_diffusion.tables import description
from bernoulli_diffusion.tables.description import Wish
from bernoulli_diffusion.tables.encoding import Encoding
from bernoulli_diffusion.tables.finding import LEVELS
from bernoulli_diffusion.tables.planning import plan
from bernoulli_diffusion.tables.rules import solved
from bernoulli_diffusion.tables.table import Table, values_of

RANDOM = np.random.default_rng(1)
N = 200
TOWNS = [f"{a}{b}" for a in ("Alt", "Neu", "Bad ", "St. ") for b in ("dorf", "stadt", "berg", "au")]


def table_of(**columns):
    """A Table of columns, each a list of text or None."""
    made = {
        name: values_of(["" if v is None else str(v) for v in column], {""})
        for name, column in columns.items()
    }
    return Table(made, "a table", {"separator": ",", "header": True})


def encoding_of(table, **wishes):
    return plan(table, np.ones(len(table), bool), wishes)


def round_trip(table, encoding):
    bits = encoding.encode(table)
    codes = encoding.codes_of_bits(bits)
    assert (codes >= 0).all()
    u = np.random.default_rng(0).random(codes.shape)
    return encoding.texts(codes, u)


SHUFFLED = RANDOM.permutation(N)
FOUND = {
    "yes/no": RANDOM.choice(["yes", "no"], N),
    "category": RANDOM.choice(TOWNS, N),
    "whole number": RANDOM.integers(0, 30, N),
    "number": RANDOM.normal(size=N).round(6),
    "date": np.datetime64("2020-01-01") + RANDOM.integers(0, 900, N),
    "constant": ["x"] * N,
}


@pytest.mark.parametrize("kind", FOUND)
def test_types_are_found_by_the_values(kind):
    # a column called city that holds towns, or one called id that holds ten levels, is what it holds
    for name in ("city", "id", "email", "age"):
        table = table_of(**{name: FOUND[kind], "other": FOUND["yes/no"]})
        assert encoding_of(table).columns[0].type == kind


@pytest.mark.parametrize(
    "column",
    [
        [f"user{i}@example.org" for i in SHUFFLED],
        [f"{i:04x}-{i * 7919 % 65536:04x}" for i in SHUFFLED],
        [f"Called {i} times about the delivery of number {i * 3}" for i in SHUFFLED],
        [10_000 + 37 * i for i in SHUFFLED],
        [3 * i + 1 for i in range(N)],
    ],
    ids=["mail", "hex", "free text", "numbers of one length", "rising numbers"],
)
def test_ids_and_free_text_are_left_out_and_nothing_of_them_is_kept(column):
    table = table_of(who=column, other=FOUND["yes/no"])
    encoding = encoding_of(table)
    assert encoding.columns[0].type == "left out"
    assert encoding.columns[0].reason
    assert not any(
        str(text) in encoding.to_json().decode() for text in column if len(str(text)) > 5
    )
    assert list(round_trip(table, encoding)) == ["other"]


def test_numbers_with_zeros_before_them_are_names_unless_asked_for():
    table = table_of(zip=[f"{i % 40:05}" for i in range(N)], other=FOUND["yes/no"])
    assert encoding_of(table).columns[0].type == "category"
    column = encoding_of(table, zip=Wish(type="number")).columns[0]
    assert (column.type, column.number("00012")) == ("number", 12)


def test_measured_numbers_that_all_differ_are_no_ids():
    incomes = RANDOM.choice(np.arange(800, 120_000), N, replace=False)
    assert encoding_of(table_of(income=incomes)).columns[0].type == "whole number"


def test_row_numbers_are_written_anew():
    table = table_of(**{"": range(N), "answer": FOUND["yes/no"]})
    encoding = encoding_of(table)
    assert encoding.columns[0].type == "row number"
    made = encoding.texts(np.zeros((3, 1), int), np.zeros((3, 1)), first=5)
    assert [made[""].text(i) for i in range(3)] == ["5", "6", "7"]


def test_every_level_is_kept_up_to_a_limit():
    ages = RANDOM.integers(18, 18 + LEVELS, 20_000)
    table = table_of(age=ages)
    encoding = encoding_of(table)
    assert encoding.length == LEVELS - 1
    assert (encoding.codes(table)[:, 0] == ages - 18).all()


def test_more_numbers_go_into_bins_and_come_back_as_numbers_of_the_bin():
    x = np.exp(RANDOM.normal(size=5000)).round(3)
    x[:2000] = 0  # fills a bin by itself
    table = table_of(x=x, y=RANDOM.choice(["a", "b"], 5000))
    encoding = encoding_of(table)
    column = encoding.columns[0]
    assert column.type == "number"
    assert len(column.texts) <= 40
    zero = column.code_of("0.0")
    assert column.texts[zero] == ["0.0"]
    light = [sum(c) for code, c in enumerate(column.counts) if code != zero]
    assert max(light) < 3 * np.mean(light)
    made = round_trip(table, encoding)["x"]
    back = np.array([float(made.text(i)) for i in range(5000)])
    assert set(back) <= set(x)  # on the grid of the data
    assert (encoding.codes(table)[:, 0] == [column.code_of(str(v)) for v in back]).all()
    # within a bin values are drawn as often as they occur
    assert abs(np.mean(back) - np.mean(x)) < 4 * np.std(x) / 5000**0.5


def test_numbers_of_held_out_rows_alone_get_no_bin_and_are_not_drawn():
    table = table_of(x=[f"{i}.5" for i in range(400)])
    [column] = plan(table, np.arange(400) < 380).columns  # the largest numbers are held out
    assert len(column.texts) == 40
    assert {t for texts in column.texts for t in texts} == {f"{i}.5" for i in range(380)}
    assert column.code_of("399.5") == 39


def test_rare_levels_of_many_are_drawn_from_their_own():
    levels = [f"level {i}" for i in range(150)]
    column = [*levels * 3, *levels[:50] * 10]
    table = table_of(shop=column, other=RANDOM.choice(["a", "b"], len(column)))
    encoding = encoding_of(table)
    assert "rarest" in encoding.columns[0].reason
    made = round_trip(table, encoding)["shop"]
    drawn = {made.text(i) for i in range(len(column))}
    assert drawn <= set(levels)
    assert len(drawn) > 120  # and no marker in their place


def test_gaps_are_a_value_or_unknown():
    column = [None if i % 5 == 0 else i % 3 for i in range(N)]
    table = table_of(x=column, y=FOUND["yes/no"])
    encoding = encoding_of(table)
    made = round_trip(table, encoding)["x"]
    assert [made.text(i) for i in range(N)] == [None if v is None else str(v) for v in column]
    unknown = encoding_of(table, x=Wish(gaps="unknown"))
    assert (unknown.encode(table)[::5, :2] == -1).all()
    assert unknown.length == encoding.length - 1


def test_columns_that_others_determine_are_computed():
    age = RANDOM.integers(15, 50, N)
    urban, educ = RANDOM.integers(0, 2, N), RANDOM.integers(0, 12, N)
    gap = [None if a < 20 else "yes" for a in age]
    table = table_of(
        agesq=age**2, age=age, urban=urban, educ=educ, both=urban * educ, adult=gap, less=educ - age
    )
    encoding = encoding_of(table)
    found = {c.name: (c.type, c.sources) for c in encoding.columns}
    assert found["agesq"][0] == "whole number"  # the first of two that say each other
    assert found["age"] == ("determined", ["agesq"])
    assert found["both"] == ("determined", ["urban", "educ"])
    assert found["adult"] == ("determined", ["agesq"])
    made = round_trip(table, encoding)
    for name, values in table.columns.items():
        assert [made[name].text(i) for i in range(N)] == [values.text(i) for i in range(N)]


def test_of_a_sum_and_its_summands_the_sum_is_computed():
    """A difference of two drawn values may be what the column never holds."""
    one, two = RANDOM.integers(1, 6, (2, N))
    encoding = encoding_of(table_of(one=one, two=two, total=one + two))
    assert {c.name: c.sources for c in encoding.columns if c.sources} == {"total": ["one", "two"]}


@pytest.mark.parametrize(("decimals", "comma"), [(0, False), (2, False), (2, True)])
def test_a_total_of_several_columns_is_computed(decimals, comma):
    """To the cent, although 0.1 + 0.2 is not 0.3 in binary; and so is what contains a subtotal."""
    r = np.random.default_rng(4)
    a, b, c, d = r.integers(0, 9000, (4, N)) * (1 if decimals else 100)
    parts = {"all": a + b + c + d, "total": a + b + c, "a": a, "b": b, "c": c, "d": d, "again": d}
    texts = {n: [f"{v / 100:.{decimals}f}" for v in x.tolist()] for n, x in parts.items()}
    if comma:
        texts = {n: [t.replace(".", ",") for t in x] for n, x in texts.items()}
    table = table_of(**texts)
    encoding = encoding_of(table)
    assert {c.name: c.sources for c in encoding.columns if c.sources} == {
        "all": ["a", "b", "c", "d"],
        "total": ["a", "b", "c"],
        "again": ["d"],
    }
    made = encoding.texts(encoding.codes(table), r.random((N, len(encoding.coded))))
    for row in range(N):
        number = {n: round(100 * float(v.text(row).replace(",", "."))) for n, v in made.items()}
        assert number["total"] == number["a"] + number["b"] + number["c"]
        assert number["all"] == number["total"] + number["d"]
        assert made["again"].text(row) == made["d"].text(row)
    if decimals:
        assert {t[-3] for t in made["total"].texts} == {"," if comma else "."}


def test_differences_of_several_columns_are_computed():
    r = np.random.default_rng(5)
    a, b, c = r.integers(0, 300, (3, N))
    columns = encoding_of(table_of(left=a - b - c, a=a, b=b, c=c)).columns
    assert [c.reason for c in columns if c.sources] == ["left + b + c in every row; computed"]


def test_a_formula_that_few_rows_fit_by_chance_is_none():
    few = RANDOM.integers(1, 4, (12, 30))
    columns = {f"q{i}": [*x[:6], *x[:6]] for i, x in enumerate(few.T)}
    assert not [c.reason for c in encoding_of(table_of(**columns)).columns if c.sources]


def test_what_is_missing_of_a_total_is_computed():
    a, b, c = RANDOM.integers(1, 90, (3, N))
    encoding = encoding_of(table_of(a=a, b=b, c=c, total=a + b + c, area=a * b))
    gaps = table_of(
        a=[5, None, None, 5, None], b=[None, 7, None, 7, 2], c=[3, 3, 3, None, 3],
        total=[60, 60, 60, 9999, None], area=[None, None, None, None, 30],
    )  # fmt: skip
    found = solved(encoding.columns, gaps).columns
    assert [found["b"].text(i) for i in range(5)] == ["52", "7", None, "7", "2"]
    assert [found["a"].text(i) for i in range(5)] == ["5", "50", None, "5", "15"]
    assert found["c"].text(3) is None  # no such value was ever seen


def test_what_chance_brings_about_determines_nothing():
    # two of 200 are ill, each in a town of its own
    ill = ["no"] * (N - 2) + ["yes"] * 2
    towns = [*RANDOM.choice(TOWNS, N - 2), "Xanten", "Zons"]
    encoding = encoding_of(table_of(town=towns, ill=ill))
    assert [c.type for c in encoding.columns] == ["category", "yes/no"]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"agee": Wish(type="number")}, ["'agee'", "did you mean 'age'"]),
        ({"town": Wish(type="number")}, ["town", "asked for as a number", "it holds"]),
        ({"town": Wish(type="yes/no")}, ["town", "different values"]),
        ({"town": Wish(type="date")}, ["no form of dates"]),
        ({"town": Wish(type="ordered", levels=["Altau"])}, ["order of levels in columns.yaml"]),
        ({"town": Wish(type="left out"), "age": Wish(type="left out")}, ["no column is left"]),
    ],
)
def test_wishes_that_cannot_be_fulfilled(wishes, words):
    table = table_of(town=FOUND["category"], age=FOUND["whole number"])
    with pytest.raises(UserError) as error:
        encoding_of(table, **wishes)
    for word in words:
        assert word in str(error.value)


def test_a_postal_code_is_no_number_and_a_number_may_be_a_category():
    codes = [f"0{i % 9}{i % 7}" for i in range(N)]
    table = table_of(zip=codes, size=RANDOM.integers(36, 47, N))
    encoding = encoding_of(table, size=Wish(type="category"))
    assert [c.type for c in encoding.columns] == ["category", "category"]
    assert [t[0] for t in encoding.columns[1].texts] == [str(i) for i in range(36, 47)]


def test_columns_yaml_says_it_all_and_is_taken_up(tmp_path):
    grade = RANDOM.choice(["good", "no", "fair", "12", "true"], N)
    table = table_of(grade=grade, **{"on: off": FOUND["number"]}, x=FOUND["constant"])
    encoding = encoding_of(table)
    path = tmp_path / "columns.yaml"
    path.write_bytes(description.write(encoding, "t.csv: ...", "200 rows", "prepare t.csv x", 40))
    again = encoding_of(table, **description.read(path))
    assert [c.texts for c in again.columns] == [c.texts for c in encoding.columns]
    order = '["no", fair, good, 12, "true"]'
    text = path.read_text().replace("type: category", "type: ordered", 1)
    text = text.replace('[12, fair, good, "no", "true"]', order)
    path.write_text(text)
    changed = encoding_of(table, **description.read(path)).columns[0]
    assert changed.type == "ordered"
    assert [t[0] for t in changed.texts] == ["no", "fair", "good", "12", "true"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n  type: numbr\n", [":2:", "'numbr' is no type", "whole number"]),
        ("a:\n  typ: number\n", [":2:", "'typ' is not known"]),
        ("a:\n  type: number\na:\n  type: date\n", [":3:", "second entry"]),
        ("a: number\n", [":1:", "type: ..."]),
        ("a:\n  bins: many\n", [":2:", "number of bins"]),
        ("a: [\n", ["columns.yaml"]),
    ],
)
def test_mistakes_in_columns_yaml(text, words, tmp_path):
    (tmp_path / "columns.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        description.read(tmp_path / "columns.yaml")
    for word in words:
        assert word in str(error.value)


def test_an_encoding_survives_as_plain_python():
    table = table_of(
        a=FOUND["category"], b=FOUND["number"], c=[None if i % 4 else "x" for i in range(N)]
    )
    encoding = encoding_of(table)
    again = Encoding.of_state(encoding.state())
    assert again.state() == encoding.state()
    assert (again.encode(table) == encoding.encode(table)).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(format_version=99),
        lambda s: s.update(columns=[]),
        lambda s: s["columns"][0].update(type="other"),
        lambda s: s["columns"][0].update(counts=[[0]]),
        lambda s: s["columns"][0].update(texts=[[1], [2]]),
        lambda s: s["columns"][0].update(surprise=1),
        lambda s: s["columns"].append(dict(s["columns"][0])),
        lambda s: s["columns"].append({"name": "d", "type": "determined", "sources": ["z"]}),
        lambda s: s["columns"].append({"name": "d", "type": "determined", "sources": ["a"]}),
    ],
)
def test_a_state_that_is_not_sound_is_refused(change):
    state = encoding_of(table_of(a=FOUND["category"])).state()
    change(state)
    with pytest.raises(ValueError, match=r".+"):
        Encoding.of_state(state)


def test_bits_that_are_no_code():
    table = table_of(a=[i % 3 for i in range(N)], b=[f"l{i % 4}" for i in range(N)])
    encoding = encoding_of(table)
    bits = np.array([[0, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]], np.uint8)
    assert encoding.codes_of_bits(bits).tolist() == [[-1, 0], [2, -1], [1, 3]]
