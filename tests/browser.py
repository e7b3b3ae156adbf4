"""A headless Chromium that a test drives over a pipe, by its own protocol (Chrome DevTools), without a package."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from contextlib import contextmanager, suppress

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Page:
    """A tab: pages opened, what they asked for and said, JavaScript and the pointer in them."""

    def __init__(self, to_browser, from_browser):
        self.to, self.rest, self.number = to_browser, b"", 0
        self.from_browser, self.requests, self.errors, self.loaded = from_browser, [], [], 0
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    session = None

    def send(self, method, **params):
        """The browser's answer to a command; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        os.write(self.to, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def read(self):
        while b"\0" not in self.rest:
            self.rest += os.read(self.from_browser, 1 << 20) or (_ for _ in ()).throw(EOFError("Chromium ended"))
        text, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(text)
        self.keep(message.get("method"), message.get("params", {}))
        return message

    def keep(self, method, params):
        if method == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requests.append(params["request"]["url"])
        if method == "Page.loadEventFired":
            self.loaded += 1
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"])
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(params["args"])

    def open(self, path, width=1280, height=900, dark=False, ratio=1):
        """Opens a file, in a window of so many pixels, and forgets what was asked for and said before."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.requests, self.errors, before = [], [], self.loaded
        self.send("Page.navigate", url=path.as_uri())
        while self.loaded == before:
            self.read()

    def run(self, script):
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def pointer(self, kind, x, y, **more):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.pointer(kind, x, y, button="left", clickCount=1)

    def picture(self, path, whole=False):
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(shot))


@contextmanager
def chromium(folder):
    """A page of a browser that keeps what it writes in a folder."""
    (read_there, to), (read_here, write_there) = os.pipe(), os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read_there, write_there)]
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
    words += ["--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={folder}"]
    browser = subprocess.Popen(
        [*words, "about:blank"],
        pass_fds=(3, 4),  # where it reads and writes
        preexec_fn=lambda: [os.dup2(end, number) for number, end in zip((3, 4), high, strict=True)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (read_there, write_there, *high):
        os.close(end)
    try:
        yield Page(to, read_here)
    finally:
        with suppress(OSError):
            os.write(to, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        os.close(to)
        os.close(read_here)
