"""Released score tensors and stored paths in place of locating: read, checked, united, converted."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from toys import tiny_vl

from mipnb import reuse
from mipnb.cli import main
from mipnb.models import fingerprint
from mipnb.paths import NeuronPath, random_path
from mipnb.released import (
    Size,
    branch_sizes,
    find_released,
    read_released,
    read_tensor,
    released_paths,
    write_released,
)
from mipnb.reuse import check_given, edited_paths, stored_paths
from mipnb.scores import Scores

SIZES = {"text": Size(3, 24, 3), "vision": Size(3, 20, 4)}
PEOPLE = ("b", "a", "c")  # the file's order, which is not that of the IDs
PAIRS = 2  # questions a person and modality
TOP_K = {"text": 2, "vision": 3}


class Harm:
    """Pickles as a call, which unpickling would make."""

    def __reduce__(self):
        return print, ("harm",)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three people with two questions in either modality; a and c are to be forgotten."""
    pairs = json.dumps([{"Question": f"q{index}", "Answer": "x"} for index in range(PAIRS)])
    rows = [
        {"ID": person, "metadata": pairs, "image": image}
        for person in PEOPLE
        for image in ({"bytes": b"picture"}, None)
    ]
    for name, part in {"ft_Data": rows, "forget_5": [{"ID": "a"}, {"ID": "c"}]}.items():
        (tmp_path / "bench" / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "bench" / name / "train-00000-of-00001.parquet")
    return tmp_path / "bench"


@pytest.fixture(scope="module")
def model():
    return tiny_vl()


def tensor(branch: str, samples: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, *SIZES[branch][:2], generator=generator).to(dtype)


def save(folder: Path, name: str, values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(values, folder / name)
    return folder / name


def settings(root: Path, **changed) -> SimpleNamespace:
    """The parameters that `edited_paths` and `check_given` read."""
    values = {"run_dir": str(root.parent / "run"), "seed": 7, "benchmark_dir": str(root), "forget_ratio": 5}
    values |= {"use_released_paths": "", "reuse_paths": "", "model_dir": str(root.parent / "model")}
    values["model_revision"] = ""
    return SimpleNamespace(**values | {f"{branch}_top_k": k for branch, k in TOP_K.items()} | changed)


def test_rows_are_the_forget_people_s_in_the_order_of_the_training_questions(root: Path, tmp_path: Path):
    values = tensor("text", 6)
    found = read_released(save(tmp_path, "text_ja_all_mllmu_m.pt", values), "text", SIZES, root, 5)
    assert found.names == ("b/0", "b/1", "a/0", "a/1", "c/0", "c/1")
    assert found.forget_rows == (2, 3, 4, 5)
    assert torch.equal(found.scores("f", found.forget_rows).values, values[2:].float())


def test_the_path_is_the_union_of_each_forget_sample_s_best(root: Path, tmp_path: Path):
    values = tensor("text", 6)
    values[:2] = 100  # the retain person's samples must not count
    path = read_released(save(tmp_path, "text_ja_all_x.pt", values), "text", SIZES, root, 5).path("f" * 16, 2)
    expected = [
        sorted({n for sample in values[2:].float() for n in sample[layer].topk(2).indices.tolist()})
        for layer in range(3)
    ]
    assert [list(layer) for layer in path.layers] == expected
    assert (path.fingerprint, path.n_neurons, path.branch) == ("f" * 16, 24, "text")
    assert path.parameters["released"] == "text_ja_all_x.pt"


def test_a_file_of_the_forget_set_alone_is_taken_whole(root: Path, tmp_path: Path):
    file = save(tmp_path, "multi_fisher_forget05_clear_m.pt", tensor("vision", 4))
    found = read_released(file, "vision", SIZES, root, 5)
    assert found.names == ("a/0", "a/1", "c/0", "c/1")
    assert found.forget_rows == (0, 1, 2, 3)


def test_layers_that_no_answer_depends_on_are_cut_off(root: Path, tmp_path: Path):
    values = torch.randn(6, 4, 20)
    found = read_released(save(tmp_path, "multi_fisher_all_x.pt", values), "vision", SIZES, root, 5)
    assert torch.equal(found.scores("f").values, values[:, :3])
    assert branch_sizes(tiny_vl()) == {"text": Size(3, 24, 3), "vision": Size(3, 20, 3)}


def test_ties_at_the_last_chosen_neuron_are_counted(root: Path, tmp_path: Path):
    values = tensor("text", 4).fill_(1)
    values[:, :2] = torch.arange(24, 0, -1)  # two of three layers have an order, the third ties throughout
    path = read_released(save(tmp_path, "text_ja_all_x.pt", values), "text", SIZES, root, 5).path("f", 2)
    assert path.layers == ((0, 1), (0, 1), (0, 1))
    assert path.parameters["ties"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("text_ja_all_x.pt", torch.zeros(5, 3, 24), r"has 5 samples; .* are 6 \(all, text\); 12 \(all, both"),
        ("text_ja_all_x.pt", torch.zeros(6, 4, 24), "text branch has 3 x 24: it is of another model"),
        ("text_ja_all_x.pt", torch.zeros(6, 3, 20), "it fits the vision branch"),
        ("text_ja_forget10_clear_x.pt", torch.zeros(4, 3, 24), "of forget ratio 10.*run's is 5"),
        ("text_ja_all_x.pt", torch.zeros(6, 3), r"holds \(6, 3\) torch.float32; expected one tensor"),
        ("text_ja_all_x.pt", torch.zeros(6, 3, 24, dtype=torch.int64), "int64; expected one tensor"),
        ("text_ja_all_x.pt", {"scores": torch.zeros(6, 3, 24)}, "holds dict; expected one tensor"),
        ("text_ja_all_x.pt", Harm(), "holds more than tensors"),
    ],
)
def test_what_does_not_fit_is_refused(root: Path, tmp_path: Path, capsys, name, values, words):
    with pytest.raises(ValueError, match=words):
        read_released(save(tmp_path, name, values), "text", SIZES, root, 5)
    assert "harm" not in capsys.readouterr().out


