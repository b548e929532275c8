"""README's lines for library users, executed as they stand on a tiny model: located, edited, undone."""

from __future__ import annotations

import pytest
import torch
from tiny_families import questions

import mipnb
from mipnb.artefacts import project_root
from mipnb.models import fingerprint


@pytest.fixture
def code() -> str:
    """The lines, as they are in README."""
    text = (project_root() / "README.md").read_text().split("## As a library")[1].split("\n## ")[0]
    return "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))


def test_the_lines_locate_edit_and_undo(code: str, folders: dict, monkeypatch: pytest.MonkeyPatch):
    assert len(code.splitlines()) == 6, "an import and five lines"
    asked = [question for question in questions() if question.modality == "text"]
    half = len(asked) // 2
    names = {"forget": asked[:half], "retain": asked[half:]}
    code = code.replace("path/to/model", str(folders["qwen2_5_vl"])).replace("top_k=48", "top_k=4")
    exec(code, names)
    model, edit = names["model"], names["edit"]
    assert edit.is_applied(model)
    vanilla = mipnb.load_model(folders["qwen2_5_vl"])
    before = dict(vanilla.named_parameters())
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert changed
    assert all("mlp" in name for name in changed), "an edit writes into feed-forward networks alone"
    edit.remove(model)
    assert fingerprint(model) == fingerprint(vanilla)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert len(names["history"])
