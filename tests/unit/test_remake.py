"""The run's vanilla model: remade, recorded, taken apart."""

from pathlib import Path

import pytest

from mipnb.artefacts import project_root, read_json
from mipnb.models import ffns, fingerprint, load_model, run_model
from mipnb.params import Params
from mipnb.pocket.recipe import RECIPE
from mipnb.remake import anatomy, record_model, remake, retrained

MODEL = "data/pocket/vanilla"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


def test_what_is_recorded_is_what_later_notebooks_find(model, tmp_path):
    record_model(tmp_path, MODEL, model)
    note = read_json(tmp_path / "model.json")
    assert note == {"folder": MODEL, "fingerprint": fingerprint(model)}, "relative to the project"
    assert run_model(tmp_path) == project_root() / MODEL
    record_model(tmp_path, tmp_path / "elsewhere", model)
    assert run_model(tmp_path) == tmp_path / "elsewhere"


def test_the_parts_make_the_whole(model):
    table = anatomy(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert table.parameters["all"] == total == table.parameters.iloc[:-1].sum()
    for branch in ("text", "vision"):
        nets = ffns(model, branch)
        row = table.loc[f"{branch} branch"]
        assert (row.layers, row.neurons) == (len(nets), sum(net.n_neurons for net in nets))
        modules = [module for net in nets for module in (*net.inputs, net.output)]
        assert row.in_FFNs == sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.slow
def test_a_remade_model_loads_and_its_losses_are_by_phase(tmp_path: Path):
    tiny = RECIPE | {
        "faces": 8,
        "tower_steps": 2,
        "tower_batch": 2,
        "base_steps": 1,
        "tune_steps": 3,
        "batch_size": 2,
    }
    said = []
    folder, history = remake("data/pocket", tmp_path, 0, tiny, said.append)
    assert folder == tmp_path / "vanilla"
    assert history.groupby("phase", sort=False).size().to_dict() == {"tower": 2, "base": 1, "vanilla": 3}
    assert fingerprint(load_model(folder)) != fingerprint(load_model(tmp_path / "base"))
    assert [line.split(":")[0] for line in said] == ["base step 0", "base step 0", "vanilla step 0"]


def test_a_retrained_model_of_another_kind_is_no_reference(tmp_path: Path, monkeypatch):
    sizes = {"other": {"text": (36, 11008)}}
    monkeypatch.setattr(
        "mipnb.remake.ffn_sizes", lambda folder, *_: sizes.get(Path(folder).name, {"text": (4, 512)})
    )
    for name in ("same", "other"):
        (tmp_path / name).mkdir()
    assert retrained(Params(retrained_dir=str(tmp_path / "same")), 5, tmp_path) == tmp_path / "same"
    with pytest.raises(ValueError, match="no reference for this model"):
        retrained(Params(retrained_dir=str(tmp_path / "other")), 5, tmp_path)
