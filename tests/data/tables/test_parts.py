"""Rows in three parts: no row twice, no group in two, no test row before a training row."""

import numpy as np
import pytest

from pyrovae.base.errors import InputError
from pyrovae.data.tables import parts
from pyrovae.data.tables.reading import Raw, Table

SPLITS = (0.6, 0.2, 0.2)


def table(cells):
    return Table(
        "t", (Raw("g", np.array(cells, object if isinstance(cells[0], str) else float)),), np.arange(len(cells))
    )


def check_whole(found, num_rows):
    assert list(found) == ["train", "valid", "test"]
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(num_rows))


def test_a_permutation_follows_the_seed():
    found, again, other = (parts.by_permutation(table([0.0] * 50), SPLITS, seed) for seed in (0, 0, 1))
    check_whole(found, 50)
    assert [len(rows) for rows in found.values()] == [30, 10, 10]
    assert np.array_equal(found["test"], again["test"]) and not np.array_equal(found["test"], other["test"])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("words", [False, True])
def test_no_group_is_in_two_parts(seed, words):
    groups = np.random.RandomState(seed).randint(0, 12, 100)
    groups[:12] = np.arange(12)
    cells = [f"person {group}" for group in groups] if words else groups.tolist()
    found = parts.by_group(table(cells), "g", SPLITS, seed)
    check_whole(found, 100)
    of_each = [set(groups[rows]) for rows in found.values()]
    assert sum(map(len, of_each)) == 12 and 35 < len(found["train"]) < 90


def test_three_groups_give_a_part_each():
    found = parts.by_group(table(["a"] * 98 + ["b", "c"]), "g", SPLITS, 0)
    check_whole(found, 100)


def test_the_earliest_train_and_the_latest_test():
    times = np.random.RandomState(0).rand(100)
    found = parts.by_time(table(times.tolist()), "g", SPLITS)
    check_whole(found, 100)
    assert [len(rows) for rows in found.values()] == [60, 20, 20]
    assert times[found["train"]].max() < times[found["valid"]].min()
    assert times[found["valid"]].max() < times[found["test"]].min()


def test_rows_of_one_time_stay_together_and_text_is_sorted():
    days = [f"2020-01-{day:02}" for day in np.repeat(np.arange(1, 11), 7)]
    found = parts.by_time(table(days), "g", (0.55, 0.2, 0.25))
    check_whole(found, 70)
    assert [{days[row] for row in rows} for rows in found.values()] == [
        set(days[:35]),
        set(days[35:49]),
        set(days[49:]),
    ]


def test_text_that_does_not_sort_as_time_goes_is_refused():
    days = [f"{day:02}/{month:02}/2021" for month in (1, 2, 3) for day in range(1, 11)]
    with pytest.raises(InputError, match=r'times in column "g" as numbers or as ISO 8601 writes them'):
        parts.by_time(table(days), "g", SPLITS)
    hours = [f"2021-01-01T{hour:02}:00" for hour in range(20)]
    found = parts.by_time(table(hours[::-1]), "g", SPLITS)
    assert sorted(found["test"].tolist()) == [0, 1, 2, 3]  # the latest stand first


def test_bad_groups_and_times():
    with pytest.raises(InputError, match='t: the group column "g" is missing in row 1'):
        parts.by_group(table(["a", None, "b"]), "g", SPLITS, 0)
    with pytest.raises(InputError, match='t: the time column "g" is missing in 2 rows, the first is row 1'):
        parts.by_time(table([1.0, np.nan, np.nan]), "g", SPLITS)
    with pytest.raises(InputError, match='expected the group "h" among its columns'):
        parts.by_group(table([1.0, 2.0]), "h", SPLITS, 0)
    with pytest.raises(InputError, match="expected groups enough for three splits"):
        parts.by_group(table(["a", "b"] * 9), "g", SPLITS, 0)
    with pytest.raises(InputError, match='expected different times in "g" enough for three splits'):
        parts.by_time(table([1.0, 2.0] * 9), "g", SPLITS)
    with pytest.raises(InputError, match="expected rows enough"):
        parts.by_permutation(table([1.0, 2.0]), SPLITS, 0)
