import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.checkpoints import Rule, convert, load_strict, read_state, write_state


class Exploit:
    def __reduce__(self) -> tuple:
        return os.system, ("touch exploited",)


def test_a_state_dict_survives_safetensors(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    write_state(state, tmp_path / "a.safetensors")
    assert all(torch.equal(state[key], value) for key, value in read_state(tmp_path / "a.safetensors").items())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model_state_dict": s}])
def test_wrappers_and_the_prefix_of_data_parallel_are_opened(tmp_path: Path, wrap) -> None:
    state = {f"module.{key}": value for key, value in nn.Linear(3, 2).state_dict().items()}
    torch.save(wrap(state), tmp_path / "a.pth")
    assert set(read_state(tmp_path / "a.pth")) == {"weight", "bias"}


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Exploit()}, "zip.pth")
    Path("bare.pkl").write_bytes(pickle.dumps(Exploit()))
    for name in ("zip.pth", "bare.pkl"):
        with pytest.raises(ValueError, match=name):
            read_state(name)
    assert not Path("exploited").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "empty.pth"),
        ("text.pth", b"hello", "text.pth"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{", "not a readable safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path / name)


def test_other_content_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict of tensors"):
        read_state(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pth"):
        read_state(tmp_path / "none.pth")


def test_rules_rename_drop_and_transform() -> None:
    rules = [Rule(r"fc\.(weight|bias)", r"head.\1"), Rule("unused", None), Rule("conv", "conv", lambda t: t.flip(0))]
    state = {"fc.weight": torch.ones(1), "unused": torch.ones(2), "conv": torch.arange(3)}
    converted = convert(state, rules)
    assert set(converted) == {"head.weight", "conv"}
    assert converted["conv"].tolist() == [2, 1, 0]


def test_what_no_rule_knows_and_what_collides_are_errors() -> None:
    with pytest.raises(ValueError, match=r"1 key.s. that are not known here: b"):
        convert({"a": torch.ones(1), "b": torch.ones(1)}, [Rule("a", "x")])
    with pytest.raises(ValueError, match="two keys of the checkpoint become 'x'"):
        convert({"a": torch.ones(1), "b": torch.ones(1)}, [Rule("[ab]", "x")])


def test_loading_lists_every_fault() -> None:
    state = {"weight": torch.zeros(2, 4), "more": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"Linear: 1 key.s. missing: bias; 1 key.s. too many: more; 1 shape"):
        load_strict(nn.Linear(3, 2), state)
