"""A table as a data set: labels, scales of the training rows alone, Jacobians, covariates, and later rows."""

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.data import Protocol, as_split, load, load_like
from pyrovae.data.tables.assembly import TableOptions, table_dataset
from pyrovae.data.tables.reading import Raw, Table
from pyrovae.evidence.comparisons.paired import compare
from pyrovae.evidence.evaluate import evaluate

pandas = pytest.importorskip("pandas")


def frame(num_rows=200, seed=0):
    rng = np.random.RandomState(seed)
    found = pandas.DataFrame(
        {
            "real": 50 + 7 * rng.randn(num_rows),
            "sugar": np.exp(2 + rng.randn(num_rows)),
            "visits": rng.poisson(3.0, num_rows),
            "colour": rng.choice(["red", "blue", "green"], num_rows),
            "answer": rng.randint(1, 6, num_rows),
            "part": rng.uniform(0.05, 0.95, num_rows),
            "age": rng.uniform(20, 60, num_rows),
            "smokes": rng.choice(["no", "yes"], num_rows),
            "person": np.arange(num_rows) // 5,
        }
    )
    found.loc[3:20, "real"] = np.nan
    found.loc[10:30, "answer"] = np.nan
    return found


KINDS = {"sugar": "positive", "answer": "ordinal", "part": "proportion", "person": "ignored"}
OPTIONS = {"columns": KINDS, "covariates": ["age", "smokes"]}


def splits(dataset):
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


def test_a_table_of_every_kind():
    data = load(frame(), **OPTIONS)
    assert [(one.name, one.kind) for one in data.columns] == [
        ("real", "real"),
        ("sugar", "positive"),
        ("visits", "count"),
        ("colour", "categorical"),
        ("answer", "ordinal"),
        ("part", "proportion"),
    ]
    assert data.columns["colour"].labels == ("blue", "green", "red") and len(data.columns["answer"].labels) == 5
    assert [(one.name, one.kind, one.labels) for one in data.covariates] == [
        ("age", "real", ()),
        ("smokes", "binary", ("no", "yes")),
    ]
    assert (data.kind, data.maximum, data.name, data.shape) == ("table", None, "the frame", torch.Size([6]))
    assert [len(split) for split in splits(data).values()] == [160, 20, 20]
    for split in splits(data).values():
        x, covariates = split.tensors
        assert x.dtype == covariates.dtype == torch.float32 and covariates.shape == (len(split), 2)
        assert split.protocol.seed == 0


def test_scales_are_those_of_the_training_rows_alone():
    data = load(frame(), **OPTIONS)
    x, covariates = data.train.tensors
    assert x[:, 0].nanmean().abs() < 1e-5 and abs(np.nanstd(x[:, 0]) - 1) < 1e-5
    assert x[:, 1].log().mean().abs() < 1e-5 and covariates[:, 0].mean().abs() < 1e-5
    assert data.test.x[:, 0].nanmean().abs() > 1e-3
    assert set(x[:, 3].tolist()) == {0.0, 1.0, 2.0} and x[:, 2].max() > 5


def test_every_value_comes_back_in_its_unit():
    source = frame()
    data = load(source, **{**OPTIONS, "covariates": ["age", "person"], "columns": {**KINDS, "person": "count"}})
    for split in splits(data).values():
        x, covariates = split.tensors
        ages = data.covariates.decoded(covariates)["age"]
        rows = [int((source.age - age).abs().argmin()) for age in ages]
        decoded = data.columns.decoded(x)
        for name in ("real", "sugar", "visits", "part"):
            np.testing.assert_allclose(np.array(decoded[name], float), source[name].iloc[rows], rtol=1e-5)
        assert decoded["colour"] == source.colour.iloc[rows].tolist()
        answers = [None if math.isnan(answer) else f"{answer:g}" for answer in source.answer.iloc[rows]]
        assert decoded["answer"] == answers


