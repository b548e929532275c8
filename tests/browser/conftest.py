"""A project folder with a finished run, JupyterLab on it, and a headless Chromium; skipped where there is no Chromium."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from lab import Lab
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from mipnb.artefacts import project_root, read_json, write_json

ROOT = project_root()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, pocket_run: Path) -> Path:
    """A copy of the project with runs/pocket; runs/other with another parameter, lower scores and one edit; runs/begun."""
    folder = tmp_path_factory.mktemp("browser") / "project"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for name in ("data", "pyproject.toml", "params"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("pocket", "other"):
        stages = [f"0{number}*" for number in range(1, 6)]
        for stage in (path for pattern in stages for path in pocket_run.glob(pattern)):
            shutil.copytree(stage, folder / "runs" / name / stage.name, ignore=_large)
    _another(folder / "runs" / "other")
    shutil.copytree(
        folder / "runs" / "pocket" / "01_vanilla_model", folder / "runs" / "begun" / "01_vanilla_model"
    )
    return folder


def _large(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("edited_model", "notebook.ipynb", "figures")]


def _another(run: Path) -> None:
    """Turn a copy into another run."""
    write_json(
        run / "04_editing" / "params.json", read_json(run / "04_editing" / "params.json") | {"edit_steps": 77}
    )
    results = pd.read_parquet(run / "05_evaluation" / "results.parquet")
    results[["value", "low", "high"]] *= 0.9
    results.to_parquet(run / "05_evaluation" / "results.parquet")
    history = pd.read_parquet(run / "04_editing" / "history.parquet")
    history.assign(loss=history.loss * 2).to_parquet(run / "04_editing" / "history.parquet")
    first, *others = sorted((run / "04_editing" / "edits").glob("*.safetensors"))
    for path in others:
        path.unlink()
    first.rename(first.with_stem("only_one"))


@pytest.fixture(scope="session")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab of its own, nobody's settings in it."""
    home, token = tmp_path_factory.mktemp("jupyter"), secrets.token_hex(16)
    places = {f"JUPYTER_{what}_DIR": str(home / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "IPYTHONDIR": str(home / "ipython")}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    _settings(home / "settings")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={project}", "--LabApp.news_url=None", "--ServerApp.ip=127.0.0.1"]
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTEST_VERSION", "PYTEST_CURRENT_TEST")}
    with open(home / "log.txt", "w") as log:
        running = subprocess.Popen(command, cwd=project, env=kept | places, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", running, home / "log.txt")
        yield f"http://127.0.0.1:{port}/?token={token}"
    finally:
        running.terminate()
        running.wait(20)


def _settings(folder: Path) -> None:
    """All cells in the page, also those out of sight; no news, no questions."""
    values = {"notebook-extension/tracker": {"windowingMode": "none"}}
    values |= {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
    for name, value in values.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


def _wait_for(address: str, running: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        if running.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"jupyter lab does not answer:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1300,1000"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield found
    found.quit()


@pytest.fixture(scope="session")
def lab(driver: webdriver.Chrome, server: str, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """JupyterLab in the browser; MIPNB_SCREENSHOTS names a folder that keeps the screenshots."""
    shots = Path(os.environ.get("MIPNB_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    shots.mkdir(parents=True, exist_ok=True)
    return Lab(driver, server, shots)
