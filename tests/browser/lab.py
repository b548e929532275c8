"""JupyterLab in a headless Chromium, driven as a reader would: open, run, move a control, look."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

#: a file's input is no part of the page until its dialog would open: keep it where a test can fill it
_CATCH_FILES = (
    "HTMLInputElement.prototype.click = function () {"
    " this.style.display = 'block'; this.id = 'caught'; document.body.append(this); }"
)
_HUMAN = 0.3  # seconds from one control to the next; a front end sends a control's state with some delay
_RUNNING = "return [...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"


def field(panel: str, label: str, kind: str) -> str:
    """Where in a panel the control with a label is: kind is select, input, or handle (of a slider)."""
    rest = "div//*[contains(@class, 'noUi-handle')]" if kind == "handle" else kind
    return f"//*[contains(@class, '{panel}')]//label[normalize-space()='{label}']/following-sibling::{rest}"


class Lab:
    """One browser at one JupyterLab server.

    Args:
        driver: the browser.
        address: the server's, with its token.
        shots: folder for screenshots.
    """

    def __init__(self, driver: WebDriver, address: str, shots: Path) -> None:
        self.driver, self.address, self.shots = driver, address, shots

    def open(self, notebook: str) -> None:
        """Open a notebook of notebooks/ in a fresh page, its kernel idle."""
        place, _, token = self.address.partition("?")
        self.driver.get(f"{place}lab/tree/notebooks/{notebook}.ipynb?reset&{token}")
        self.wait(lambda: self.driver.execute_script("return window.jupyterapp !== undefined"), 60)
        self.wait(lambda: self.all(".jp-Notebook .jp-Cell"), 60)
        idle = (
            "const w = jupyterapp.shell.currentWidget, k = w && w.sessionContext && w.sessionContext.session;"
            "return !!k && !!k.kernel && k.kernel.status === 'idle'"
        )
        self.wait(lambda: self.driver.execute_script(idle), 60)
        self.driver.execute_script(_CATCH_FILES)

    def command(self, name: str) -> None:
        """A command of JupyterLab's menus."""
        self.driver.execute_script(f"jupyterapp.commands.execute('{name}')")

    def run_all(self, seconds: float = 120) -> None:
        """Run > Run All Cells, and wait."""
        self.command("notebook:run-all-cells")
        time.sleep(0.5)
        self.wait(lambda: not self.driver.execute_script(_RUNNING), seconds)

    def run_cell_with(self, text: str, seconds: float = 60) -> None:
        """Click into the cell whose source holds a text, and press Shift+Enter."""
        cell = next(cell for cell in self.all(".jp-CodeCell") if text in cell.get_attribute("textContent"))
        self._middle(cell)
        editor = cell.find_element(By.CSS_SELECTOR, ".cm-content")
        editor.click()
        editor.send_keys(Keys.SHIFT, Keys.ENTER)
        time.sleep(0.5)
        self.wait(lambda: not self.driver.execute_script(_RUNNING), seconds)

    def restart(self) -> None:
        """Restart the kernel and clear all outputs, and say yes."""
        self.command("kernelmenu:restart-and-clear")
        self.wait(lambda: self.all(".jp-Dialog .jp-mod-accept"))
        self.one(".jp-Dialog .jp-mod-accept").click()
        self.wait(lambda: not self.all(".jp-OutputArea-output"), 30)

    def all(self, css: str) -> list[WebElement]:
        """Elements of the page, by a CSS selector or an XPath."""
        return self.driver.find_elements(By.XPATH if css.startswith("//") else By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        """The first such element, once it is there."""
        return self.wait(lambda: self.all(css))[0]

    def text(self, css: str) -> str:
        """What an element says, "" while it is not there."""
        found = self.all(css)
        return found[0].text if found else ""

    def picture(self, css: str) -> str:
        """An image's address: another picture has another one."""
        return self.one(css).get_attribute("src")

    def wait(self, met: Callable[[], Any], seconds: float = 20) -> Any:
        """What `met` returns, once that is something; AssertionError with a screenshot if it never is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if found := met():
                    return found
            except (StaleElementReferenceException, WebDriverException) as error:
                if "Timed out receiving" in str(error):
                    raise
            time.sleep(0.03)
        self.shot("waited_in_vain")
        raise AssertionError(f"not within {seconds} s; see {self.shots / 'waited_in_vain.png'}")

    def changes(
        self, read: Callable[[], str], act: Callable[[], Any], seconds: float = 20
    ) -> tuple[str, float]:
        """What is read after something is done, once it differs from before; and how many seconds that took."""
        before, started = read(), time.monotonic()
        act()
        now = self.wait(lambda: (now := read()) and now != before and now, seconds)
        return now, time.monotonic() - started

    def choose(self, css: str, label: str) -> None:
        """Choose in a list, by what it shows."""
        found = self.one(css)
        self._middle(found)
        Select(found).select_by_visible_text(label)
        time.sleep(_HUMAN)

    def options(self, css: str) -> list[str]:
        """What a list offers."""
        return [option.get_attribute("textContent") for option in Select(self.one(css)).options]

    def click(self, css: str) -> None:
        """Click on an element, brought to the middle of the window first."""
        found = self.one(css)
        self._middle(found)
        found.click()

    def type(self, css: str, text: str) -> None:
        """Write into a field, in place of what it holds."""
        field = self.one(css)
        self._middle(field)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE)
        field.send_keys(text, Keys.TAB)
        time.sleep(_HUMAN)

    def press(self, css: str, *keys: str) -> None:
        """Keys to an element, e.g. arrows to a slider's handle."""
        found = self.one(css)
        self._middle(found)
        found.send_keys(*keys)

    def upload(self, css: str, file: Path) -> None:
        """A file for an upload button."""
        self.click(css)
        self.wait(lambda: self.all("#caught"))[-1].send_keys(str(file))
        self.driver.execute_script("document.querySelectorAll('#caught').forEach(one => one.remove())")

    def shot(self, name: str, css: str = "") -> Path:
        """A screenshot of the window, an element in its middle."""
        if css:
            self._middle(self.one(css))
            time.sleep(0.3)
        path = self.shots / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def traces(self) -> list[str]:
        """Stack traces and error outputs on the page."""
        shown = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
        found = [one.get_attribute("textContent") for one in self.all(shown)]
        return found + ["Traceback"] * ("Traceback (most recent" in self.text("body"))

    def _middle(self, found: WebElement) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