def test_the_jacobian_takes_densities_back_where_values_are_missing():
    source, options = frame()[["real", "sugar", "visits", "person"]], {"columns": {"sugar": "positive"}}
    served, found = (load(source, **options, standardize=flag) for flag in (True, False))
    assert found.train.protocol.log_jacobian == 0.0 and found.columns.scale == (1.0,) * 4
    for part, split in splits(served).items():
        other = splits(found)[part]
        protocol, real, sugar = split.protocol, *served.columns.kinds[:2]
        assert protocol.source_sha256 == other.protocol.sha256 == as_split(split.source).protocol.sha256
        assert protocol.sha256 == as_split(split.x).protocol.sha256
        wide = torch.distributions.Normal(real.shift, real.scale, validate_args=False).log_prob(other.x[:, 0]).nansum()
        unit = torch.distributions.Normal(0.0, 1.0, validate_args=False).log_prob(split.x[:, 0]).nansum()
        long = torch.distributions.Exponential(1 / sugar.scale).log_prob(other.x[:, 1]).sum()
        short = torch.distributions.Exponential(1.0).log_prob(split.x[:, 1]).sum()
        jacobian = ((wide + long) - (unit + short)) / len(split)
        assert protocol.log_jacobian == pytest.approx(float(jacobian), rel=1e-5)


def test_units_make_no_difference_where_values_are_missing():
    """One density, of standard scores and of values as found: no datum's evidence differs, and no error is left."""
    rng = np.random.RandomState(1)
    frame = pandas.DataFrame(rng.randn(400, 3) * [0.1, 1.0, 50.0] + [3.0, 0.0, -20.0], columns=list("abc"))
    frame = frame.mask(rng.rand(400, 3) < 0.3)
    reports = {}
    for standardize in (True, False):
        test = load(frame, standardize=standardize).test
        shift, scale = (torch.tensor(each) for each in (test.protocol.shift, test.protocol.scale))
        loc, sd = torch.tensor([3.0, 0.0, -20.0]), torch.tensor([0.1, 1.0, 50.0])
        if standardize:
            loc, sd = (loc - shift) / scale, sd / scale

        def model(x, loc=loc, sd=sd):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                seen = ~x.isnan()
                pyro.sample("x", dist.Normal(loc, sd).expand([len(x), 3]).mask(seen).to_event(1), obs=x.nan_to_num())

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

        reports[f"standardize={standardize}"] = evaluate(model, guide, test, num_particles=30, progress=False)
    row = compare(reports).rows[1]
    assert abs(row.difference) < 1e-4 and row.difference_se < 1e-5
    errors = [row.data_se for row in compare(reports).rows]
    assert errors[0] == pytest.approx(errors[1], rel=1e-5)


def test_a_part_of_a_split_keeps_scales_and_has_its_own_jacobian():
    train = load(frame(), **OPTIONS).train
    some = train[:40]
    assert some.protocol.scale == train.protocol.scale and some.protocol.shift == train.protocol.shift
    assert some.protocol.source_sha256 == as_split((some.source, some.tensors[1])).protocol.sha256
    seen = (~some.x.isnan()).double().mean(0)
    expected = -float(seen @ torch.tensor(train.protocol.scale).double().log())
    assert some.protocol.log_jacobian == pytest.approx(expected) != train.protocol.log_jacobian


def test_the_protocol_survives_json_and_reads_as_one_line():
    protocol = load(frame(), **OPTIONS).test.protocol
    assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol
    rescaled = f"2 of 6 columns rescaled (log Jacobian {protocol.log_jacobian:.3f})"
    assert str(protocol) == f"the frame test: 20 data, {rescaled}, seed 0, sha256 {protocol.sha256[:8]}"
    plain = load("digits").test.protocol
    assert not {"shift", "scale"} & set(plain.to_dict()) and Protocol.from_dict(plain.to_dict()) == plain


