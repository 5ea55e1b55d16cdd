"""How Sphinx builds the handbook's site; scripts/build_site.py calls it."""

import json
import os
import re
from pathlib import Path

ROOT = Path(os.environ["MTL_SITE_ROOT"])  # the repository
FACTS = json.loads(os.environ["MTL_SITE_FACTS"])  # of scripts/build_site.py: version, repository

project = "Multi-task learning with BERT"
html_title = project
release = FACTS["version"]
extensions = ["myst_nb", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "autoapi.extension"]
extensions += ["sphinx_copybutton"]
exclude_patterns = ["autoapi_templates"]
nitpicky = False
highlight_language = "text"
default_role = "code"  # docstrings mark code by single backticks, as Markdown does

# Pages and notebooks, as stored.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_render_text_lexer = "text"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# MathJax lies beside the pages. Its menu would load parts that do not.
mathjax_path = "mathjax/tex-chtml-full.js"
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = "static/icon.svg"
html_copy_source = False
html_show_sphinx = False
copyright = "the handbook's authors; code MIT, text and pictures CC BY 4.0"
html_theme_options = {
    "top_of_page_buttons": [],
    "footer_icons": [{"name": "Repository", "url": FACTS["repository"], "html": "Repository"}],
}

# The reference of the library, read from its source: nothing is imported.
autoapi_dirs = [str(ROOT / "mtl_lib")]
autoapi_root = "api"
# Whole paths: the checkout itself may lie in a folder named handbook.
autoapi_ignore = [
    f"{ROOT}/mtl_lib/{name}" for name in ("study/*", "handbook/*", "cli.py", "__main__.py")
]
autoapi_options = ["members", "undoc-members", "show-inheritance"]
autoapi_member_order = "bysource"
autoapi_add_toctree_entry = False
autoapi_keep_files = False
autoapi_python_class_content = "both"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False
suppress_warnings = ["autoapi.python_import_resolution"]

SECTION = re.compile(r"\s*(Args|Returns|Raises|Yields|Attributes|Note|Example)s?:\s*$")


def as_text(app, what, name, obj, options, lines: list[str]) -> None:
    """A docstring's Markdown as reStructuredText: indented code, tables, and bars that are bars."""
    kept, code, before = [], False, ""
    for number, line in enumerate(lines):
        indented, words = line.startswith("    "), line.strip()
        if words and not indented:
            code = False
        if indented and number and not lines[number - 1].strip() and not code:
            code = not before.startswith(" ") and not SECTION.match(before)
            kept += ["::", ""] if code else []
        if words.startswith("| ") and not code:
            if not before.startswith("|"):
                kept += [".. list-table::", "   :header-rows: 1", ""]
            if not words.startswith("|--"):
                first, *others = words.strip("| ").split(" | ")
                kept += [f"   * - {first}", *(f"     - {other}" for other in others)]
        elif not re.fullmatch(r"\|[-| ]+\|", words):
            kept.append(line if code else line.replace("|", "\\|"))
        before = line if words else before
    lines[:] = kept


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_text, priority=100)  # before napoleon
