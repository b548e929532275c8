"""The report of a run: all of it is there, and nothing is fetched."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mipnb.html_report import write_report
from mipnb.params import Params
from mipnb.plain_html import markdown_html
from mipnb.plan import make_plan

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "notebooks"
PIXEL = b"\x89PNG not really"


def shown(**data: str) -> list:
    return [
        new_output(
            "execute_result", data={f"text/{kind}": text for kind, text in data.items()}, execution_count=1
        )
    ]


@pytest.fixture
def report(tmp_path: Path, monkeypatch) -> str:
    shutil.copytree(FIXTURES, tmp_path / "notebooks")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "pocket"
    for name in ("01_numbers", "02_sum"):
        (run / name / "figures").mkdir(parents=True)
    cells = [
        new_markdown_cell("# Title\n\n## How many?"),
        new_code_cell("table", outputs=shown(html="<table><tr><td>forty-two</td></tr></table>")),
        new_code_cell(
            "people", outputs=shown(html='<table class="mipnb-people"><tr><td>Ada</td></tr></table>')
        ),
        new_code_cell("verdict", outputs=shown(markdown="**Yes:** `x` < 3.\n\n- one\n- two")),
        new_code_cell("bad", outputs=shown(html='<script src="https://cdn.example/x.js"></script>')),
        new_code_cell("finish()", outputs=shown(html="<table><tr><td>peak_memory_gb</td></tr></table>")),
    ]
    nbformat.write(new_notebook(cells=cells), run / "01_numbers" / "notebook.ipynb")
    (run / "01_numbers" / "figures" / "fig.png").write_bytes(PIXEL)
    (run / "01_numbers" / "figures" / "manifest.json").write_text(
        json.dumps({"fig": {"caption": "Before & after"}})
    )
    (run / "01_numbers" / "log.txt").write_text("fine\nmemory.py:1: RuntimeWarning: out of memory with 8\n")
    error = new_output("error", ename="ValueError", evalue="<wrong>", traceback=[])
    failed = new_notebook(cells=[new_code_cell("1 / 0", execution_count=5, outputs=[error])])
    nbformat.write(failed, run / "02_sum" / "notebook.failed.ipynb")
    return write_report(make_plan(Params(n_steps=7))).read_text()


def section(report: str, name: str) -> str:
    return re.search(rf'<h2 id="{name}">.*?(?=<h2|</body>)', report, re.DOTALL)[0]


def test_every_part_is_there(report: str):
    assert "<b>7</b>" in section(report, "parameters")
    assert "<b>42</b>" not in section(report, "parameters")
    assert "Ada" in section(report, "before-and-after")
    assert f"base64,{base64.b64encode(PIXEL).decode()}" in section(report, "figures")
    assert "Before &amp; after" in section(report, "figures")
    assert "How many?" in section(report, "tables")
    assert "forty-two" in section(report, "tables")
    assert "<b>Yes:</b> <code>x</code> &lt; 3." in section(report, "tables")
    assert "Ada" not in section(report, "tables")
    assert "peak_memory_gb" in section(report, "versions")


def test_warnings_and_failures_are_told(report: str):
    told = section(report, "warnings")
    assert "01_numbers: memory.py:1: RuntimeWarning: out of memory with 8" in told
    assert "02_sum: failed in cell In [5]: ValueError: &lt;wrong&gt;" in told
    assert "03_show: not run yet" in told


def test_nothing_is_fetched_and_no_script_runs(report: str):
    assert "<script" not in report
    assert not re.findall(r"""(?:src|href)=["']?(?!["']|data:|\#)""", report)
    assert not re.search(r"url\(|@import|<link", report)


def test_tags_are_closed(report: str):
    opened = []

    class Stack(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "br"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Stack().feed(report)
    assert opened == []


def test_markdown_of_sentences():
    assert markdown_html("a  \nb") == "<p>a<br>b</p>"
    assert markdown_html("- a\n- **b**") == "<ul><li>a</li><li><b>b</b></li></ul>"
    assert markdown_html("") == ""
