"""The documentation site: the committed notebooks as pages, the public interface, errors. `make docs` builds it, offline."""

import importlib.metadata

project = "mipnb"
release = importlib.metadata.version("mipnb")
author = "the mipnb authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network
]
# the source is the project itself, so that notebooks and README stand once
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/README.md",
]
exclude_patterns = [".venv", "build", "runs"]
nb_execution_mode = "off"  # pages show the outputs that are committed
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
html_theme = "furo"
html_title = "mipnb"
html_extra_path = ["index.html"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True


def setup(app):
    """Docstrings write |x| for absolute values and sizes; Sphinx takes that for a substitution."""
    app.connect("autodoc-process-docstring", _bars)


def _bars(app, what, name, obj, options, lines):
    lines[:] = [line.replace("|", r"\|") for line in lines]
