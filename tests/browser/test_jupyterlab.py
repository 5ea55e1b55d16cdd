"""The handbook in a real JupyterLab in a headless Chromium: `make test-browser`.

Needs chromium and chromedriver (Debian: apt install chromium chromium-driver).
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.checks.framework import judge
from mtl_lib.handbook.student import student_notebook
from mtl_lib.paths import NOTEBOOKS

PATIENCE = 90  # seconds until something that has to appear counts as missing
EMPTY = ("[ ]:", "[*]:")  # prompts of a cell that has not ended
WRONG = "scores = lambda q, k: q @ k.transpose(-2, -1)"
RIGHT = "scores = lambda q, k: q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5"
ATTACK = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Folder and address of a JupyterLab server."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MTL_MINE": str(folder / "mine")}
    environment["JUPYTER_CONFIG_DIR"] = str(folder / "config")
    environment.pop("MTL_STATIC", None)  # a reader's notebook is live
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                f"--port={port}", "--IdentityProvider.token=", "--ServerApp.password=",
                f"--ServerApp.root_dir={folder}", "--ServerApp.disable_check_xsrf=True",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )  # fmt: skip
    try:
        wait(lambda: answers(f"{address}/api"), "JupyterLab")
        yield folder, address
    finally:
        server.terminate()
        server.wait()


def wait(condition, what: str, seconds: float = PATIENCE):
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except Exception:  # noqa: BLE001 - elements come and go while a page is built
            pass
        time.sleep(0.3)
    raise AssertionError(f"{what} did not appear within {seconds} seconds")


def answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as response:
        return bool(json.load(response))


class Notebook:
    """A notebook open in the browser."""

    def __init__(self, lab, browser, notebook: nbformat.NotebookNode, name: str):
        folder, address = lab
        nbformat.write(notebook, folder / name)
        self.browser, self.cells, self.folder = browser, len(notebook.cells), folder
        browser.get(f"{address}/lab/tree/{name}?reset")
        wait(lambda: len(self._cells()) == self.cells, f"{self.cells} cells of {name}")
        wait(lambda: "Idle" in self._indicator(), "an idle kernel")
        if dialogs := browser.find_elements(By.CSS_SELECTOR, ".jp-Dialog"):
            raise AssertionError(dialogs[0].text)

    def _cells(self):
        return self.browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell")

    def _indicator(self) -> str:
        selector = ".jp-Notebook-ExecutionIndicator"
        element = self.browser.find_element(By.CSS_SELECTOR, selector)
        return (element.get_attribute("data-status") or "").title()

    def write(self, index: int, text: str) -> None:
        """Replace a cell's source, key by key."""
        self._cells()[index].find_element(By.CSS_SELECTOR, ".cm-content").click()
        keys = ActionChains(self.browser)
        keys.key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL)
        keys.send_keys(Keys.DELETE).send_keys(text).perform()

    def run(self, index: int) -> str:
        """Run a cell with Shift+Enter; what it prints."""
        before = self._count(index)
        wait(lambda: self._started(index, before), f"the start of cell {index}")
        try:
            wait(lambda: self._count(index) not in (before, *EMPTY), f"the end of cell {index}")
        except AssertionError as error:
            self.browser.save_screenshot(str(self.folder / "lost.png"))
            state = f"its prompt is {self._count(index)}, the kernel {self._indicator()}"
            raise AssertionError(f"{error}: {state}; see {self.folder}/lost.png") from None
        time.sleep(0.5)  # the output follows the number
        outputs = self._cells()[index].find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output")
        return "\n".join(output.text for output in outputs)

    def _started(self, index: int, before: str) -> bool:
        """Press the keys; whether the cell runs. A page that is still arranging itself loses keys,
        and a reader presses them again."""
        self._cells()[index].find_element(By.CSS_SELECTOR, ".cm-content").click()
        keys = ActionChains(self.browser)
        keys.key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
        return bool(wait(lambda: self._count(index) not in (before, EMPTY[0]), "a start", 10))

    def _count(self, index: int) -> str:
        prompt = self._cells()[index].find_element(By.CSS_SELECTOR, ".jp-InputArea-prompt")
        return prompt.text.strip()


