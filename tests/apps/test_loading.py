"""A user's program file, as the commands take it."""

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.apps import fit
from pyrovae.apps import loading as commands

GOOD = "def model(x): ...\ndef guide(x): ...\n"
FILES = {
    "model and guide": GOOD,
    "build()": GOOD + "def build():\n    return model, guide\n",
    "build(dataset)": GOOD + "def build(dataset):\n    return model, guide\n",
    "an object": GOOD + "class Pair:\n    model, guide = staticmethod(model), staticmethod(guide)\n"
    "def build():\n    return Pair()\n",
}
BAD = {
    "neither": ("x = 1\n", "defines neither model and guide nor build"),
    "only a guide": ("def guide(x): ...\n", "defines neither model and guide nor build"),
    "a mistake": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "no Python": ("def model(:\n", "SyntaxError"),
    "a wrong build": (
        "def build():\n    return 1\n",
        "build.. returns model and guide, or the model alone .*, got int",
    ),
    "three programs": ("def build():\n    return 1, 2, 3\n", "got tuple of 3"),
    "its own refusal": (
        "import pyrovae as pv\ndef build():\n    raise pv.InputError('no such data')\n",
        "^no such data$",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_programs_are_found(name, tmp_path):
    (tmp_path / "mine.py").write_text(FILES[name])
    model, guide, digest = commands.load_program(str(tmp_path / "mine.py"), pv.data.load("digits"))
    assert (model.__name__, guide.__name__, len(digest)) == ("model", "guide", 64)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_says_why(name, tmp_path):
    text, message = BAD[name]
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(pv.InputError, match=message):
        commands.load_program(str(tmp_path / "mine.py"), pv.data.load("digits"))


def test_a_file_that_is_missing_or_no_python(tmp_path):
    with pytest.raises(pv.InputError, match="no such file"):
        commands.load_program(str(tmp_path / "none.py"), pv.data.load("digits"))
    (tmp_path / "mine.txt").write_text(GOOD)
    with pytest.raises(pv.InputError, match=r"must end in \.py"):
        commands.load_program(str(tmp_path / "mine.txt"), pv.data.load("digits"))


@pytest.mark.parametrize("tail", ["", "def build():\n    return model\n"], ids=["left out", "build()"])
def test_a_model_alone_gets_its_guide(tail, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import pyro, pyro.distributions as dist, torch\n"
        "def model(x, label):\n"
        "    with pyro.plate('data', len(x)):\n"
        "        z = pyro.sample('z', dist.Normal(label.float(), 1.0))\n"
        "        pyro.sample('x', dist.Normal(z[..., None, None], 9.0).expand([len(x), 8, 8]).to_event(2), obs=x)\n"
        + tail
    )
    record = {"labels": True, "seed": 0}
    pair = [commands.pair_of(record, pv.data.load("digits"), str(path)) for _ in range(2)]
    first, second = (guide.state_dict() for _, guide, _ in pair)
    assert first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)
    report = pv.evaluate(*pair[0][:2], pv.data.load("digits").test[:5].with_labels(), num_particles=10)
    assert len(report.log_evidence) == 5


def test_labels_of_some_are_known_in_training_alone():
    digits, record = pv.data.load("digits"), {"labels": False, "semi_supervised": 30, "seed": 3}
    known = commands.train_of(digits, record).tensors[1]
    assert known[known >= 0].bincount().tolist() == [3] * 10
    other = commands.train_of(digits, {**record, "seed": 4}).tensors[1]
    assert not bool((known == other).all())
    for part in ("train", "valid", "test"):
        assert bool((commands.split_of(digits, part, record).tensors[1] == -1).all())


def test_a_table_or_data_without_labels_have_none_to_sum_out(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n" + "1.5,2.5\n0.5,1.0\n" * 20)
    np.save(tmp_path / "plain.npy", np.random.RandomState(0).rand(40, 3))
    told = {"table.csv": "--semi-supervised takes labels beside the data", "plain.npy": "leave --semi-supervised out"}
    for name, message in told.items():
        record = fit.record(data=str(tmp_path / name), semi_supervised=10)
        with pytest.raises(pv.InputError, match=message):
            commands.pair_of(record, commands.dataset_of(record, None), None)
