"""Publishing a run, on a project of three tiny notebooks and on notebooks made by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mipnb.artefacts import read_json, write_json
from mipnb.cli import main
from mipnb.evaluation import COLUMNS
from mipnb.kept_run import KEPT, keep
from mipnb.publish import check_outputs, check_run, copy_figures, fill
from mipnb.readme_blocks import notebook_table, numbers, paper_item
from mipnb.stages import load_stages

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "notebooks"


def source(*cells: str) -> nbformat.NotebookNode:
    tags = [["parameters"] if cell.startswith("seed:") else [] for cell in cells]
    nodes = [
        new_code_cell(cell, metadata={"tags": tag} if tag else {})
        for cell, tag in zip(cells, tags, strict=True)
    ]
    return new_notebook(
        cells=[new_markdown_cell("# Title"), *nodes], metadata={"language_info": {"name": "python"}}
    )


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """As papermill leaves it: its own cell, counts, times, standard error."""
    done = nbformat.from_dict(notebook)
    done.metadata["papermill"] = {"duration": 3}
    done.cells.insert(2, new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}))
    for count, cell in enumerate((cell for cell in done.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.metadata["papermill"] = {"start_time": "now"}
        cell.outputs = [
            new_output("stream", name="stderr", text="bar"),
            new_output(
                "execute_result",
                {"text/plain": cell.source, "application/vnd.jupyter.widget-view+json": {"model_id": "gone"}},
                execution_count=count,
            ),
        ]
    return done


def test_outputs_come_over_and_traces_of_papermill_do_not():
    notebook = source("seed: int = 4", "seed + 1")
    filled = fill(notebook, executed(notebook))
    assert [cell.get("execution_count") for cell in filled.cells] == [None, 1, 2]
    assert [output.execution_count for cell in filled.cells[1:] for output in cell.outputs] == [1, 2]
    assert [cell.outputs[0].data["text/plain"] for cell in filled.cells[1:]] == ["seed: int = 4", "seed + 1"]
    assert filled.cells[1].metadata == {"tags": ["parameters"]}
    assert filled.cells[2].metadata == {}
    assert "papermill" not in nbformat.writes(filled)
    assert "bar" not in nbformat.writes(filled)
    assert "widget-view" not in nbformat.writes(filled), "a widget without its state is an error on a page"
    assert notebook.cells[1].outputs == []


def test_prose_may_change_after_the_run_and_code_may_not():
    notebook = source("seed: int = 4", "1")
    done = executed(notebook)
    notebook.cells[0].source = "# Another title"
    notebook.cells.append(new_markdown_cell("More words."))
    filled = fill(notebook, done)
    assert [cell.source for cell in filled.cells] == ["# Another title", "seed: int = 4", "1", "More words."]
    assert [cell.execution_count for cell in filled.cells if cell.cell_type == "code"] == [1, 2]


def test_other_cells_and_failed_cells_are_refused():
    with pytest.raises(ValueError, match="not those of its source"):
        fill(source("1"), executed(source("seed = 1", "2")))
    notebook = source("seed: int = 4", "1")
    for change in (
        {"execution_count": None},
        {"outputs": [new_output("error", ename="E", evalue="", traceback=[])]},
    ):
        done = executed(notebook)
        done.cells[-1].update(change)
        with pytest.raises(ValueError, match="was not executed, or failed"):
            fill(notebook, done)


def test_a_folder_of_this_machine_is_refused(tmp_path: Path):
    notebook = source("seed: int = 4", "here")
    notebook.cells[2].outputs = [new_output("stream", text=f"{tmp_path}/runs")]
    with pytest.raises(ValueError, match=r"x\.ipynb: the output of `here` names"):
        check_outputs(Path("x.ipynb"), notebook, tmp_path)
    check_outputs(Path("x.ipynb"), source("seed: int = 4", "here"), tmp_path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FIXTURES, tmp_path / "notebooks")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_must_be_whole_and_at_default_parameters(project: Path, capsys):
    before = {path: path.read_bytes() for path in (project / "notebooks").iterdir()}
    assert main(["publish"]) == 2
    assert "01_numbers: not run yet" in capsys.readouterr().err
    assert main(["run", "-p", "seed", "7"]) == 0
    stages, run = load_stages(project / "notebooks"), project / "runs" / "pocket"
    capsys.readouterr()
    assert main(["publish"]) == 2
    assert "parameters changed: seed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert main(["run"]) == 0
    check_run(stages, "runs/pocket", run)
    stages = [*stages[:2], replace(stages[2], optional=True)]
    for stage, seconds in zip(stages, (60, 120, 240), strict=True):
        record = run / stage.name / "record.json"
        write_json(record, read_json(record) | {"seconds": seconds})
    table = notebook_table(stages, run, project / "notebooks" / "none.ipynb").splitlines()
    assert [line.split("|")[2].strip() for line in table[2:]] == ["data", "01", "02", "", ""]
    assert [line.split("|")[4].strip() for line in table[2:]] == ["1.0", "2.0", "4.0", "3.0", "7.0"]
    assert table[-2].split("|")[1].strip() == "the run, 01 to 02"
    kept = keep(stages[:1], run) / stages[0].name
    shutil.rmtree(run / stages[0].name)
    row, *_ = notebook_table(stages, run, project / "notebooks" / "none.ipynb").splitlines()[2:]
    assert row.split("|")[4].strip() == "1.0", "of the run that it was published from before"
    shutil.rmtree(kept)
    row, *others = notebook_table(stages, run, project / "notebooks" / "none.ipynb").splitlines()[2:]
    assert row.split("|")[4:6] == ["  ", "  "], "never run: a line without minutes and memory"
    assert "" not in [other.split("|")[4].strip() for other in others]


def project_readme(project: Path) -> Path:
    blocks = "".join(
        f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in ("notebooks", "trial", "gpu")
    )
    readme = project / "README.md"
    readme.write_text(blocks)
    return readme


def minutes(readme: Path) -> list[str]:
    """Of the notebooks, in the README's table."""
    return [line.split("|")[4].strip() for line in readme.read_text().splitlines() if "[`0" in line]


