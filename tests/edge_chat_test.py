#!/usr/bin/env python3
"""potstill-edge chat at a terminal: keys that edit, lines from before, commands, Ctrl-C. edge_chat_test.py POTSTILL_EDGE MODEL"""
import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time

binary, model = sys.argv[1:]
failures = []


class Chat:
    """The program at a terminal of its own; `read_until` collects what it shows."""

    def __init__(self, path, *flags):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", LC_ALL="C.UTF-8")
            os.execv(binary, [binary, "chat", str(path), "--temperature", "0", "--context", "512", *flags])
        self.pending = ""  # shown after what was last waited for
        self.read_until("> ")

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def read_until(self, text, seconds=60):
        shown, end = self.pending, time.monotonic() + seconds
        while text not in shown:
            ready, _, _ = select.select([self.terminal], [], [], max(0, end - time.monotonic()))
            if not ready:
                failures.append(f"'{text}' did not come within {seconds} s; there was {shown!r}")
                return shown
            try:
                data = os.read(self.terminal, 4096)
            except OSError:  # it ended
                return shown
            shown += data.decode(errors="replace")
        found = shown.index(text) + len(text)
        self.pending = shown[found:]
        return shown[:found]

    def answered(self):
        """An answer's closing line, and the next prompt: keys before it meet the terminal's own line editing."""
        self.read_until("tokens,")
        self.read_until("> ")

    def end(self, keys="/exit\r"):
        self.type(keys)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            try:
                if select.select([self.terminal], [], [], 0.05)[0]:
                    os.read(self.terminal, 4096)
            except OSError:  # it has let go of its terminal
                time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return "did not end"


def expect(name, good):
    if not good:
        failures.append(name)


with tempfile.TemporaryDirectory() as folder:
    saved = pathlib.Path(folder) / "talk.jsonl"

    def messages():
        return [json.loads(line)["messages"] for line in saved.read_text().splitlines()]

    chat = Chat(model, "--max-tokens", "4")
    # "hxllo", back over the "llo" to the x and away with it, an "e"; é as one character that Backspace takes whole.
    chat.type("hxllo\x1b[D\x1b[D\x1b[D\x7fe\x1b[F é\x7f\x7f\r")
    chat.answered()
    chat.type(f"/save {saved}\r")
    chat.read_until("messages saved)")
    expect(f"edited line: {messages()[0]}", messages()[0][0] == {"role": "user", "content": "hello"})
    expect("an answer of the assistant", [m["role"] for m in messages()[0]] == ["user", "assistant"])

    # Two lines up, changed at its end; then a line that is typed, left for an older one, and come back to.
    chat.type("\x1b[A\x1b[A there\r")
    chat.answered()
    chat.type("new\x1b[A\x1b[B line\x01a \x05\x17\x17both\r")
    chat.answered()
    chat.type("\x1b[200~first\rsecond\r\x1b[201~\r")
    chat.answered()
    chat.type(f"/save {saved}\r")
    chat.read_until("messages saved)")
    asked = [m["content"] for m in messages()[1] if m["role"] == "user"]
    expect(f"lines from before, a paste of two lines: {asked}", asked == ["hello", "hello there", "a both", "first\nsecond"])

    # Ctrl-C drops a line, not the program; /system begins anew; /retry asks the same again.
    chat.type("never sent\x03")
    chat.read_until("> ")
    chat.type("/system Be brief.\r")
    chat.read_until("with that system text")
    chat.type("question\r")
    chat.answered()
    chat.type("/retry\r")
    chat.answered()
    chat.type(f"/save {saved}\r")
    chat.read_until("messages saved)")
    expect(f"system text, one question: {messages()[2]}",
           [(m["role"], m["content"]) for m in messages()[2]][:2] == [("system", "Be brief."), ("user", "question")]
           and len(messages()[2]) == 3)
    chat.type("/reset\r")
    chat.read_until("a new conversation)")
    chat.type(f"/save {folder}/absent/talk\r")
    chat.read_until("No such file")
    chat.type("/nothing\r")
    chat.read_until("is no command")
    expect("Ctrl-D leaves, and well", chat.end("\x04") == 0)

    # Random weights whose answers take seconds, and have an end only by chance.
    slow = pathlib.Path(folder) / "slow.gguf"
    subprocess.run([binary, "bench", slow, "--random-model", "135m", "--prompt", "1", "--generate", "1", "--repetitions", "1", "-q"],
                   check=True, stdout=subprocess.DEVNULL)
    chat = Chat(slow, "--max-tokens", "100000")
    chat.type("go on for long\r")
    time.sleep(0.3)
    chat.type("\x03")
    chat.read_until(", stopped)")
    chat.read_until("> ")
    expect("and the program goes on", chat.end() == 0)

for failure in failures:
    print(f"FAILED {failure}", file=sys.stderr)
print("edge_chat: all held" if not failures else f"edge_chat: {len(failures)} failed")
sys.exit(bool(failures))
