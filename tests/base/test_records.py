"""Every result is a record: an account in four forms, and files that give it back bit for bit or say what is wrong."""

import functools
import html
import json
import math
import sys
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from examples.pages import read
from examples.records import every_record
from torch import Tensor

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record
from pyrovae.reports.html.findings import ranked
from pyrovae.reports.html.sections import kind_of

EVERY = every_record()
pytestmark = [
    pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior"),
    pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedEvidence"),
]


@functools.cache
def made(name):
    return EVERY[name]()


@pytest.fixture(params=EVERY)
def record(request):
    return made(request.param)


def assert_same(a, b, where=""):
    """Both are of one type, with the same bits in every field."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape, where
        assert a.numpy().tobytes() == b.numpy().tobytes() or torch.equal(a.isnan(), b.isnan()), where
        assert torch.equal(a[a == a], b[b == b]), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for name in a:
            assert_same(a[name], b[name], f"{where}/{name}")
    elif is_dataclass(a):
        for one in fields(a):
            assert_same(getattr(a, one.name), getattr(b, one.name), f"{where}/{one.name}")
    elif isinstance(a, tuple | list):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}/{i}")
    else:
        assert a == b or (a != a and b != b), where


# ------------------------------------------------------------------------------------ every record


def test_every_kind_of_record_is_here():
    kinds = {type(made(name)).__name__ for name in EVERY}
    assert kinds == {kind.__name__ for kind in Record.__subclasses__() if kind.__module__.startswith("pyrovae.")}


def test_the_account_as_text(record):
    text = record.summary()
    assert str(record) == text and len(text) > 40 and "object at 0x" not in text and "nan" not in text


def test_it_is_named_on_one_line(record):
    assert repr(record).startswith(f"{type(record).__name__}(") and repr(record).endswith(")")
    assert "\n" not in repr(record)


def test_columns_of_one_length(record):
    table = record.table()
    assert table and all(isinstance(column, Tensor) and column.dim() == 1 for column in table.values())
    assert len({len(column) for column in table.values()} | ({len(record.row_names())} - {0})) == 1


def test_plain_values_for_json(record):
    values = record.to_dict()
    assert values and json.loads(record.to_json()) == json.loads(json.dumps(values, allow_nan=False))


def test_a_frame_is_the_table(record):
    frame = record.to_dataframe()
    assert list(frame.columns) == list(record.shown()) and record.shown().keys() >= record.table().keys()
    for name, column in record.shown().items():
        if words := record.categories.get(name):
            assert list(frame[name]) == [words[int(code)] for code in column.tolist()]
        else:
            assert_same(torch.tensor(frame[name].to_numpy()), column)
    assert not record.row_names() or list(frame.index) == list(record.row_names())


def test_a_frame_of_polars_gets_the_same_columns(record, monkeypatch):
    """By its interface, a dict of columns; by polars itself where that is installed."""
    if not find_spec("polars"):
        monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=lambda columns: columns))
    frame, pandas = record.to_dataframe("polars"), record.to_dataframe()
    names = list(record.row_names())
    assert list(frame if isinstance(frame, dict) else frame.columns) == ["name"] * bool(names) + list(pandas.columns)
    assert not names or list(frame["name"]) == names
    for name in pandas.columns:
        assert np.array_equal(np.array(frame[name]), pandas[name].to_numpy(), equal_nan=pandas[name].dtype == float)


def test_a_datatree_holds_the_table_and_the_protocol(record):
    tree = record.to_datatree()
    assert tree.attrs["record"] == type(record).__name__
    if protocol := getattr(record, "protocol", None):
        assert json.loads(tree.attrs["protocol"]) == protocol.to_dict()
    if isinstance(record, pv.Draws):
        assert "posterior" in tree
        return
    found = tree["constant_data"].dataset
    for name, column in record.table().items():
        words = record.categories.get(name)
        expected = [words[int(code)] for code in column.tolist()] if words else column.numpy()
        assert list(found[name].values) == list(expected) or np.array_equal(found[name], expected, equal_nan=True)


def test_shown_in_a_notebook(record):
    shown = record._repr_html_()
    assert "<script" not in shown and "<b>" not in shown
    for line in record.summary().splitlines():
        for word in line.split():
            assert html.escape(word) in shown
    assert shown.count("<table>") == sum(isinstance(part, TextTable) for part in record.lines())


def test_it_is_a_page_by_itself_with_its_findings(record):
    reader = read(record.to_html())
    assert len(set(reader.ids)) == len(reader.ids) and set(reader.targets) <= set(reader.ids)
    for found in ranked([record]):
        assert found.section == kind_of(record).key and found.sentence and "nan" not in found.sentence
        assert found.nats is None or found.nats >= 0  # infinite: unknown


def test_saved_and_loaded(record, tmp_path):
    record.save(tmp_path / "record.json")
    assert_same(record, type(record).load(tmp_path / "record.json"))
    assert {path.suffix for path in tmp_path.iterdir()} - {".safetensors"} == {".json", ".csv"}
    saved = json.loads((tmp_path / "record.json").read_text())
    assert saved.pop("record")["kind"] == type(record).__name__
    assert saved == json.loads(record.to_json())


def test_anything_altered_is_refused(record, tmp_path):
    path = tmp_path / "record.json"
    record.save(path)
    for file in tmp_path.iterdir():
        whole = file.read_bytes()
        for place in (len(whole) // 3, 2 * len(whole) // 3):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(InputError, match=r"record\.json: (altered since it was written|not a|holds a)"):
                type(record).load(path)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"record\.json"):
            type(record).load(path)
        file.unlink()
        with pytest.raises(
            InputError, match=r"record\.json: there is no (such file|file beside it that ends in \.(csv|safetensors))$"
        ):
            type(record).load(path)
        file.write_bytes(whole)
    type(record).load(path)


# ---------------------------------------------------------------------------------- what is refused


def changed(path, **changes):
    """The files of a record whose JSON says something else of itself."""
    account = json.loads(path.read_text())
    account["record"] |= changes
    path.write_text(json.dumps(account))


def test_another_kind_of_record(tmp_path):
    made("report").save(tmp_path / "r.json")
    with pytest.raises(InputError, match=r"r\.json: holds a Report, not a Comparison; load it with Report\.load"):
        type(made("comparison")).load(tmp_path / "r.json")


def test_a_newer_format(tmp_path):
    made("report").save(tmp_path / "r.json")
    changed(tmp_path / "r.json", format=99)
    with pytest.raises(InputError, match=r"r\.json: has format 99, this version reads up to 1; update pyrovae"):
        pv.Report.load(tmp_path / "r.json")


def test_a_record_of_before_records_said_what_they_are(tmp_path):
    gaps = made("gaps")
    (tmp_path / "g.json").write_text(gaps.to_json())
    (tmp_path / "g.csv").write_text(gaps.to_csv())
    with pytest.raises(InputError, match=r"g\.json: not a Gaps that pyrovae saved .*does not say of what"):
        type(gaps).load(tmp_path / "g.json")


def kept(**more):
    """A kind of record with a column, and with more fields."""

    def numbers(self):
        return {"mean": float(self.column.mean())}

    methods = {"numbers": numbers, "lines": lambda self: ["kept"], "table": lambda self: {"column": self.column}}
    names = [("column", Tensor), *more.values()]
    return make_dataclass("Kept", names, bases=(Record,), namespace=methods, frozen=True, eq=False, repr=False)


def test_what_an_older_version_did_not_keep_has_its_default_or_is_named():
    files = kept()(torch.arange(3.0).double()).to_files()
    newer = kept(start=("start", str, field(default="guide")))
    assert newer.from_files(files, "k").start == "guide"
    with pytest.raises(InputError, match="k: saved by an older version, without skewness: measure it again"):
        kept(skewness=("skewness", float)).from_files(files, "k")


@pytest.mark.parametrize("suffix", [".csv", ".safetensors"])
def test_names_that_belong_to_the_files_beside_it(suffix, tmp_path):
    for use in (made("report").save, pv.Report.load):
        with pytest.raises(InputError, match=rf"r\{suffix}: .* give the record another, such as r\.json"):
            use(tmp_path / f"r{suffix}")


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        pv.Report.load(tmp_path)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_needs_its_library(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"to_dataframe\(\) needs {library}: pip install {library}"):
        made("report").to_dataframe(library)


def test_a_frame_of_another_library():
    with pytest.raises(InputError, match="library is one of pandas, polars, got 'dask'"):
        made("report").to_dataframe("dask")


# -------------------------------------------------------------------------------- a record by hand


@dataclass(frozen=True, eq=False, repr=False)
class Toy(Record):
    """A record with whatever a field may hold."""

    column: Tensor
    matrix: Tensor
    by_name: dict[str, Tensor]
    number: float
    some: tuple[float, ...]
    none: float | None
    words: dict[str, str]

    def lines(self):
        return ["<script>alert(1)</script> & more", TextTable([("a<b", "<9", ""), ("x", ">6", ".1f")], [("<i>", 1.0)])]


TOY = Toy(
    column=torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1 / 3], dtype=torch.float64),
    matrix=torch.tensor([[math.nan, 1.0], [-math.inf, 2.0]]),
    by_name={"n": torch.tensor([1, 2, 3]), "flags": torch.tensor([True, False]), "scalar": torch.tensor(2.5)},
    number=-math.inf,
    some=(1.0, math.nan, 1e-300),
    none=None,
    words={"a": "b, \"c\"\n'd'", "tensor": "é"},
)


def test_whatever_a_field_holds_comes_back(tmp_path):
    TOY.save(tmp_path / "toy.json")
    back = Toy.load(tmp_path / "toy.json")
    assert_same(TOY, back)
    assert math.copysign(1, back.column[3].item()) == -1
    assert (
        back.to_dict()
        == TOY.to_dict()
        == {"number": None, "some": [1.0, None, 1e-300], "none": None, "words": TOY.words}
    )


def test_a_table_is_the_fields_that_are_columns():
    assert list(TOY.table()) == ["column"]


def test_text_is_escaped():
    shown = TOY._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in shown and "<td>a&lt;b</td>" in shown
    assert "<script" not in shown and "<i>" not in shown
