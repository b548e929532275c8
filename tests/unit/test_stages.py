"""The table of notebooks, their parameters, and the code they depend on."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mipnb.params import Params
from mipnb.plan import make_plan
from mipnb.stages import (
    Stage,
    descendants,
    find_stage,
    load_stages,
    no_longer_read,
    notebook_parameters,
    replaced_reads,
)
from mipnb.state import code_digests, code_files, ingredients

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "notebooks"


def write_notebook(path: Path, *cells: str, tag: str | None = None) -> Path:
    """A notebook of code cells; the first one gets the tag."""
    nodes = [new_code_cell(cell) for cell in cells]
    if tag:
        nodes[0].metadata["tags"] = [tag]
    nbformat.write(new_notebook(cells=nodes), path)
    return path


def write_table(folder: Path, text: str, *notebooks: str) -> Path:
    (folder / "stages.yaml").write_text(text)
    for name in notebooks:
        write_notebook(folder / f"{name}.ipynb", "1")
    return folder


def test_the_table_keeps_order_and_names():
    stages = load_stages(FIXTURES)
    assert [stage.name for stage in stages] == ["01_numbers", "02_sum", "03_show"]
    assert stages[1].reads == ("01_numbers",)
    assert stages[1].writes == ("sum.json",)


def test_a_folder_that_is_not_given_is_no_input(tmp_path: Path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.parquet").write_bytes(b"a")
    notebook = write_notebook(tmp_path / "01_one.ipynb", 'training_dir: str = ""', tag="parameters")
    stage = Stage("01_one", notebook)
    for folder, files in (("", []), (str(tmp_path / "rows"), [f"{tmp_path / 'rows'}/a.parquet"])):
        found = ingredients(stage, Params(training_dir=folder), tmp_path, {})
        assert list(found["inputs"]) == files


def test_prose_is_no_ingredient_and_code_is(tmp_path: Path):
    def digest(*cells):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "01_one.ipynb")
        stage = Stage("01_one", tmp_path / "01_one.ipynb")
        return ingredients(stage, Params(), tmp_path, {})["notebook"]

    seed, shown = new_code_cell("seed: int = 1", metadata={"tags": ["parameters"]}), new_code_cell("seed")
    first = digest(new_markdown_cell("# One"), seed, shown)
    assert digest(new_markdown_cell("# Another"), seed, new_markdown_cell("Words."), shown) == first
    assert len({first, digest(seed, new_code_cell("seed + 1")), digest(shown, seed)}) == 3
    assert digest(new_code_cell("seed: int = 1"), shown) != first, "tags count"


def test_every_numbered_notebook_is_in_the_table():
    listed = {stage.name for stage in load_stages(ROOT / "notebooks")}
    there = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")} - {"00_start_here"}
    assert there == listed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {reads: [b]}", "a reads b, which does not come before it"),
        ("a: {needs: []}", "expected `reads"),
        ("a: [b]", "expected `reads"),
        ("a: {reads: [], instead: {b: [seed]}}", "a has instead of b, which it does not read"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, words: str):
    with pytest.raises(ValueError, match=r"stages\.yaml") as caught:
        load_stages(write_table(tmp_path, text, "a", "b"))
    assert words in str(caught.value)


def test_a_listed_notebook_must_be_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="lists a"):
        load_stages(write_table(tmp_path, "a: {}"))
    with pytest.raises(FileNotFoundError, match=r"stages\.yaml is missing"):
        load_stages(tmp_path / "none")


@pytest.mark.parametrize("wanted", ["02", "2", "02_sum", "02_sum.ipynb", "notebooks/02_sum.ipynb"])
def test_a_notebook_is_found_by_number_or_name(wanted: str):
    assert find_stage(load_stages(FIXTURES), wanted).name == "02_sum"


@pytest.mark.parametrize("wanted", ["20", "sum", "0", ""])
def test_an_unknown_notebook_is_refused_with_those_there_are(wanted: str):
    with pytest.raises(ValueError, match="01_numbers, 02_sum, 03_show"):
        find_stage(load_stages(FIXTURES), wanted)


def test_descendants_are_those_that_build_on_it(tmp_path: Path):
    table = "a: {}\nb: {reads: [a]}\nc: {}\nd: {reads: [b]}"
    stages = load_stages(write_table(tmp_path, table, "a", "b", "c", "d"))
    assert descendants(stages, "a") == {"a", "b", "d"}
    assert descendants(stages, "c") == {"c"}


def test_parameters_are_read_from_the_tagged_cell(tmp_path: Path):
    cell = 'seed: int = 42  # seed\nrule: str = "right"\nshift: float = -0.5\nnames: list[str] = ["a"]'
    notebook = write_notebook(tmp_path / "a.ipynb", cell, "seed = 3", tag="parameters")
    assert notebook_parameters(notebook) == {"seed": 42, "rule": "right", "shift": -0.5, "names": ["a"]}
    assert notebook_parameters(write_notebook(tmp_path / "b.ipynb", "seed: int = 42")) == {}


@pytest.mark.parametrize("line", ["seed = 42", "seed: int", "seed: int = 6 * 7", "print()", "import os"])
def test_anything_else_in_the_parameters_cell_is_refused(tmp_path: Path, line: str):
    with pytest.raises(ValueError, match="name: type = plain value"):
        notebook_parameters(write_notebook(tmp_path / "a.ipynb", line, tag="parameters"))


def test_a_damaged_notebook_is_named(tmp_path: Path):
    (tmp_path / "a.ipynb").write_text("{")
    with pytest.raises(ValueError, match=r"a\.ipynb cannot be read as a notebook"):
        notebook_parameters(tmp_path / "a.ipynb")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package: editing imports paths, paths imports hooks; sub.part imports sub.deep and hooks."""
    modules = {
        "__init__": "",
        "params": "import pkg.plotting",
        "hooks": "import torch",
        "paths": "from pkg.hooks import gated",
        "editing": "def f():\n    from pkg import paths",
        "attribution": "from pkg import hooks",
        "plotting": "",
        "sub/__init__": "",
        "sub/part": "from . import deep\nfrom ..hooks import gated",
        "sub/deep": "",
    }
    for name, text in modules.items():
        path = tmp_path / "pkg" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path / "pkg"


