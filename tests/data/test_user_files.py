"""A user's own files: what is read, and the one clear line for what cannot be."""

import numpy as np
import pytest

from pyrovae.base.errors import InputError
from pyrovae.data import user_files as files

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


# -------------------------------------------------------------------------------------- npy and npz


def saved(tmp_path, *arrays, **named):
    path = tmp_path / ("rows.npy" if arrays else "rows.npz")
    np.save(path, arrays[0]) if arrays else np.savez(path, **named)
    return path


def test_npy(tmp_path):
    path = saved(tmp_path, IMAGES)
    np.testing.assert_array_equal(files.read_path(path)["all"].x, IMAGES)


NPZ = {
    "parts": ({"train": IMAGES, "valid": IMAGES, "test": IMAGES}, ["train", "valid", "test"], False),
    "one array": ({"faces": IMAGES}, ["all"], False),
    "x": ({"x": IMAGES}, ["all"], False),
    "x and y": ({"x": IMAGES, "y": np.array([1, 0])}, ["all"], True),
}


@pytest.mark.parametrize(("arrays", "parts", "labelled"), NPZ.values(), ids=NPZ)
def test_npz(tmp_path, arrays, parts, labelled):
    found = files.read_path(saved(tmp_path, **arrays))
    assert list(found) == parts
    for rows in found.values():
        np.testing.assert_array_equal(rows.x, IMAGES)
        assert (rows.labels is not None) == labelled


