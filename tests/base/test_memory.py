"""How much memory there is, what is done at once, and words for when it was too much."""

from pyrovae.base.memory import machine_memory


def test_the_memory_of_a_container(tmp_path, monkeypatch):
    limits = tmp_path / "memory.max", tmp_path / "limit_in_bytes"
    monkeypatch.setattr("pyrovae.base.memory.CONTAINER_LIMITS", limits)
    whole = machine_memory()
    assert whole > 2**20
    limits[0].write_text("max\n")
    assert machine_memory() == whole
    limits[1].write_text("4096\n")
    assert machine_memory() == 4096
