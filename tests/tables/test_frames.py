"""Any table that pandas can make goes in and comes back: columns, types, levels, gaps."""

import datetime as dt
import io
import string
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pandas = pytest.importorskip("pandas")

from bernoulli_diffusion.system.errors import UserError  # noqa: E402
from bernoulli_diffusion.tables import reading, writing  # noqa: E402
from bernoulli_diffusion.tables.frames import read_frame  # noqa: E402
from bernoulli_diffusion.tables.planning import plan  # noqa: E402
from bernoulli_diffusion.tables.table import Values  # noqa: E402


def there_and_back(frame):
    """frame -> bits -> frame, and the Encoding."""
    table = read_frame(frame)
    encoding = plan(table, np.ones(len(table), bool))
    codes = encoding.codes_of_bits(encoding.encode(table))
    columns = encoding.texts(codes, np.random.default_rng(0).random(codes.shape))
    return writing.to_frame(columns, encoding), encoding


TEXT = st.text(string.printable + "äß€漢", min_size=1, max_size=6)
TIMES = st.datetimes(pandas.Timestamp("1900-01-01"), pandas.Timestamp("2100-01-01"))
ELEMENTS = {
    "bool": st.booleans(),
    "boolean": st.booleans() | st.none(),
    "int64": st.integers(-(2**62), 2**62),
    "uint8": st.integers(0, 255),
    "Int16": st.integers(-(2**15), 2**15 - 1) | st.none(),
    "float64": st.floats(allow_infinity=True, allow_nan=True),
    "float32": st.floats(allow_nan=True, width=32),
    "Float64": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    "complex128": st.complex_numbers(allow_nan=False, allow_infinity=False, max_magnitude=1e6),
    "object": TEXT | st.none(),
    "string": TEXT | st.none(),
    "mixed": TEXT | st.integers(-9, 9) | st.booleans() | st.none(),
    "category": st.sampled_from(["low", "mid", "high"]) | st.none(),
    "ordered": st.sampled_from(["low", "mid", "high"]) | st.none(),
    "numbered": st.sampled_from([3, 1, 7]) | st.none(),
    "datetime64[ns]": TIMES | st.none(),
    "datetime64[us, Europe/Berlin]": TIMES | st.none(),
    "timedelta64[ns]": st.timedeltas(pandas.Timedelta(days=-9), pandas.Timedelta(days=9))
    | st.none(),
    "period[M]": TIMES | st.none(),
}
LEVELS = {"category": ["mid", "low", "high", "never"], "ordered": ["low", "mid", "high", "top"]}


def as_series(kind: str, values: list):
    if kind == "mixed":
        return pandas.Series(values, dtype="object")
    if kind in LEVELS:
        return pandas.Series(pandas.Categorical(values, LEVELS[kind], ordered=kind == "ordered"))
    if kind == "numbered":
        return pandas.Series(pandas.Categorical(values, [1, 3, 7]))
    if kind.startswith("datetime64[us"):
        times = pandas.Series(pandas.to_datetime(pandas.Series(values, dtype="datetime64[us]")))
        return times.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    if kind == "period[M]":
        times = pandas.Series(values, dtype="datetime64[us]")
        return times.dt.to_period("M")
    return pandas.Series(values, dtype=kind)


@st.composite
def frames(draw, rows):
    n = draw(rows)
    kinds = draw(st.lists(st.sampled_from(list(ELEMENTS)), min_size=1, max_size=5))
    names = draw(
        st.lists(TEXT | st.integers(-5, 5), min_size=len(kinds), max_size=len(kinds), unique_by=str)
    )
    columns = {"is it": pandas.Series(np.arange(n) % 2 == 0)}
    for name, kind in zip(names, kinds, strict=True):
        few = draw(st.lists(ELEMENTS[kind], min_size=1, max_size=6))
        values = draw(st.lists(st.sampled_from(few), min_size=n, max_size=n))
        columns[name] = as_series(kind, values)
    return pandas.DataFrame(columns)


SLOWLY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@SLOWLY
@given(frames(st.integers(3, 25)))
def test_any_table_comes_back(frame):
    back, _ = there_and_back(frame)
    pandas.testing.assert_frame_equal(back, frame)


def test_ids_are_left_out_and_bins_keep_their_range():
    r = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "key": [f"k{i:05d}" for i in r.permutation(400)],
            "x": np.where(r.random(400) < 0.1, np.nan, r.normal(size=400)),
            "when": pandas.Timestamp("2020-01-01")
            + pandas.to_timedelta(r.integers(0, 10**6, 400), "s"),
        }
    )
    back, encoding = there_and_back(frame)
    assert list(back) == ["x", "when"]
    assert (back.dtypes == frame.dtypes[["x", "when"]]).all()
    assert (back.isna() == frame[["x", "when"]].isna()).all(axis=None)
    assert set(back.x.dropna()) <= set(frame.x)
    assert set(back.when) <= set(frame.when)
    assert np.corrcoef(back.x.dropna(), frame.x.dropna())[0, 1] > 0.99
    assert [c.type for c in encoding.columns] == ["left out", "number", "date"]


