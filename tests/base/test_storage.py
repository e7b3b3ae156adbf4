"""A run folder is whole or not there, and nobody alters it unseen."""

import json
import os
import pickle
import random
import shutil

import pytest
import torch

from pyrovae.base import storage
from pyrovae.base.errors import InputError

TENSORS = {"weights/a": torch.arange(200.0).reshape(10, 20), "weights/b": torch.tensor([True, False])}
FILES = {
    "weights.safetensors": storage.pack(TENSORS),
    "history.csv": b"epoch,elbo\n1,-3.5\n",
    "figures/a.png": b"\x89PNG",
}


@pytest.fixture
def folder(tmp_path):
    storage.write(tmp_path / "run", {"kind": "fit", "value": 1.5}, FILES)
    return tmp_path / "run"


def every_file(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_round_trip(folder):
    content, files = storage.read(folder)
    assert content == {"kind": "fit", "value": 1.5} and files == FILES
    back = storage.unpack(files["weights.safetensors"])
    assert all(torch.equal(back[name], value) for name, value in TENSORS.items())


def test_rewriting_leaves_only_what_is_named(folder):
    (folder / "notes.txt").write_text("a user's own file stays")
    storage.write(folder, {"kind": "fit"}, {"history.csv": b"other"})
    names = sorted(path.name for path in every_file(folder))
    assert len(names) == 3 and {"notes.txt", "run.json"} < set(names)


def test_update_keeps_the_rest(folder):
    storage.update(folder, {"report.json": b"{}"})
    content, files = storage.read(folder)
    assert content == {"kind": "fit", "value": 1.5}
    assert files == {**FILES, "report.json": b"{}"}


def test_no_single_flipped_bit_is_read(folder, tmp_path):
    rng = random.Random(0)
    files = every_file(folder)
    sizes = [path.stat().st_size for path in files]
    for _ in range(1000):
        path = rng.choices(files, sizes)[0]
        data = bytearray(path.read_bytes())
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        whole = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(InputError, match=str(folder)):
            storage.read(folder)
        path.write_bytes(whole)
    storage.read(folder)


def test_truncated_or_longer_files_are_refused(folder):
    for path in every_file(folder):
        whole = path.read_bytes()
        for data in (b"", whole[: len(whole) // 2], whole[:-1], whole + b"\n"):
            path.write_bytes(data)
            with pytest.raises(InputError, match=path.name):
                storage.read(folder)
        path.write_bytes(whole)


class _Canary:
    """A pickle that runs code when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def payloads(canary):
    torch.save(_Canary(canary), canary.with_suffix(".pt"))
    plain = pickle.dumps(_Canary(canary))
    return {
        "pickle protocol 0": pickle.dumps(_Canary(canary), protocol=0),
        "pickle protocol 5": plain,
        "torch zip": canary.with_suffix(".pt").read_bytes(),
        "pickle behind a safetensors length": len(plain).to_bytes(8, "little") + plain,
        "json holding a pickle": json.dumps({"format": 1, "content": plain.hex(), "files": {}}).encode(),
    }


def test_pickles_under_our_names_are_never_run(folder, tmp_path):
    canary = tmp_path / "canary"
    for payload in payloads(canary).values():
        for path in every_file(folder):
            whole = path.read_bytes()
            path.write_bytes(payload)
            with pytest.raises(InputError):
                storage.read(folder)
            path.write_bytes(whole)
        with pytest.raises(InputError, match="not a safetensors file"):
            storage.unpack(payload)
        # the same with a manifest that vouches for the payload
        storage.write(tmp_path / "forged", {}, {"weights.safetensors": payload})
        with pytest.raises(InputError, match="not a safetensors file"):
            storage.unpack(storage.read(tmp_path / "forged")[1]["weights.safetensors"])
        shutil.rmtree(tmp_path / "forged")
    assert not canary.exists()


def forge(folder, **changes):
    """A manifest with a correct hash of its own."""
    manifest = json.loads((folder / "run.json").read_text())
    manifest.update(changes)
    manifest.pop("sha256")
    manifest["sha256"] = storage._sha256(storage._canonical(manifest))
    (folder / "run.json").write_bytes(storage._canonical(manifest))


def test_a_newer_format_is_named(folder):
    forge(folder, format=99)
    with pytest.raises(InputError, match="has format 99, this version reads up to 1; update"):
        storage.read(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a/b/c", ""])
def test_names_outside_the_run_are_refused(folder, name):
    forge(folder, files={"weights.safetensors": {"file": name, "sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(InputError, match="names a file outside the run"):
        storage.read(folder)


def test_a_symbolic_link_is_refused(folder):
    target = next(path for path in every_file(folder) if path.suffix == ".csv")
    moved = target.rename(folder.parent / "elsewhere.csv")
    target.symlink_to(moved)
    with pytest.raises(InputError, match="missing from the run"):
        storage.read(folder)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        storage.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no run"):
        storage.read(tmp_path)


def test_a_failed_write_leaves_the_old_run_and_no_rubbish(folder, monkeypatch):
    before = {path: path.read_bytes() for path in every_file(folder)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write(folder, {"kind": "new"}, {"history.csv": b"new"})
    assert {path: path.read_bytes() for path in every_file(folder)} == before


def test_two_writers_are_kept_apart(tmp_path):
    with storage.locked(tmp_path):
        with pytest.raises(InputError, match="another process is writing this run"), storage.locked(tmp_path):
            pass
    with storage.locked(tmp_path):
        pass


def test_nested_state_comes_back_equal():
    state = {
        "state": {0: {"step": torch.tensor(3.0), "m": torch.ones(2)}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
    }
    tensors = {}
    flat = json.loads(json.dumps(storage.flatten(state, tensors, "optimizer")))
    back = storage.unflatten(flat, tensors)
    assert back["groups"] == state["groups"] and list(back["state"]) == [0]
    assert torch.equal(back["state"][0]["m"], torch.ones(2))
    with pytest.raises(InputError, match="cannot store optimizer"):
        storage.flatten(object(), {}, "optimizer")
