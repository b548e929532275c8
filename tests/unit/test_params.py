"""The parameters: names, types, bounds, files, and what a notebook's cell may hold."""

import html
from pathlib import Path

import pytest

from mipnb.artefacts import project_root
from mipnb.param_files import parse_value, read_parameters
from mipnb.params import Params, check_parameters, show, subset
from mipnb.stages import notebook_parameters

ROOT = project_root()


def test_pocket_file_is_the_defaults_and_complete():
    assert read_parameters([ROOT / "params/pocket.yaml"]) == Params()
    lines = (ROOT / "params/pocket.yaml").read_text().splitlines()
    named = {line.split(":")[0] for line in lines if line and not line.startswith("#")}
    assert named == set(Params.model_fields)


def test_every_shipped_parameter_file_is_valid():
    files = sorted(
        set((ROOT / "params").glob("*.yaml")) - {ROOT / "params" / "sweep.yaml"}
    )  # a sweep, not parameters
    assert {"pocket.yaml", "quick.yaml"} <= {file.name for file in files}
    for file in files:
        read_parameters([file])


def test_a_full_size_file_borrows_nothing_of_pockets():
    files = [file for file in (ROOT / "params").glob("*.yaml") if file.stem.endswith(("_mllmu", "_clear"))]
    assert len(files) == 6
    for file in files:
        params = read_parameters([file])
        assert (params.tuning, params.second_vanilla_dir) == ("", "")
        assert params.retrained_dir.startswith(params.run_dir)
        ratios = {1, 5, 10} if file.stem.endswith("_clear") else {5, 10, 15}
        assert {params.forget_ratio, *params.other_ratios} == ratios


def test_notebooks_take_shared_parameters_with_the_shared_defaults():
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, value in notebook_parameters(notebook).items():
            default = Params.model_fields[name].default
            assert (value, type(value)) == (default, type(default)), f"{notebook.name}: {name}"


def test_every_parameter_says_what_it_means():
    assert all(field.description for field in Params.model_fields.values())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"top_k": 3}, "did you mean text_top_k or vision_top_k"),
        ({"forget_rate": 5}, "forget_ratio"),
        ({"zzz": 3}, "the parameters are run_dir"),
        ({"text_top_k": "10"}, "text_top_k = '10' (str): should be a valid integer"),
        ({"text_top_k": 0}, "greater than or equal to 1"),
        ({"text_top_k": True}, "valid integer"),
        ({"text_top_k": 2.0}, "valid integer"),
        ({"retrain": 1}, "valid boolean"),
        ({"rule": "left"}, "'right', 'midpoint', 'gauss' or 'stieltjes'"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"learning_rate": "fast"}, "valid number"),
        ({"device": "gpu"}, "cuda:N"),
        ({"forget_ratio": 100}, "less than or equal to 99"),
        ({"run_dir": ""}, "at least 1 character"),
    ],
)
def test_wrong_values_are_refused_with_a_hint(values, words):
    with pytest.raises(ValueError, match="parameter") as caught:
        subset(values)
    assert words in str(caught.value)


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(ValueError, match=r"(?s)seed.*rule"):
        subset({"seed": -1, "rule": "left"})


def test_parameters_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        subset({"seed": 1}).seed = 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("5e-3", 0.005),
        ("1e5", 1e5),
        ("-2.5e+1", -25.0),
        ("true", True),
        ("greedy", "greedy"),
        ("cuda:0", "cuda:0"),
        ("", ""),
    ],
)
def test_values_are_read_as_people_write_them(text, value):
    found = parse_value(text)
    assert (found, type(found)) == (value, type(value))


def test_a_value_that_is_no_yaml_is_refused():
    with pytest.raises(ValueError, match="cannot read"):
        parse_value("[1, ")


def test_later_files_and_given_values_win(tmp_path: Path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("seed: 1\nn_steps: 2\nbatch_size: 3\n")
    second.write_text("n_steps: 5\nlearning_rate: 1e-4\n")
    params = read_parameters([first, second], {"batch_size": 7})
    assert (params.seed, params.n_steps, params.batch_size, params.learning_rate) == (1, 5, 7, 1e-4)


@pytest.mark.parametrize("content", ["seed: one", "sead: 1", "- seed", "seed: [", ""])
def test_a_wrong_file_is_named(tmp_path: Path, content: str):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        read_parameters([file])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        read_parameters([tmp_path / "none.yaml"])


def namespace(**names) -> dict:
    """A notebook's globals: IPython's own names, an imported module, and the given ones."""
    return {
        "In": ["", "seed = 3"],
        "Out": {},
        "_i1": "seed = 3",
        "__name__": "__main__",
        "Path": Path,
        **names,
    }


def test_a_notebook_gets_its_own_parameters_only():
    params = check_parameters(namespace(seed=3, n_steps=2))
    assert params.model_dump() == {"seed": 3, "n_steps": 2}


def test_an_imported_constant_is_no_parameter():
    assert check_parameters(namespace(seed=3, PAGE=7.0)).model_dump() == {"seed": 3}


def test_a_misspelt_name_in_a_notebook_is_refused():
    with pytest.raises(ValueError, match="did you mean n_steps"):
        check_parameters(namespace(n_step=2))


def test_the_check_can_be_run_again_after_other_cells():
    names = namespace(seed=3)
    check_parameters(names)
    names |= {"people": ["a"], "seed": 4}
    assert check_parameters(names).model_dump() == {"seed": 4}
    names["seed"] = "4"
    with pytest.raises(ValueError, match="seed"):
        check_parameters(names)


def test_the_table_shows_name_value_meaning():
    table = show(subset({"seed": 3, "rule": "gauss"}))
    assert list(table.index) == ["seed", "rule"]
    assert list(table.columns) == ["value", "meaning"]
    assert table.loc["rule", "value"] == "gauss"


def test_the_table_shows_meanings_whole():
    table = show(Params())
    text, page = repr(table), html.unescape(table._repr_html_())
    assert max(map(len, text.splitlines())) < 180
    for name, field in Params.model_fields.items():
        assert field.description in page
        row = text.split(f"\n{name} ")[1].split("\n" + " " * len(name))
        assert field.description.split()[-1] in "".join(row), name
    assert "..." not in text
    assert repr(show(subset({"methods": ["npo"]}))).splitlines()[1].startswith("methods  ['npo']")