def test_one_notebook_is_published_and_others_stay(project: Path):
    readme = project_readme(project)
    assert main(["run"]) == 0
    keep(load_stages(project / "notebooks")[:1], project / "runs" / "pocket")
    others = {path: path.read_bytes() for path in (project / "notebooks").iterdir() if "02" not in path.name}
    assert main(["publish", "--only", "2"]) == 0
    assert {path: path.read_bytes() for path in others} == others
    cells = nbformat.read(project / "notebooks" / "02_sum.ipynb", 4).cells
    assert [cell.execution_count for cell in cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5, 6]
    assert {kept.name for kept in (project / KEPT).iterdir()} == {"01_numbers", "02_sum"}
    first, second, third = minutes(readme)
    assert first
    assert second
    assert third == "", "the run has it; nobody published it"


def test_a_notebook_that_kept_ones_were_made_from_is_refused_alone(project: Path, capsys):
    readme = project_readme(project)
    assert main(["run"]) == 0
    keep(load_stages(project / "notebooks"), project / "runs" / "pocket")
    source_of = project / "notebooks" / "02_sum.ipynb"
    source_of.write_text(source_of.read_text().replace("sum(numbers)", "2 * sum(numbers)"))
    assert main(["run"]) == 0
    before = {path: path.read_bytes() for path in (source_of, readme, project / KEPT / "02_sum" / "sum.json")}
    capsys.readouterr()
    assert main(["publish", "--only", "02"]) == 2
    told = capsys.readouterr().err
    assert "publishing 02_sum would leave " in told
    assert "03_show: " in told
    assert {path: path.read_bytes() for path in before} == before, "nothing is written"
    assert main(["publish", "--only", "02", "--only", "03"]) == 0


def test_a_fault_that_others_had_before_is_not_laid_to_what_is_published(project: Path, capsys):
    project_readme(project)
    assert main(["run"]) == 0
    keep(load_stages(project / "notebooks"), project / "runs" / "pocket")
    first = project / "notebooks" / "01_numbers.ipynb"
    first.write_text(first.read_text().replace("wrote", "has written"))
    assert main(["publish", "--only", "03"]) == 0
    capsys.readouterr()
    assert main(["publish", "--only", "01"]) == 2, "not run since"
    assert "01_numbers: notebook changed" in capsys.readouterr().err


def test_figures_and_their_manifests_are_united(tmp_path: Path):
    for name in ("a", "b"):
        write_json(tmp_path / name / "manifest.json", {f"fig_{name}": {"files": [f"{name}.svg"]}})
        (tmp_path / name / f"{name}.svg").write_text(name)
    write_json(tmp_path / "all" / "manifest.json", {"fig_a": {"files": []}, "fig_z": {"files": []}})
    copy_figures([tmp_path / "a", tmp_path / "none", tmp_path / "b"], tmp_path / "all")
    found = read_json(tmp_path / "all" / "manifest.json")
    assert found == {"fig_a": {"files": ["a.svg"]}, "fig_b": {"files": ["b.svg"]}, "fig_z": {"files": []}}
    assert (tmp_path / "all" / "b.svg").read_text() == "b"


def test_the_numbers_are_means_over_seeds():
    rows = [
        ["r", "m", "b", method, 5, seed, "forget", "CLOZE_QA", "text", "accuracy", value, 9, 0.0, 1.0]
        for method, seed, value in (
            ("vanilla", 1, 1.0), ("prune", 1, 0.5), ("edited", 1, 0.1), ("edited", 2, 0.3), ("random", 1, 0.9),
        )
    ]  # fmt: skip
    table = numbers(pd.DataFrame(rows, columns=COLUMNS)).splitlines()
    assert table[0] == "| split | task | metric | vanilla | prune | edited (seeds: 2) | random |"
    assert table[2:] == ["| forget | CLOZE | accuracy | 1.00 | 0.50 | 0.20 | 0.90 |"]


def test_the_item_of_the_paper_is_read_off_the_first_cell(tmp_path: Path):
    for text, item in (
        ("# T\n*Time:* x. *Paper item:* Eq. 2-6,\nTable 1.", "Eq. 2-6, Table 1"),
        ("# T\n*Paper item:* Eq. 4.\n\nMore words.", "Eq. 4"),
        ("# T", ""),
    ):
        nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), tmp_path / "a.ipynb")
        assert paper_item(tmp_path / "a.ipynb") == item
