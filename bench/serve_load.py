"""Load and abuse of `potstill-edge serve` on loopback: 64 clients that chat, hang up and stall for a minute, then 10,000 bad requests.

    bench/serve_load.py build/release/potstill-edge MODEL.gguf [--seconds 60] [--clients 64] [--bad 10000]

Exits with 1 when the server crashed, answered something it should not have, kept a slot busy, or grew. Python's standard library alone.
"""
import argparse, asyncio, collections, json, random, re, signal, statistics, subprocess, sys, time


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


def post(path, body, extra=""):
    if isinstance(body, str):
        body = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{extra}\r\n"
    return head.encode() + body


def chat(rng, stream):
    words = " ".join(rng.choice("ice water why does the sun burn blue float sky so".split()) for _ in range(rng.randint(2, 40)))
    return post("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": words}], "stream": stream,
                                                    "max_tokens": rng.randint(1, 48)}))


async def exchange(port, request, read_limit=None, timeout=120):
    """The status (0: closed without one) and the number of bytes that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        data = b""
        while read_limit is None or len(data) < read_limit:
            piece = await asyncio.wait_for(reader.read(65536), timeout)
            if not piece:
                break
            data += piece
        return (int(data[9:12]) if data.startswith(b"HTTP/1.1 ") else 0), data
    except (ConnectionError, BrokenPipeError):
        return 0, b""
    finally:
        writer.close()


async def client(port, seed, until, seen, times):
    rng = random.Random(seed)
    while time.monotonic() < until:
        stream, leaves = rng.random() < 0.7, rng.random() < 0.2
        begin = time.monotonic()
        status, data = await exchange(port, chat(rng, stream), rng.randint(1, 2000) if leaves else None)
        kind = "left" if leaves else status
        if not leaves and status == 200 and stream and not data.rstrip().endswith(b"data: [DONE]\n\n\r\n0") and b"[DONE]" not in data:
            kind = "torn stream"
        seen[kind] += 1
        if kind == 200:
            times.append(time.monotonic() - begin)


async def half_open(port, until, seen):
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(random.choice([b"", b"GET /health", b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"]))
        try:
            await asyncio.wait_for(reader.read(1), max(0.1, until - time.monotonic()))
            seen["half-open, closed by the server"] += 1
        except (asyncio.TimeoutError, ConnectionError):
            pass
        writer.close()


async def slow_loris(port, until, seen):
    while time.monotonic() < until:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for byte in b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 10000:
                if time.monotonic() > until:
                    break
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.5)
        except (ConnectionError, BrokenPipeError):
            seen["slow loris, closed by the server"] += 1
        writer.close()


async def slow_reader(port, until, seen):
    request = post("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "count"}], "stream": True, "max_tokens": 200}))
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(request)
        try:
            for _ in range(20):
                await asyncio.wait_for(reader.read(16), 5)
                await asyncio.sleep(0.5)
                if time.monotonic() > until:
                    break
        except (ConnectionError, asyncio.TimeoutError):
            pass
        seen["slow readers"] += 1
        writer.close()


def bad_request(rng):
    good = {"messages": [{"role": "user", "content": "x"}]}
    kind = rng.randrange(12)
    path = rng.choice(["/v1/chat/completions", "/v1/completions"])
    if kind == 0: return bytes(rng.randrange(256) for _ in range(rng.randint(1, 200))) + b"\r\n\r\n"
    if kind == 1: return post(path, json.dumps(good)[: rng.randint(0, 30)])
    if kind == 2: return post(path, b'{"messages": "' + bytes(rng.randrange(128, 256) for _ in range(9)) + b'"}')
    if kind == 3: return post(path, "[" * rng.randint(1, 100000))
    if kind == 4: return post(path, json.dumps({**good, "prompt": "x", rng.choice(["temperature", "n", "top_p", "stop", "logit_bias"]): rng.choice(["x", -7, 1e308, [], {"a": 1}, [[]]]), "max_tokens": -1}))
    if kind == 5: return post(path, json.dumps({"messages": [{"role": rng.choice(["", "x", 3, None]), "content": rng.choice([1, {}, [1]])}]}))
    if kind == 6: return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {rng.choice(['-1', 'x', '9' * 30, str(1 << 40)])}\r\n\r\n".encode()
    if kind == 7: return f"{rng.choice(['GET', 'PUT', 'FOO', 'DELETE'])} {rng.choice(['/', '/../..', '/v1/x', '/%00', '/v1/models/../../etc'])}x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    if kind == 8: return b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 40000 + b"\r\n\r\n"
    if kind == 9: return post(path, json.dumps({"prompt": [rng.choice([-1, 1 << 40, "x", 1.5, 10**9])] * rng.randint(1, 5), "messages": []}))
    if kind == 10: return post(path, json.dumps({**good, "response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/a/b"}}}}))
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{rng.choice(['zz', 'ffffffffffffffff', '-5'])}\r\nxx\r\n0\r\n\r\n".encode()


async def bad_client(port, seed, count, seen):
    rng = random.Random(seed)
    for _ in range(count):
        status, _ = await exchange(port, bad_request(rng), timeout=60)
        seen[status] += 1


async def metrics(port):
    _, data = await exchange(port, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    return {name: float(value) for name, value in re.findall(r"^(\w+) ([0-9.e+]+)$", data.decode(), re.M)}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary"), parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=60), parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--bad", type=int, default=10000), parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    server = subprocess.Popen([args.binary, "serve", args.model, "--port", "0", "--threads", str(args.threads), "--context", "1024"],
                              stderr=subprocess.PIPE, text=True)
    port = int(re.search(r":(\d+)  \(API", server.stderr.readline()).group(1))
    failures = []
    try:
        seen, times, samples = collections.Counter(), [], []
        until = time.monotonic() + args.seconds

        async def watch():
            while time.monotonic() < until:
                await asyncio.sleep(args.seconds / 12)
                samples.append(rss_mb(server.pid))

        begin = time.monotonic()
        await asyncio.gather(watch(), *(client(port, seed, until, seen, times) for seed in range(args.clients)),
                             *(half_open(port, until, seen) for _ in range(32)), *(slow_loris(port, until, seen) for _ in range(32)),
                             *(slow_reader(port, until, seen) for _ in range(8)))
        seconds = time.monotonic() - begin
        after = await metrics(port)
        print(f"{args.clients} clients, {seconds:.0f} s: {dict(seen)}")
        if times:
            times.sort()
            print(f"answers: median {statistics.median(times):.2f} s, p95 {times[int(len(times) * 0.95)]:.2f} s; {after['potstill_generated_tokens_total'] / seconds:.0f} tokens/s, "
                  f"{after['potstill_decode_step_tokens_total'] / max(1, after['potstill_decode_steps_total']):.1f} a step, "
                  f"{after['potstill_prompt_tokens_cached_total'] / after['potstill_prompt_tokens_total']:.0%} of prompt tokens cached")
        print("RSS, MB: " + " ".join(f"{sample:.0f}" for sample in samples))
        if len(samples) > 6 and samples[-1] > samples[len(samples) // 2] * 1.05 + 4:
            failures.append("RSS grew in the second half")
        for kind in seen:
            if kind not in (200, 503) and not isinstance(kind, str) or kind == "torn stream":
                failures.append(f"{seen[kind]} answers of {kind}")
        before = rss_mb(server.pid)
        bad = collections.Counter()
        begin = time.monotonic()
        await asyncio.gather(*(bad_client(port, 1000 + i, args.bad // 32 + 1, bad) for i in range(32)))
        print(f"{sum(bad.values())} bad requests in {time.monotonic() - begin:.0f} s: {dict(sorted(bad.items()))}; RSS {before:.0f} -> {rss_mb(server.pid):.0f} MB")
        if rss_mb(server.pid) > before * 1.05 + 4:
            failures.append("RSS grew under bad requests")
        if bad[200] or bad[500]:
            failures.append("a bad request was answered as a good one, or broke something")
        await asyncio.sleep(1)
        end = await metrics(port)
        if end["potstill_sequences_running"] or end["potstill_sequences_queued"]:
            failures.append("a slot is stuck")
        if end["potstill_connections"] > 2:
            failures.append(f"{end['potstill_connections']} connections are left")
        status, _ = await exchange(port, chat(random.Random(0), False))
        if status != 200:
            failures.append(f"the last good request got {status}")
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            if server.wait(40) != 0:
                failures.append(f"the server exited with {server.returncode}")
        except subprocess.TimeoutExpired:
            failures.append("the server did not stop")
            server.kill()
    for failure in failures:
        print("FAILED:", failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


asyncio.run(main())
