"""A page in headless Chromium, driven over its debugging pipe by the standard library alone."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")


class Tab:
    """One page: it runs what is given as JavaScript, and keeps what the browser complains of."""

    def __init__(self, out, back):
        self._out, self._back = out, back
        self._numbers = itertools.count(1)
        self._session, self._buffer = {}, b""
        self.complaints = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Runtime", "Page", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url, width=1280, height=900, dark=False, drawn=True):
        """Loads a page and waits until it has drawn itself."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        # Another hash alone would not load it anew.
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=url)
        ready = (
            "document.documentElement.dataset.drawn"
            if drawn
            else "document.readyState === 'complete'"
        )
        self.run(
            f"new Promise((done) => {{ const id = setInterval(() => {{ if ({ready}) {{ "
            "clearInterval(id); done(true); } }, 10); })"
        )
        return self

    def run(self, script):
        """The value of an expression, a promise's once it is there."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector):
        """What a reader sees of the first element there, in one line."""
        found = self.run(f"document.querySelector({json.dumps(selector)})?.innerText")
        return None if found is None else " ".join(found.split())

    def count(self, selector):
        """How many elements there are."""
        return self.run(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector):
        """Clicks on the first element there."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self.settle()

    def choose(self, label, value):
        """Sets the select of a label."""
        self.run(
            "(() => { const fields = [...document.querySelectorAll('label.field')];"
            "const named = (each) => each.querySelector('span').textContent === "
            f"{json.dumps(label)}; const field = fields.find(named).querySelector('select');"
            f"field.value = {json.dumps(value)}; field.dispatchEvent(new Event('change')); }})()"
        )
        self.settle()

    def type(self, text):
        """Writes into the field of the search."""
        self.run(
            "(() => { const field = document.getElementById('find'); field.focus();"
            f"field.value = {json.dumps(text)}; field.dispatchEvent(new Event('input')); }})()"
        )
        self.settle()

    def press(self, key):
        """Presses and lets go of a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, **text)
        self.settle()

    def settle(self):
        """Waits until what was asked for is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, file):
        """Writes a PNG of what is in sight."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))

    def _call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._keep(answer)

    def _keep(self, event):
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"].get("exception", told)))
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {told['message']}")
            self._out.write(b'{"id": 0, "method": "Page.handleJavaScriptDialog"}\0')
        elif method == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.complaints.append(f"asked for {url}")

    def _read(self):
        while b"\0" not in self._buffer:
            read = os.read(self._back.fileno(), 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def tab():
    """A browser of one page, with a profile of its own."""
    theirs, out = os.pipe()
    back, ours = os.pipe()

    def pipes():
        # What the browser reads from and writes to, by these numbers.
        os.dup2(theirs, 13), os.dup2(ours, 14)
        os.dup2(13, 3), os.dup2(14, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *FLAGS, f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, **quiet)
        os.close(theirs), os.close(ours)
        try:
            with os.fdopen(out, "wb") as writes, os.fdopen(back, "rb") as reads:
                yield Tab(writes, reads)
        finally:
            process.terminate()
            process.wait()