def test_parquet_there_and_back(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {"a": [1, 2, 3, 1], "b": ["x", None, "y", "x"], "c": [True, False] * 2}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    table = reading.read(tmp_path / "t.parquet")
    encoding = plan(table, np.ones(4, bool))
    codes = encoding.codes_of_bits(encoding.encode(table))
    stream = io.BytesIO()
    writing.to_parquet(encoding.texts(codes, np.zeros(codes.shape)), encoding, stream)
    back = pandas.read_parquet(io.BytesIO(stream.getvalue()))
    pandas.testing.assert_frame_equal(back, pandas.read_parquet(tmp_path / "t.parquet"))


def test_parquet_of_other_tools_there_and_back(tmp_path):
    """Types that pandas keeps as objects, whole numbers with gaps, and columns kept as an index."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    days = [dt.date(2020, 1, 1 + i % 28) for i in range(60)]
    columns = {
        "day": pyarrow.array(days),
        "at": pyarrow.array([dt.time(i % 24, 5) for i in range(60)]),
        "price": pyarrow.array([Decimal("1.50") * (i % 40) for i in range(60)]),
        "count": pyarrow.array([None if i % 3 == 0 else i % 7 for i in range(60)], "uint8"),
        "half": pyarrow.array(np.arange(60).astype(np.float16) / 8),
        "nothing": pyarrow.nulls(60),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = reading.read(tmp_path / "t.parquet")
    encoding = plan(table, np.ones(60, bool))
    kinds = ["date", "date", "number", "whole number", "number", "constant"]
    assert [c.type for c in encoding.columns] == kinds
    codes = encoding.codes(table)
    stream = io.BytesIO()
    writing.to_parquet(encoding.texts(codes, np.zeros(codes.shape)), encoding, stream)
    back = parquet.read_table(io.BytesIO(stream.getvalue()))
    assert back["day"].to_pylist() == days
    assert back["price"].to_pylist() == columns["price"].to_pylist()
    assert back["count"].to_pylist() == columns["count"].to_pylist()
    frame = pandas.DataFrame({"x": [1, 2, 3]}, index=pandas.Index(["DE", "FR", "IT"], name="land"))
    frame.to_parquet(tmp_path / "indexed.parquet")
    assert list(reading.read(tmp_path / "indexed.parquet").columns) == ["land", "x"]


def test_what_parquet_cannot_hold_is_told():
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"z": [1 + 2j, 3j, 2.0], "a": ["x", "y", "z"]})
    encoding = plan(read_frame(frame), np.ones(3, bool))
    made = encoding.texts(np.zeros((3, 2), int), np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"no room for this: .*; write a \.csv"):
        writing.to_parquet(made, encoding, io.BytesIO())


def test_numbers_of_a_csv_are_numbers_in_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    lines = (
        "n;x;zip;t;big;euro",
        "1;0.5;01234;a;9007199254740993;1,25",
        ";−2;01235;b;7;3",
        "3;;01234;a;7;4,5",
    )
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table = reading.read(tmp_path / "t.csv")
    encoding = plan(table, np.ones(3, bool))
    stream, codes = io.BytesIO(), encoding.codes(table)
    writing.to_parquet(encoding.texts(codes, np.zeros(codes.shape)), encoding, stream)
    back = pandas.read_parquet(io.BytesIO(stream.getvalue()))
    kinds = {n: str(back[n].dtype) for n in ("n", "x", "big", "euro")}
    assert kinds == {"n": "Int64", "x": "Float64", "big": "Int64", "euro": "Float64"}
    assert back.euro.tolist() == [1.25, 3, 4.5]
    assert back.big.tolist() == [9007199254740993, 7, 7]
    assert back.x.dropna().tolist() == [0.5, -2]
    assert back.zip.tolist() == ["01234", "01235", "01234"]
    assert back.n.isna().tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["#", "# a", "\ufeff", 'a "b"', "a\nb", ""])
def test_names_of_any_kind_are_read_again(name, tmp_path):
    columns = {name: Values.of("xyx"), "n": Values.of("123")}
    form = {"separator": ";", "header": True}
    (tmp_path / "t.csv").write_bytes(writing.to_text(columns, form, True))
    table = reading.read(tmp_path / "t.csv")
    assert list(table.columns) == [name, "n"]
    assert len(table) == 3


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pandas.DataFrame({"a": []}), "0 rows"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
        (pandas.DataFrame({"a": [[1], [2]]}), "take this column out"),
        (pandas.DataFrame({("a", "b"): [1, 2]}), "have levels"),
        (pandas.DataFrame({"a": pandas.Series([1, {2}], dtype=object)}), "a: holds lists"),
        (pandas.DataFrame({pandas.Timestamp("2020"): [1, 2]}), "is a Timestamp; make the names"),
    ],
)
def test_frames_that_are_no_tables(frame, words):
    with pytest.raises(UserError, match=words):
        read_frame(frame)