def one_exercise(name: str) -> tuple[nbformat.NotebookNode, int]:
    """The student notebook cut down to the code that leads to one exercise and its check."""
    path = next(NOTEBOOKS.glob(f"{EXERCISES[name].chapter:02d}_*.ipynb"))
    notebook = student_notebook(nbformat.read(path, as_version=4), path.name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    check = next(i for i, cell in enumerate(cells) if f'check("{name}"' in cell.source)
    exercise = max(i for i in range(check) if "exercise" in cells[i].metadata.get("tags", ()))
    imports = [c for c in cells[:exercise] if not c.metadata.get("tags")][:1]
    notebook.cells = [*imports, cells[exercise], cells[check]]
    return notebook, len(imports)


def test_an_exercise_names_the_mistake_and_then_passes(lab, browser):
    notebook, exercise = one_exercise("scores")
    page = Notebook(lab, browser, notebook, "exercise.ipynb")
    for index in range(exercise + 1):
        page.run(index)
    assert "not done yet" in page.run(exercise + 1)
    page.write(exercise, WRONG)
    page.run(exercise)
    named = page.run(exercise + 1)
    unscaled = judge(EXERCISES["scores"], lambda q, k: q @ k.transpose(-2, -1))
    assert unscaled.mistake and unscaled.mistake in " ".join(named.split())
    page.write(exercise, RIGHT)
    page.run(exercise)
    assert "passed" in page.run(exercise + 1)
    assert RIGHT in (lab[0] / "mine" / "answers" / "scores.py").read_text()


def notebook_of(*sources: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


PICTURE = """
import matplotlib.pyplot as plt
from mtl_lib.handbook.play import play


def draw(length):
    plt.plot([0, length])
    plt.show()


play(draw, length=(1, 5, 2))
"""


def test_a_slider_that_is_moved_changes_the_picture(lab, browser):
    page = Notebook(lab, browser, notebook_of(PICTURE), "slider.ipynb")
    page.run(0)

    def picture() -> str:
        selector = ".jp-OutputArea .widget-vbox img"
        return browser.find_element(By.CSS_SELECTOR, selector).get_attribute("src")

    before = wait(picture, "the picture")

    def moved() -> bool:
        handle = browser.find_element(By.CSS_SELECTOR, ".widget-slider .noUi-handle")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
        handle.send_keys(Keys.ARROW_RIGHT)
        return True

    wait(moved, "a slider that can be moved")
    wait(lambda: picture() != before, "another picture")
    readout = browser.find_element(By.CSS_SELECTOR, ".widget-readout")
    assert readout.text == "3"


def sentences_on_show(folder: Path) -> nbformat.NotebookNode:
    """A notebook that shows a hostile sentence in every way the library has."""
    (folder / "hostile").mkdir()
    row = f"0\tabc\t{ATTACK}\t1"
    (folder / "hostile" / "ids-sst-train.csv").write_text(f"\tid\tsentence\tsentiment\n{row}\n")
    code = (
        """
from dataclasses import asdict
import pandas as pd
from mtl_lib.study.corpora import load_corpus
corpus = load_corpus("hostile")
example = corpus.splits["sentiment"]["train"][0]
print(example.text)
example
""",
        """
pd.DataFrame([asdict(example)])
""",
    )
    return notebook_of(*code)


def test_script_and_html_in_a_sentence_stay_text(lab, browser):
    page = Notebook(lab, browser, sentences_on_show(lab[0]), "hostile.ipynb")
    for index in range(page.cells):
        assert "onerror" in page.run(index)
    assert browser.title != "run"
    assert not browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea img[src=x]")
