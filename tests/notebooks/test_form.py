"""The notebooks as pages: parameters, tags, counts, lengths, and no traces of the machine."""

import ast
from pathlib import Path

import pytest

from mipnb.artefacts import project_root
from mipnb.params import Params
from mipnb.stages import load_stages, notebook_parameters, read_notebook

FOLDER = project_root() / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
OPTIONAL = {stage.name for stage in load_stages(FOLDER) if stage.optional}
LONGEST = 25  # lines of a code cell


def code_cells(path: Path) -> list:
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


def tagged(path: Path, tag: str) -> list:
    return [cell for cell in code_cells(path) if tag in cell.metadata.get("tags", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_one_parameters_cell_with_the_shared_defaults(self, path: Path):
        assert len(tagged(path, "parameters")) == 1
        values = notebook_parameters(path)
        assert values
        assert values == {name: getattr(Params(), name) for name in values}
        cells = code_cells(path)
        after = cells[cells.index(tagged(path, "parameters")[0]) + 1]
        assert "params = check_parameters(globals())" in after.source

    def test_it_begins_with_a_title_and_what_it_reads_and_writes(self, path: Path):
        first = read_notebook(path).cells[0]
        assert first.cell_type == "markdown"
        assert first.source.startswith("# ")
        for word in ("Reads", "Writes", "Time", "Paper item"):
            assert word in first.source

    def test_it_ends_with_versions_that_are_not_compared(self, path: Path):
        last = read_notebook(path).cells[-1]
        assert "nbval-ignore-output" in last.metadata.get("tags", ())
        assert "finish(" in last.source or "versions()" in last.source

    def test_cells_are_short_and_none_failed(self, path: Path):
        for cell in code_cells(path):
            if "parameters" not in cell.metadata.get("tags", ()):  # a list, as long as it has to be
                assert len(cell.source.splitlines()) <= LONGEST, cell.source
            assert not [output for output in cell.outputs if output.output_type == "error"]

    def test_published_counts_are_1_to_n(self, path: Path):
        counts = [cell.execution_count for cell in code_cells(path)]
        if path.stem in OPTIONAL and not any(counts):  # not published yet: then it shows nothing at all
            assert not any(cell.outputs for cell in code_cells(path))
            return
        assert counts == list(range(1, len(counts) + 1)), (
            "run `mipnb publish`: nbval passes over uncounted cells"
        )

    def test_it_names_no_folder_of_a_machine(self, path: Path):
        text = path.read_text(encoding="utf-8")
        for trace in (str(project_root()), "papermill", "injected-parameters", "/home/", "site-packages"):
            assert trace not in text.replace("by papermill", "").replace("`papermill", ""), trace


def test_the_main_job_is_five_notebooks_and_the_table_of_stages_is_complete():
    assert [stage.name[:2] for stage in load_stages(FOLDER) if not stage.optional] == [
        "01",
        "02",
        "03",
        "04",
        "05",
    ]
    assert [stage.name for stage in load_stages(FOLDER)] == [path.stem for path in NOTEBOOKS][1:]


WITH_WIDGETS = [path for path in NOTEBOOKS if "explore.panels" in path.read_text()]


@pytest.mark.parametrize("path", WITH_WIDGETS, ids=lambda path: path.stem)
def test_a_figure_stands_above_each_widget(path: Path):
    figures = 0
    for cell in code_cells(path):
        if "explore.panels" in cell.source:
            assert figures, "no figure since the widget before"
            figures = 0
        figures += "figsize=" in cell.source or "ask_both(" in cell.source


@pytest.mark.parametrize("path", WITH_WIDGETS, ids=lambda path: path.stem)
def test_a_widget_needs_no_other_cell(path: Path):
    for cell in (cell for cell in code_cells(path) if "explore.panels" in cell.source):
        tree = ast.parse(cell.source)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert used == {alias.name for node in imports for alias in node.names}
