"""Tables as they are found: files and frames as columns of numbers or of text."""

import datetime

import numpy as np
import pytest

from pyrovae.base.errors import InputError
from pyrovae.data.tables import reading

pandas = pytest.importorskip("pandas")


def written(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def columns_of(table):
    return {raw.name: raw.cells.tolist() for raw in table.columns}


def test_csv_of_numbers_and_text(tmp_path):
    table = reading.read_table(written(tmp_path, "age;name; b \n1;x y;NA\n\n;NaN;2.5\n"))
    found = columns_of(table)
    assert found["name"] == ["x y", None] and np.isnan(found["age"][1]) and found["b"][1] == 2.5
    assert (table.name, table.rows.tolist()) == ("t.csv", [2, 4])
    assert [raw.missing.tolist() for raw in table.columns] == [[False, True], [False, True], [True, False]]


def test_csv_without_a_header(tmp_path):
    assert columns_of(reading.read_table(written(tmp_path, "1,2\n3,4\n"))) == {"column 1": [1, 3], "column 2": [2, 4]}


BAD = {
    "short row": ("a,b\n1,2\n3\n", "expected 2 cells in row 3, got 1"),
    "header only": ("a,b\n", "expected rows, got only a header"),
    "twice": ("a,b,a\n1,2,3\n", 't.csv: expected each column once, got "a" twice'),
    "empty": ("", "got an empty file"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        reading.read_table(written(tmp_path, text))


def frame():
    return pandas.DataFrame(
        {
            "real": [1.5, np.nan, 2.0],
            "whole": pandas.array([1, None, 3], dtype="Int64"),
            "text": ["a", None, "b"],
            "flag": [True, False, True],
            "size": pandas.Categorical(["big", None, "small"], categories=["small", "big"], ordered=True),
            "class": pandas.Categorical(["x", "y", None]),
            "code": pandas.Categorical([7, 5, 7]),
            "level": pandas.Categorical([3, 1, 3], ordered=True),
            "day": pandas.to_datetime(["2020-01-02", None, "2020-01-01"]),
        }
    )


def test_a_frame_of_pandas():
    table = reading.read_table(frame())
    found = columns_of(table)
    assert reading.is_frame(frame()) and table.rows.tolist() == [0, 1, 2]
    np.testing.assert_equal(found["real"], [1.5, np.nan, 2.0])
    np.testing.assert_equal(found["whole"], [1, np.nan, 3])
    assert found["text"] == ["a", None, "b"] and found["flag"] == [1, 0, 1]
    assert found["size"] == ["big", None, "small"] and table.column("size").levels == ("small", "big")
    assert found["class"] == ["x", "y", None] and table.column("class").levels == ()
    assert found["code"] == ["7", "5", "7"] and table.column("code").levels == ()
    assert found["level"] == ["3", "1", "3"] and table.column("level").levels == ("1", "3")
    assert found["day"][0] - found["day"][2] == 86400 and np.isnan(found["day"][1])


class Series:
    """A column as polars gives it."""

    def __init__(self, cells, dtype):
        self.cells, self.dtype = cells, dtype

    def to_list(self):
        return self.cells

    def to_numpy(self):
        return np.array(self.cells, "datetime64[us]")


class Enum:
    categories = ("low", "high")


class Frame(dict):
    """A frame as polars has it: names in ``columns``, a column by its name, and no index."""

    @property
    def columns(self):
        return list(self)

    @property
    def dtypes(self):
        return [column.dtype for column in self.values()]

    def __len__(self):
        return 2


def test_a_frame_of_polars_by_its_interface():
    day = Series([datetime.date(2020, 1, 1), datetime.date(2020, 1, 3)], "Date")
    polars = Frame(
        a=Series([1, None], "Int64"), b=Series(["x", None], "String"), c=Series(["low", "high"], Enum()), d=day
    )
    table = reading.read_table(polars)
    found = columns_of(table)
    np.testing.assert_equal(found["a"], [1, np.nan])
    assert found["b"] == ["x", None] and table.column("c").levels == ("low", "high")
    assert found["d"][1] - found["d"][0] == 2 * 86400


def test_polars_itself():
    polars = pytest.importorskip("polars")
    data = {"a": [1, None, 3], "b": ["x", None, "y"], "t": [datetime.datetime(2020, 1, d) for d in (1, 2, 3)]}
    table = reading.read_table(polars.DataFrame(data))
    found = columns_of(table)
    np.testing.assert_equal(found["a"], [1, np.nan, 3])
    assert found["b"] == ["x", None, "y"] and np.diff(found["t"]).tolist() == [86400, 86400]


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    source = frame().drop(columns=["level", "code"])  # of whole numbers: Parquet keeps these as numbers
    source.to_parquet(tmp_path / "t.parquet")
    ours, theirs = (columns_of(reading.read_table(each)) for each in (tmp_path / "t.parquet", source))
    np.testing.assert_equal(ours, theirs)


def test_parquet_that_cannot_be_read(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"t.parquet: (to read Parquet takes pyarrow|expected a whole Parquet file)"):
        reading.read_table(tmp_path / "t.parquet")


def test_frames_that_are_no_table():
    twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(InputError, match='the frame: expected each column once, got "a" twice'):
        reading.read_table(twice)
    with pytest.raises(InputError, match='"a" holds neither numbers nor text but object'):
        reading.read_table(pandas.DataFrame({"a": [[1], [2]]}))
    with pytest.raises(InputError, match="expected rows and columns, got 0 x 1"):
        reading.read_table(pandas.DataFrame({"a": []}))


def test_what_is_a_table():
    assert reading.is_table("a/b.CSV") and reading.is_table("x.parquet") and reading.is_table(frame())
    assert not any(map(reading.is_table, ("digits", "rows.npy", np.zeros((2, 2)), [1])))


def test_rows_are_named_as_their_source_counts_them(tmp_path):
    table = reading.read_table(written(tmp_path, "a\n1\n2\n3\n"))
    assert table.place(np.array([False, True, False])) == "row 3"
    assert table.place(np.array([False, True, True])) == "2 rows, the first is row 3"