@pytest.mark.parametrize(
    ("cells", "files"),
    [
        (["from pkg.editing import prune"], ["editing", "hooks", "paths"]),
        (["from pkg import attribution"], ["attribution", "hooks"]),
        (["import pkg.paths as p", "import numpy"], ["hooks", "paths"]),
        (["%matplotlib inline\nfrom pkg.hooks import gated\n!ls"], ["hooks"]),
        (["from pkg.params import check_parameters"], []),
        (["from pkg import name"], ["__init__"]),
        (["from pkg.sub.part import x"], ["hooks", "sub/__init__", "sub/deep", "sub/part"]),
        (["from pkg.sub import part"], ["hooks", "sub/__init__", "sub/deep", "sub/part"]),
        (["from pkg.sub import NAME"], ["sub/__init__"]),
        (["import pkgs.editing", "from other import pkg"], []),
    ],
)
def test_code_is_what_the_notebook_imports_and_what_that_imports(package, tmp_path, cells, files):
    notebook = write_notebook(tmp_path / "a.ipynb", *cells)
    found = [path.relative_to(package).with_suffix("").as_posix() for path in code_files(notebook, package)]
    assert sorted(found) == sorted(files)


def test_a_cell_that_cannot_be_read_counts_as_importing_everything(package: Path, tmp_path: Path):
    notebook = write_notebook(tmp_path / "a.ipynb", "%%bash\nls -la .")
    assert len(code_files(notebook, package)) == 10


def test_a_module_changed_meanwhile_is_read_again(package: Path, tmp_path: Path):
    notebook = write_notebook(tmp_path / "a.ipynb", "import pkg.plotting")
    assert [path.stem for path in code_files(notebook, package)] == ["plotting"]
    (package / "plotting.py").write_text("import pkg.attribution  # now")
    assert [path.stem for path in code_files(notebook, package)] == ["attribution", "hooks", "plotting"]


