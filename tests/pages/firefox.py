"""A headless Firefox, driven by WebDriver BiDi: as much of it as the tests need."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from websocket import create_connection

PREFERENCES = """user_pref("security.fileuri.strict_origin_policy", true);
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
"""  # the network is off


PROGRAM = shutil.which("firefox-esr") or shutil.which("firefox")


def need_firefox() -> None:
    """Skip a test where there is no Firefox; on the build server that is a failure."""
    if PROGRAM is None:
        (pytest.fail if os.environ.get("GANLENS_CI") else pytest.skip)("Firefox is not installed")


class Firefox:
    """A browser with one page."""

    def __init__(self, folder: Path):
        self.profile = folder / "profile"
        self.profile.mkdir()
        (self.profile / "user.js").write_text(PREFERENCES)
        self.count = 0

    def __enter__(self) -> "Firefox":
        log = self.profile / "log"
        with log.open("w") as out:
            command = [PROGRAM, "--headless", "--remote-debugging-port", "0", "--profile", str(self.profile)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        found = None
        while found is None and self.process.poll() is None:
            time.sleep(0.25)
            found = re.search(r"ws://\S+", log.read_text())
        self.socket = create_connection(f"{found.group()}/session", timeout=60, suppress_origin=True)
        self.tell("session.new", capabilities={})
        self.page = self.tell("browsingContext.getTree")["contexts"][0]["context"]
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)

    def tell(self, method: str, **given):
        """The answer to a command."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": given}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.count:
                assert answer["type"] == "success", answer
                return answer["result"]

    def open(self, address: str) -> None:
        self.tell("browsingContext.navigate", context=self.page, url=address, wait="complete")

    def ask(self, expression: str):
        """The value of a JavaScript expression, by way of JSON."""
        target = {"context": self.page}
        code = f"JSON.stringify({expression})"
        found = self.tell("script.evaluate", expression=code, target=target, awaitPromise=True)
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def wait(self, expression: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        for _ in range(int(seconds * 10)):
            if self.ask(f"!!({expression})"):
                return
            time.sleep(0.1)
        raise TimeoutError(expression)