OBJECTS = np.array([{"a": 1}, None], dtype=object)
BAD_NPZ = {
    "names": ({"images": IMAGES, "target": IMAGES}, r"expected arrays \['x'\], got \['images', 'target'\]"),
    "a part missing": ({"train": IMAGES, "test": IMAGES}, r"expected arrays .*got \['test', 'train'\]"),
    "labels alone": ({"y": np.array([1])}, r"expected arrays \['x'\], got \['y'\]"),
    "two shapes": (
        {"train": IMAGES, "valid": IMAGES, "test": IMAGES[0]},
        r"one shape of datum, .*'test': \(4,\)",
    ),
    "labels of another size": (
        {"x": IMAGES, "y": np.array([1])},
        r'"y" as 2 class numbers from 0, got int64 \(1,\)',
    ),
    "labels below 0": ({"x": IMAGES, "y": np.array([0, -1])}, "class numbers from 0"),
    "labels as text": ({"x": IMAGES, "y": np.array(["a", "b"])}, "class numbers from 0, got <U1"),
    "objects": ({"x": OBJECTS}, "expected numbers, got Python objects"),
    "text": ({"x": np.array(["a"])}, "expected numbers in x, got dtype <U1"),
    "complex": ({"x": np.array([1j])}, "expected numbers in x, got dtype complex128"),
    "no rows": ({"x": np.zeros((0, 3))}, r"N > 0 in x, got shape \(0, 3\)"),
    "no array": ({}, r"expected arrays \['x'\], got \[\]"),
    "scalar": ({"x": np.float64(1)}, r"got shape \(\)"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_bad_npz(tmp_path, arrays, message):
    path = saved(tmp_path, **arrays)
    with pytest.raises(InputError, match=f"rows.npz: .*{message}"):
        files.read_path(path)


def test_npy_of_objects_is_not_unpickled(tmp_path):
    with pytest.raises(InputError, match=r"rows\.npy: expected numbers, got Python objects"):
        files.read_path(saved(tmp_path, OBJECTS))


def test_an_npz_under_the_name_of_an_npy(tmp_path):
    saved(tmp_path, faces=IMAGES).rename(tmp_path / "rows.npy")
    with pytest.raises(InputError, match=r"rows\.npy: expected arrays .*got \['faces'\]"):
        files.read_path(tmp_path / "rows.npy")


def test_an_npz_under_the_name_of_an_npy_in_a_folder(tmp_path):
    saved(tmp_path, faces=IMAGES).rename(tmp_path / "train.npy")
    with pytest.raises(InputError, match=r"train\.npy: expected arrays .*got \['faces'\]"):
        files.read_path(tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("cut", [0.0, 0.02, 0.5, 0.95])
def test_truncated_numpy_files(tmp_path, suffix, cut):
    path = saved(tmp_path, IMAGES) if suffix == ".npy" else saved(tmp_path, x=IMAGES)
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    message = "got an empty file" if cut == 0 else f"expected a whole {suffix} file, got .*; write it again"
    with pytest.raises(InputError, match=f"rows{suffix}: .*{message}"):
        files.read_path(path)


# ---------------------------------------------------------------------------------------------- csv

CSV = {
    "numbers": "1,2\n3,4\n",
    "header": "a,b\n1,2\n3,4\n",
    "semicolons": '"a";"b"\n1;2\n3;4\n',
    "tabs": "1\t2\n3\t4",
    "byte order mark": "\ufeffa,b\n1,2\n\n3,4.0\n",
    "windows": "a,b\r\n1e0, 2\r\n3,4\r\n",
}


@pytest.mark.parametrize("text", CSV.values(), ids=CSV)
def test_csv(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(files.read_path(path)["all"].x, [[1, 2], [3, 4]])


def test_csv_of_one_column(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a\n1\n2\n")
    assert files.read_path(path)["all"].x.tolist() == [[1], [2]]


@pytest.mark.parametrize("head", ["", "a,b\n"])
def test_csv_with_missing_values(tmp_path, head):
    path = tmp_path / "table.csv"
    path.write_text(f"{head},\n1,\nNA,2\nNaN, \n")
    nan = np.nan
    np.testing.assert_array_equal(files.read_path(path)["all"].x, [[nan, nan], [1, nan], [nan, 2], [nan, nan]])


BAD_CSV = {
    "text": ("a,b\n1,2\n\n3,red\n", r'number in row 4, column 2 \("b"\), got "red"; encode text'),
    "text without header": ("1,2\n3,red\n", r'number in row 2, column 2, got "red"'),
    "header with a number": ("a,1\n2,3\n", 'number in row 1, column 1, got "a"'),
    "short row": ("1,2\n3\n", "expected 2 cells in row 2, got 1"),
    "long row": ("1,2\n3,4,5\n", "expected 2 cells in row 2, got 3"),
    "header only": ("a,b\n", "got only a header"),
    "blank": (" \n\n", "got blank lines only"),
    "empty": ("", "got an empty file"),
    "not text": (b"\xff\xfe\x00", "expected text in UTF-8"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CSV.values(), ids=BAD_CSV)
def test_bad_csv(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"table.csv: .*{message}"):
        files.read_path(path)


def test_real_missing_values(real_data):
    x = files.read_path(real_data / "tabular" / "bfi.csv")["all"].x
    assert x.shape == (2800, 29)
    assert np.isnan(x[:, 1:26]).sum() == 508


# ------------------------------------------------------------------------------------------- images


def draw(path, array):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
IMAGE_KINDS = {
    "grey": (GREY, GREY),
    "black and white": (GREY > 3, 255 * (GREY > 3)),
    "colour": (COLOUR, COLOUR.transpose(2, 0, 1)),
    "transparent": (np.concatenate([COLOUR, COLOUR[..., :1]], -1), COLOUR.transpose(2, 0, 1)),
    "16 bits": (GREY.astype(np.uint16) * 1000, GREY.astype(np.uint16) * 1000),
}


@pytest.mark.parametrize(("array", "expected"), IMAGE_KINDS.values(), ids=IMAGE_KINDS)
def test_image_folder(tmp_path, array, expected):
    for name in "ba":
        draw(tmp_path / f"{name}.PNG", array)
    (tmp_path / "notes.txt").write_text("no image")
    draw(tmp_path / ".hidden.png", GREY[:1])
    rows = files.read_path(tmp_path)["all"]
    np.testing.assert_array_equal(rows.x, np.stack([expected, expected]))
    assert rows.labels is None


def test_subfolders_are_classes(tmp_path):
    for number, name in enumerate(["cat/2.png", "cat/1.png", "ant/1.png"]):
        draw(tmp_path / name, GREY + np.uint8(number))
    (tmp_path / "empty").mkdir()
    rows = files.read_image_folder(tmp_path)
    assert rows.labels.tolist() == [0, 1, 1]
    assert rows.x[:, 0, 0].tolist() == [2, 1, 0]


def test_the_odd_image_is_named(tmp_path):
    draw(tmp_path / "a.png", GREY)
    draw(tmp_path / "b.png", GREY.T)
    with pytest.raises(InputError, match=r"b.png: expected shape \(3, 4\) as a.png has, got \(4, 3\); make all"):
        files.read_image_folder(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png: expected an image, got"):
        files.read_image_folder(tmp_path)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(InputError, match=r"expected images \(.bmp, .*, got none"):
        files.read_image_folder(tmp_path)


def test_images_inside_and_outside_subfolders(tmp_path):
    draw(tmp_path / "a.png", GREY)
    draw(tmp_path / "cat" / "b.png", GREY)
    with pytest.raises(InputError, match=r"got both; move a\.png into a subfolder"):
        files.read_image_folder(tmp_path)


# -------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "rows.pt",
            r'expected .npy, .npz, .csv or a folder of images, got suffix ".pt"; save the rows as .npy',
        ),
        ("rows.npzz", r'got suffix ".npzz"; did you mean ".npz"\?'),
        ("rows", 'got suffix ""; save'),
    ],
)
def test_unknown_suffix(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        files.read_path(tmp_path / name)


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_missing_file(tmp_path, suffix):
    with pytest.raises(InputError, match=f"none{suffix}: expected a readable file, got No such file"):
        files.read_path(tmp_path / f"none{suffix}")