@pytest.mark.parametrize(
    ("text", "same", "same_where_shown"),
    [
        ('"""Doc."""\ndef f(x):\n    """Adds."""\n    return x + 1', True, True),
        ('"""Other."""\n\n\ndef f(x):  # why\n    """Adds one."""\n    return (x + 1)', True, False),
        ('"""Doc."""\ndef f(x):\n    """Adds."""\n    return x + 2', False, False),
        ('"""Doc."""\ndef f(x):\n    """Adds."""\n    return x + 1\n"""not a docstring"""', False, False),
        ("def f(x):\n    return x + 1", True, False),
    ],
)
def test_words_about_code_are_no_code_unless_a_notebook_shows_them(
    package, tmp_path, text, same, same_where_shown
):
    plain = write_notebook(tmp_path / "a.ipynb", "import pkg.plotting")
    shown = [
        write_notebook(tmp_path / f"{name}.ipynb", "import pkg.plotting", cell)
        for name, cell in (
            ("b", "help(pkg.plotting.f)"),
            ("c", "pkg.plotting.f.__doc__"),
            ("d", "pkg.plotting?"),
        )
    ]
    module = package / "plotting.py"
    module.write_text('"""Doc."""\ndef f(x):\n    """Adds."""\n    return x + 1')
    before = [code_digests(notebook, package) for notebook in (plain, *shown)]
    assert set(before[0]) == {"plotting.py"}
    module.write_text(text)
    after = [code_digests(notebook, package) for notebook in (plain, *shown)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [same] + [same_where_shown] * 3


def test_changing_editing_leaves_attribution_alone(tmp_path: Path):
    mipnb = ROOT / "mipnb"
    notebook = write_notebook(tmp_path / "a.ipynb", "from mipnb.hooks import gated")
    names = {path.stem for path in code_files(notebook, mipnb)}
    assert "hooks" in names
    assert not names & {"editing", "evaluation", "plotting", "run", "cli"}


def chain(**instead: tuple[str, ...]) -> list[Stage]:
    """a <- b <- c <- d, and e that reads a; c's read of b may be replaced."""
    reads = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("c",), "e": ("a",)}
    return [Stage(name, Path(name), read, (), instead if name == "c" else {}) for name, read in reads.items()]


def test_a_set_parameter_replaces_a_read_and_idles_what_only_that_needed():
    listed = chain(b=("reuse_paths", "use_released_paths"))
    assert replaced_reads(listed, Params()) == tuple(listed)
    assert no_longer_read(listed, listed) == set()
    after = replaced_reads(listed, Params(reuse_paths="runs/other"))
    assert [stage.reads for stage in after] == [(), ("a",), ("a",), ("c",), ("a",)]
    assert no_longer_read(listed, after) == {"b"}


def test_given_paths_take_the_place_of_locating():
    for name in ("reuse_paths", "use_released_paths"):
        plan = make_plan(Params(**{name: "somewhere"}))
        assert not {"02_attribution", "03_paths"} & set(plan.selected)
        assert plan.stages["04_editing"].reads == ("01_vanilla_model",)
        assert make_plan(Params(**{name: "somewhere"}), only="03").selected == ("03_paths",)
        with pytest.raises(ValueError, match="03_paths is not run"):
            make_plan(Params(**{name: "somewhere"}), start="03")
    assert {"02_attribution", "03_paths"} <= set(make_plan(Params()).selected)


def test_a_notebook_takes_the_parameters_that_replace_its_reads():
    for stage in load_stages(ROOT / "notebooks"):
        names = {name for names in stage.instead.values() for name in names}
        assert names <= set(notebook_parameters(stage.notebook)), stage.name


def test_of_a_reused_run_only_the_paths_count_as_inputs(tmp_path: Path):
    notebook = write_notebook(tmp_path / "a.ipynb", 'reuse_paths: str = ""', tag="parameters")
    other = tmp_path / "other"
    for name in ("03_paths/paths/text.safetensors", "05_evaluation/results.parquet"):
        (other / name).parent.mkdir(parents=True)
        (other / name).write_text("x")
    stage = Stage("a", notebook)
    for place in (other, other / "03_paths" / "paths"):
        inputs = ingredients(stage, Params(reuse_paths=str(place)), tmp_path, {})["inputs"]
        assert [Path(name).name for name in inputs] == ["text.safetensors"]
    assert ingredients(stage, Params(), tmp_path, {})["inputs"] == {}
