"""A real JupyterLab and a real Chromium, for tests."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
KERNEL = "window.jupyterapp?.shell?.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'"


def need_chromium() -> None:
    """Skip the test where there is no Chromium; fail where there must be one."""
    if CHROMIUM is None:
        say = pytest.fail if os.environ.get("GANLENS_CI") else pytest.skip
        say("no Chromium on the PATH; on Debian or Ubuntu: apt-get install chromium")


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A server of the notebooks in ``folder``, with settings of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / ".settings"
    names = [f"JUPYTER_{name}_DIR" for name in ("CONFIG", "DATA", "RUNTIME")]
    names += ["IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    environment = os.environ | {name: str(settings / name.lower()) for name in names}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={folder}"]
    options += [
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api/status", folder / "server.log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
        log.close()


def wait_for(address: str, log: Path, seconds: float = 60) -> None:
    for _ in range(int(seconds * 4)):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address).close()
            return
        time.sleep(0.25)
    pytest.fail(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()}")


@contextlib.contextmanager
def page(address: str, notebook: str, prepare: Callable = lambda page: None) -> Iterator:
    """A page with the notebook open in light, its kernel idle; ``prepare`` is given the page before it loads.

    The kernel ends with the page.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        prepare(page)
        page.goto(f"{address}/lab/tree/{notebook}?reset")
        page.wait_for_function(KERNEL, timeout=90_000)
        show_theme(page, "Light")
        yield page
        page.evaluate("jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        browser.close()


def show_theme(page, theme: str) -> None:
    """Show JupyterLab in "Light" or "Dark"."""
    page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{ theme: 'JupyterLab {theme}' }})")
    page.wait_for_function(f"document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
    page.wait_for_function("!document.querySelector('#jupyterlab-splash')")
    page.wait_for_timeout(300)


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook with these code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), path)


def tell_kernel(page, code: str) -> str:
    """Run code in the notebook's kernel, outside of its cells; what it prints."""
    text, errors = page.evaluate(
        """async code => {
            const kernel = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
            let text = '', errors = '';
            const future = kernel.requestExecute({ code, store_history: false });
            future.onIOPub = message => {
                if (message.header.msg_type === 'stream') text += message.content.text;
                if (message.header.msg_type === 'error') errors += message.content.traceback.join('\\n');
            };
            await future.done;
            return [text, errors];
        }""",
        code,
    )
    assert not errors, errors
    return text.strip()


def ask_kernel(page, code: str):
    """The value of a Python expression in the notebook's kernel, by way of JSON."""
    return json.loads(tell_kernel(page, f"import json; print(json.dumps({code}))"))


def run_cells(page, count: int) -> None:
    """Run the first ``count`` cells, one after the other."""
    for i in range(count):
        page.evaluate(
            """async i => {
                jupyterapp.shell.currentWidget.content.activeCellIndex = i;
                await jupyterapp.commands.execute('notebook:run-cell');
            }""",
            i,
        )
