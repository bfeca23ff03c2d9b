"""The chat page of `potstill-edge serve` in a headless Chromium, at a desk's width and a phone's: asks, stops, starts anew.

    chat_page.py build/release/potstill-edge MODEL.gguf [FOLDER for screenshots]

Needs a `chromium` on the PATH; without one it is skipped. Speaks the DevTools protocol over a pipe.
"""
import base64, itertools, json, os, pathlib, shutil, subprocess, sys, tempfile, time

from edge_server import edge_server

chromium = shutil.which("chromium") or shutil.which("chromium-browser")
if chromium is None:
    print("chat page: skipped, there is no chromium")
    sys.exit(0)


class Page:
    def __init__(self, folder):
        to_child, self.write_end = os.pipe()
        self.read_end, from_child = os.pipe()

        def pipes():  # the protocol's file descriptors: 3 to read, 4 to write
            copies = os.dup(to_child), os.dup(from_child)
            os.dup2(copies[0], 3), os.dup2(copies[1], 4)

        self.process = subprocess.Popen([chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"],
                                        preexec_fn=pipes, close_fds=False, stderr=subprocess.DEVNULL)
        self.numbers, self.session, self.held, self.complaints = itertools.count(1), None, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable"), self.call("Log.enable")

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.held:
                self.held += os.read(self.read_end, 1 << 16)
            text, self.held = self.held.split(b"\0", 1)
            answer = json.loads(text)
            is_error = answer.get("params", {}).get("entry", {}).get("level") == "error"
            if answer.get("method") == "Runtime.exceptionThrown" or is_error:
                self.complaints.append(answer["params"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script, what):
        for _ in range(200):
            if self.run(f"!!({script})"):
                return
            time.sleep(0.1)
        raise SystemExit(f"chat page: {what} did not come; the page says {self.run('document.body.innerText')!r}; {self.complaints}")

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def say(page, text):
    page.run(f"document.getElementById('input').value = {json.dumps(text)}; document.getElementById('form').requestSubmit()")


pictures = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, edge_server(sys.argv[1], sys.argv[2]) as address:
    page = Page(folder)
    for name, width, height in (("desk", 1000, 700), ("phone", 390, 844)):
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=name == "phone")
        page.call("Page.navigate", url=address + "/")
        page.wait("document.getElementById('model')?.textContent", "the model's name")
        page.run("document.getElementById('max-tokens').value = 60")
        say(page, "Why does ice float? Show <b>code</b> too.")
        page.wait("document.querySelector('.assistant .note')", "an answer")
        answer = page.run("document.querySelector('.assistant div').textContent")
        note = page.run("document.querySelector('.note').textContent")
        assert len(answer) > 20 and "tokens" in note, (answer, note)
        assert page.run("document.querySelectorAll('b').length") == 0, "text became markup"
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than the screen"
        if pictures:
            page.picture(pictures / f"chat-{name}.png")
        page.run("document.getElementById('max-tokens').value = 1000")
        say(page, "Tell me a very long story of a fox, with every detail.")
        page.wait("document.querySelectorAll('.assistant')[1]?.firstChild.textContent.length > 20", "the second answer")
        page.run("document.getElementById('form').requestSubmit()")  # the button says Stop now
        page.wait("document.getElementById('send').textContent === 'Send'", "the stop")
        page.run("document.getElementById('new').click()")
        assert page.run("document.querySelectorAll('.message').length") == 0
        page.run("document.getElementById('settings-button').click()")
        if pictures:
            page.picture(pictures / f"settings-{name}.png")
    page.process.terminate()
    page.process.wait(20)
    assert not page.complaints, page.complaints
print("chat page: asked, answered, stopped and cleared at both widths")
