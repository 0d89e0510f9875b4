"""Checkpoints: what is written comes back, and a crash never leaves a file that cannot be read."""

import json
import random

import numpy as np
import pytest
import torch

from recbole_molar.checkpoint import flatten_optimizer, load_tensors, restore_optimizer, restore_rng, rng_state, save_tensors, write_atomic, write_json


def test_tensors_and_meta_come_back(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "tied": shared, "view": shared.T, "scalar": torch.tensor(3), "empty": torch.zeros(0, 4)}
    tensors["bf16"] = torch.ones(2, dtype=torch.bfloat16)
    save_tensors(tmp_path / "deep" / "x.safetensors", tensors, {"epoch": 3, "best": -float("inf"), "text": "ünïcode", "rate": 0.1 + 0.2})
    found, meta = load_tensors(tmp_path / "deep" / "x.safetensors")
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)
    assert meta == {"epoch": 3, "best": -float("inf"), "text": "ünïcode", "rate": 0.1 + 0.2}


def test_a_tensor_under_two_names_is_written_twice_and_others_are_not_copied(tmp_path, monkeypatch):
    values, copies, clone = torch.randn(5, 3), [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **given: copies.append(self.shape) or clone(self, **given))
    save_tensors(tmp_path / "x.safetensors", {"a": values, "b": values, "c": values.T, "d": torch.zeros(2)})
    tensors, _ = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["a"], values) and torch.equal(tensors["b"], values) and torch.equal(tensors["c"], values.T) and len(copies) == 1


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_writer_that_fails_leaves_the_old_file_or_none(tmp_path, old):
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)

    def half(temporary):
        with open(temporary, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path):
    write_json(tmp_path / "x.json", {"n": 1})
    seen = []

    def write(temporary):
        with open(temporary, "w") as file:
            file.write('{"n": 2}')
        seen.append(json.loads((tmp_path / "x.json").read_text()))

    write_atomic(tmp_path / "x.json", write)
    assert seen == [{"n": 1}] and json.loads((tmp_path / "x.json").read_text()) == {"n": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_files_can_be_read_by_others(tmp_path):
    """Of mode 644 or what the umask says, not the 600 of a file from mkstemp."""
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "x.json", {})
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_numbers_of_numpy_stay_numbers(tmp_path):
    write_json(tmp_path / "x.json", {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(0.25), "d": torch.tensor(2.0), "e": tmp_path})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 0.5, "b": 3, "c": 0.25, "d": 2.0, "e": str(tmp_path)}


@pytest.mark.parametrize("content", [b"", b"\x08", b"not a checkpoint at all", b"\xff" * 64])
def test_what_is_not_a_checkpoint(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="x.safetensors: not a readable checkpoint .*Delete it"):
        load_tensors(tmp_path / "x.safetensors")


def test_missing_and_foreign_files(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    for name in ("missing", "foreign"):
        with pytest.raises(ValueError, match=f"{name}.safetensors: not a readable checkpoint"):
            load_tensors(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.AdamW(p, lr=0.1, fused=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.Adagrad(p, lr=0.1), lambda p: torch.optim.RMSprop(p, lr=0.1), lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
])
def test_optimizer_comes_back(tmp_path, make):
    def steps(weight, optimizer, n):
        for _ in range(n):
            optimizer.zero_grad()
            (weight ** 3).sum().backward()
            optimizer.step()

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make([weight])
    steps(weight, optimizer, 3)
    tensors, rest = flatten_optimizer(optimizer)
    save_tensors(tmp_path / "o.safetensors", tensors, rest)
    copy = torch.nn.Parameter(weight.detach().clone())
    other = make([copy])
    restore_optimizer(other, *load_tensors(tmp_path / "o.safetensors"))
    steps(weight, optimizer, 2), steps(copy, other, 2)
    assert torch.equal(weight, copy)
    two_groups = make([{"params": [torch.nn.Parameter(torch.zeros(2))]}, {"params": [torch.nn.Parameter(torch.zeros(2))]}])
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters, here \[1, 1\]"):
        restore_optimizer(two_groups, tensors, rest)


def test_random_states_come_back(tmp_path):
    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item(), torch.randn(1).item()

    random.gauss(0, 1), np.random.randn()  # both keep a second normal number in store
    tensors, rest = rng_state()
    save_tensors(tmp_path / "r.safetensors", tensors, rest)
    expected = draw()
    assert draw() != expected
    restore_rng(*load_tensors(tmp_path / "r.safetensors"))
    assert draw() == expected
