"""`potstill-edge serve` for as long as a `with` block takes."""
import contextlib, re, signal, subprocess


@contextlib.contextmanager
def edge_server(binary, model, *flags):
    server = subprocess.Popen([binary, "serve", str(model), "--port", "0", *flags], stderr=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://[^ ]+", server.stderr.readline()).group(0)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, f"the server exited with {server.returncode}"