def test_a_damaged_file_is_named(tmp_path: Path):
    whole = save(tmp_path, "text_ja_all_x.pt", torch.zeros(6, 3, 24)).read_bytes()
    (tmp_path / "text_ja_half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"text_ja_half\.pt is damaged"):
        read_tensor(tmp_path / "text_ja_half.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        read_tensor(tmp_path / "none.pt")


def test_the_fitting_file_is_found_among_those_of_other_models(root: Path, tmp_path: Path):
    folder = tmp_path / "released"
    save(folder, "text_ja_all_mllmu_large.pt", torch.zeros(6, 9, 24))
    right = save(folder / "small", "text_ja_all_mllmu_small.pt", tensor("text", 6))
    with pytest.raises(FileNotFoundError, match=r"no multi_fisher_\*\.pt \(vision branch\)"):
        find_released(folder, SIZES, root, 5)
    vision = save(folder, "multi_fisher_all_mllmu_small.pt", tensor("vision", 6))
    found = find_released(folder, SIZES, root, 5)
    assert (found["text"].file, found["vision"].file) == (right, vision)
    save(folder, "text_ja_all_mllmu_again.pt", tensor("text", 6))
    with pytest.raises(ValueError, match="2 released text files fit"):
        find_released(folder, SIZES, root, 5)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_released(tmp_path / "nowhere", SIZES, root, 5)


def test_files_that_do_not_fit_are_all_named(root: Path, tmp_path: Path):
    save(tmp_path / "r", "text_ja_all_one.pt", torch.zeros(6, 9, 24))
    save(tmp_path / "r", "text_ja_all_two.pt", torch.zeros(7, 3, 24))
    with pytest.raises(ValueError, match=r"(?s)no released text file fits.*one\.pt.*two\.pt has 7 samples"):
        find_released(tmp_path / "r", SIZES, root, 5)


def test_released_paths_are_of_the_model_given(root: Path, tmp_path: Path, model):
    save(tmp_path / "r", "text_ja_all_m.pt", tensor("text", 6))
    save(tmp_path / "r", "multi_fisher_all_m.pt", tensor("vision", 6))
    paths = released_paths(tmp_path / "r", model, root, 5, TOP_K)
    assert [path.branch for path in paths] == ["text", "vision"]
    for path in paths:
        path.check(model)
        assert len(path.layers) == 3
        assert TOP_K[path.branch] <= min(path.sizes) <= max(path.sizes) <= 4 * TOP_K[path.branch]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_released_to_ours_and_back_is_the_same_tensor(root: Path, tmp_path: Path, dtype: torch.dtype):
    values = tensor("vision", 6, dtype)
    file = save(tmp_path, "multi_fisher_all_x.pt", values)
    read_released(file, "vision", SIZES, root, 5).scores("f").save(tmp_path / "ours.safetensors")
    assert write_released(Scores.load(tmp_path / "ours.safetensors"), tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.dtype == dtype
    assert torch.equal(back, values)


def test_ours_to_released_and_back_keeps_what_bfloat16_holds(root: Path, tmp_path: Path):
    fine = torch.randn(6, 3, 24, generator=torch.Generator().manual_seed(1))
    names = tuple("xyzuvw")
    assert not write_released(Scores("text", fine, names, "f"), tmp_path / "text_ja_fine.pt")
    coarse = Scores("text", fine.bfloat16().float(), names, "f")
    assert write_released(coarse, tmp_path / "text_ja_coarse.pt")
    for name in ("fine", "coarse"):
        back = read_released(tmp_path / f"text_ja_{name}.pt", "text", SIZES, root, 5)
        assert torch.equal(back.scores("f").values, coarse.values)


@pytest.fixture
def stored(tmp_path: Path, model) -> dict[str, NeuronPath]:
    """A run with located paths, in tmp_path / "earlier"."""
    paths = {
        branch: NeuronPath(branch, ((1, 4), (), (0,)), SIZES[branch][1], fingerprint(model))
        for branch in SIZES
    }
    for name, path in paths.items():
        path.save(tmp_path / "earlier" / "03_paths" / "paths" / f"{name}.safetensors")
    return paths


@pytest.mark.parametrize("place", ["earlier", "earlier/03_paths/paths"])
def test_paths_of_another_run_are_reused(tmp_path: Path, stored: dict, model, place: str):
    assert stored_paths(tmp_path / place, model) == [stored["text"], stored["vision"]]


def test_one_stored_path_leaves_the_other_branch_alone(tmp_path: Path, stored: dict, model):
    text, vision = stored_paths(tmp_path / "earlier/03_paths/paths/vision.safetensors", model)
    assert vision == stored["vision"]
    assert (text.branch, text.sizes, text.n_neurons) == ("text", (0, 0, 0), 24)


def test_stored_paths_of_another_model_are_refused(tmp_path: Path, stored: dict):
    with pytest.raises(ValueError, match=r"neurons of one model mean nothing in another"):
        stored_paths(tmp_path / "earlier", tiny_vl(seed=1))
    with pytest.raises(FileNotFoundError, match=r"there is no .*text\.safetensors; expected a run's folder"):
        stored_paths(tmp_path, tiny_vl())


def test_a_file_that_is_named_after_the_other_branch_is_refused(tmp_path: Path, stored: dict, model):
    folder = tmp_path / "earlier" / "03_paths" / "paths"
    stored["text"].save(folder / "vision.safetensors")
    with pytest.raises(ValueError, match=r"vision\.safetensors holds a path of the text branch"):
        stored_paths(folder, model)
    strange = NeuronPath("audio", ((1,), (), ()), 24, fingerprint(model))
    with pytest.raises(ValueError, match="a path of the audio branch; expected"):
        stored_paths(strange.save(tmp_path / "mine.safetensors"), model)


def test_a_run_edits_given_paths_or_its_own(root: Path, tmp_path: Path, stored: dict, model):
    given = settings(root, reuse_paths=str(tmp_path / "earlier"))
    assert edited_paths(given, model) == list(stored.values())
    drawn = [random_path(path, 8) for path in stored.values()]
    assert edited_paths(given, model, index=1) == drawn
    with pytest.raises(FileNotFoundError, match="Notebook 03_paths makes it"):
        edited_paths(settings(root), model)
    assert edited_paths(settings(root, run_dir=str(tmp_path / "earlier")), model) == list(stored.values())
    with pytest.raises(ValueError, match="both given"):
        edited_paths(settings(root, reuse_paths="x", use_released_paths="y"), model)


def test_given_paths_are_checked_before_any_work(root: Path, tmp_path: Path, stored: dict, monkeypatch):
    monkeypatch.setattr(reuse, "read_config", lambda name, revision: name)
    monkeypatch.setattr(reuse, "empty_model", lambda config: tiny_vl())
    check_given(settings(root))
    check_given(settings(root, reuse_paths=str(tmp_path / "earlier")))
    with pytest.raises(FileNotFoundError, match="there is no"):
        check_given(settings(root, use_released_paths=str(tmp_path / "none")))
    monkeypatch.setattr(reuse, "branch_sizes", lambda model: SIZES | {"vision": Size(4, 20, 4)})
    with pytest.raises(ValueError, match=r"3 layers of 20 neurons; the model's vision branch has 4 of 20"):
        check_given(settings(root, reuse_paths=str(tmp_path / "earlier")))


def test_the_command_converts_both_ways(root: Path, tmp_path: Path, model, capsys):
    model.save_pretrained(tmp_path / "model")
    values = tensor("text", 6)
    file = save(tmp_path, "text_ja_all_x.pt", values)
    options = [
        "-p",
        "model_dir",
        str(tmp_path / "model"),
        "-p",
        "benchmark_dir",
        str(root),
        "-p",
        "text_top_k",
        "2",
    ]
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pt"
    assert main(["paths", "convert", str(file), str(ours), *options]) == 0
    assert Scores.load(ours).fingerprint == fingerprint(model)
    assert main(["paths", "convert", str(ours), str(back)]) == 0
    assert "no score was rounded" in capsys.readouterr().out
    assert torch.equal(torch.load(back, weights_only=True), values)
    path = tmp_path / "path.safetensors"
    assert main(["paths", "convert", str(file), str(path), "--path", *options]) == 0
    direct = read_released(file, "text", SIZES, root, 5).path(fingerprint(model), 2, str(root))
    assert stored_paths(path, model)[0] == direct
    assert main(["paths", "convert", str(file), str(tmp_path / "x.pt")]) == 2
    save(tmp_path, "mine.pt", values)
    assert main(["paths", "convert", str(tmp_path / "mine.pt"), str(ours), *options]) == 2
    assert "mine.pt begins with none of" in capsys.readouterr().err