def test_masses_alone_have_a_maximum_and_nothing_to_rescale():
    data = load(frame()[["visits", "colour"]])
    assert (data.maximum, data.train.source, data.train.protocol.scale) == (int(frame().visits.max()), None, ())


def test_a_column_has_the_same_source_whatever_its_kind():
    source, kinds = frame()[["answer", "visits"]], ("ordinal", "categorical", "count", "real")
    found = [load(source, columns={"answer": kind}).test for kind in kinds]
    assert len({split.protocol.source_sha256 for split in found}) == 1
    assert len({split.protocol.sha256 for split in found}) == 3  # ordinal and categorical are coded alike
    assert found[0].protocol.log_jacobian == found[2].protocol.log_jacobian == 0.0
    answers = found[0].source[:, 0]
    assert sorted(set(answers[~answers.isnan()].tolist())) == [1, 2, 3, 4, 5] and found[0].x.nan_to_num().max() >= 4


def test_groups_and_times():
    source = frame()
    source["day"] = np.arange(200.0)[::-1]
    data = load(source, columns={**KINDS, "person": "count", "day": "count"}, group="person", covariates=["day"])
    people = [{round(day) // 5 for day in data.covariates.decoded(s.tensors[1])["day"]} for s in splits(data).values()]
    assert sum(map(len, people)) == 40 and "person" not in data.columns.names
    data = load(source, columns={**KINDS, "day": "count"}, time="day", covariates=["day"])
    days = [data.covariates.decoded(split.tensors[1])["day"] for split in splits(data).values()]
    assert max(days[0]) < min(days[1]) and max(days[1]) < min(days[2])
    assert data.train.protocol.seed is None and "day" not in data.columns.names


def test_later_rows_are_coded_and_scaled_as_the_first(tmp_path):
    data = load(frame(), **OPTIONS)
    later = load_like(frame(seed=1).assign(more=1.0), data)
    assert len(later) == 200 and later.protocol.split == "all" and later.protocol.scale == data.train.protocol.scale
    np.testing.assert_allclose(np.array(data.columns.decoded(later.x)["real"], float), frame(seed=1)["real"], rtol=1e-5)
    again = load_like(frame(), data)
    assert again.protocol.log_jacobian != 0.0 and again.tensors[1].shape == (200, 2)
    with pytest.raises(InputError, match='unknown label "pink" of the categorical column "colour" in row 7'):
        load_like(frame().assign(colour=["red"] * 7 + ["pink"] + ["blue"] * 192), data)
    with pytest.raises(InputError, match='expected the column "sugar" among its columns'):
        load_like(frame().drop(columns="sugar"), data)
    with pytest.raises(InputError, match="digits: expected a data set from a table"):
        load_like(frame(), load("digits"))


def test_a_csv_and_a_frame_give_the_same_rows(tmp_path):
    frame().to_csv(tmp_path / "the frame", index=False)
    (tmp_path / "the frame").rename(tmp_path / "t.csv")
    ours, theirs = load(tmp_path / "t.csv", **OPTIONS), load(frame(), **OPTIONS)
    assert ours.name == "t.csv" and ours.train.protocol.sha256 == theirs.train.protocol.sha256
    assert ours.columns == theirs.columns


def test_a_table_is_printed_with_its_kinds():
    text = str(load(frame(), **OPTIONS))
    assert text.startswith("Dataset(the frame: columns 1 real, 1 positive, 1 count, 1 categorical, 1 ordinal, ")
    assert "covariates\n" in text and "blue, green, red (found)" in text and "1 < 2 < 3 < 4 < 5" in text
    assert str(load("digits")) == repr(load("digits"))


BAD = {
    "covariate missing": ({"covariates": ["real"]}, 'the covariate "real" is missing in 18 rows, the first is row 3'),
    "covariate not there": ({"covariates": ["agee"]}, 'expected the covariate "agee" .*; did you mean "age"'),
    "covariate ignored": ({"covariates": ["person"], "columns": KINDS}, '"person" is both a covariate and ignored'),
    "nothing observed": ({"columns": {"*": "ignored"}}, "expected at least one column that is observed, got none"),
    "two ways to split": ({"group": "person", "time": "age"}, "expected a split by group or by time, got both"),
    "text as real": ({"columns": {"colour": "real"}}, '"colour" was declared real, but is text'),
    "constant": ({"columns": {"one": "real"}}, '"one" is constant: it holds 1 alone'),
    "mmap": ({"mmap": True}, "expected no mmap of a frame"),
    "divided": ({"divisor": 2.0}, "expected no divisor of a frame, got 2.0"),
    "binarized": ({"binarization": "static"}, "expected no binarization of a frame"),
    "list": ({"columns": ["age"]}, "expected columns as a dict"),
    "number": ({"columns": {"age": 3}}, 'column "age": expected a kind or a list of levels, got 3'),
    "covariates": ({"covariates": 3}, "expected covariates as a list of names"),
    "twice": ({"covariates": ["age", "age"]}, 'the covariate "age" is named twice'),
    "standardize": ({"standardize": "no"}, "expected standardize True or False, got 'no'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input(options, message):
    source = frame().assign(one=1.0) if "constant" in message else frame()
    with pytest.raises(InputError, match=message):
        load(source, **options)


def test_covariates_may_be_named_as_on_the_command_line():
    source, columns = frame(), {"answer": "ordinal"}
    ours, theirs = (load(source, columns=columns, covariates=some) for some in ("age, smokes", ["age", "smokes"]))
    assert ours.covariates == theirs.covariates and ours.train.protocol == theirs.train.protocol


def test_what_is_no_table_is_refused():
    for source, name in ((frame().age, "Series"), (np.zeros((9, 2)), "ndarray"), (torch.zeros(9, 2), "Tensor")):
        with pytest.raises(InputError, match=f"expected a name, a path or a frame with named columns, got {name}"):
            load(source)


def test_options_of_tables_are_for_tables(tmp_path, rows_file):
    for source in ("digits", rows_file(np.zeros((9, 2)))):
        with pytest.raises(InputError, match="expected columns= with a table alone"):
            load(source, columns={"a": "real"})
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n3,4\n" * 5)
    with pytest.raises(InputError, match=r"expected covariates= with a table alone: .*divided"):
        load(tmp_path / "t.csv", covariates=["a"], divisor=2.0)
    assert load(tmp_path / "t.csv", divisor=2.0).train.protocol.divisor == 2.0


def test_real_tables(real_data):
    wine = load(real_data / "tabular" / "winequality-white.csv", columns="quality:ordinal")
    assert wine.columns.summary() == "11 real, 1 ordinal" and wine.columns["quality"].labels == tuple("3456789")
    declared = "[ACENO][1-5]:ordinal,gender:binary,age:real,*:ignored"
    bfi = load(real_data / "tabular" / "bfi.csv", columns=declared, covariates=["age", "gender"])
    assert bfi.columns.summary() == "25 ordinal" and bfi.maximum == 5
    assert sum(int(split.x.isnan().sum()) for split in splits(bfi).values()) == 508


def test_a_table_that_was_read_in_parts_that_are_given():
    """Parts may overlap, and scales are those of the training rows."""
    columns = (Raw("a", np.array([1.0, 2.0, 4.0, 100.5])), Raw("b", np.array(["x", "y", "x", "y"], object)))
    table = Table("mine", columns, np.arange(4))
    parts = {"train": np.array([0, 1, 2]), "valid": np.array([2]), "test": np.array([3, 0])}
    data = table_dataset(table, TableOptions(), parts, 0)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [3, 1, 2]
    assert data.columns["a"].shift == pytest.approx(7 / 3) and data.columns["b"].labels == ("x", "y")
    torch.testing.assert_close(data.test.x[1], data.train.x[0])
    torch.testing.assert_close(load_like(table, data).x[3], data.test.x[0])
