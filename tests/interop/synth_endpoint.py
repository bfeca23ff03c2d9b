"""`potstill synth` with `potstill-edge serve` as its teacher: a budget that runs out, the same command with more, a third that asks nothing.

    synth_endpoint.py build/release/potstill build/release/potstill-edge MODEL.gguf
"""
import os, pathlib, re, shutil, subprocess, sys, tempfile

from edge_server import edge_server

potstill, edge, model = sys.argv[1:4]
key = "sk-interop-key"
with tempfile.TemporaryDirectory() as folder:
    os.environ["POTSTILL_API_KEY"] = os.environ["POTSTILL_TEACHER_API_KEY"] = key
    with edge_server(edge, model) as address:
        def synth(*flags):
            run = subprocess.run([potstill, "synth", "--task", "recipes/tasks/elementary_science.yaml", "--teacher", address + "/v1",
                                  "--teacher-model", pathlib.Path(model).stem, "--pairs", "4", "--seed", "1", "--out", folder + "/D_gen", *flags],
                                 capture_output=True, text=True)
            return run.returncode, run.stdout + run.stderr

        status, said = synth("--budget-tokens", "3000")
        assert status == 130 and "budget is spent" in said, said
        lines = (pathlib.Path(folder) / "D_gen.raw.jsonl").read_text().count("\n")
        assert lines > 0, "answers were paid for and not kept"
        status, said = synth()
        assert status == 0, said
        reused = int(re.search(r"answers asked, (\d+) found on the disk", said).group(1))
        assert reused >= lines, (reused, lines, said)
        shutil.rmtree(folder + "/D_gen")
        status, again = synth()
        assert status == 0 and re.search(r"\b0 answers asked", again), again
    for file in pathlib.Path(folder).rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), f"the key is in {file}"
    assert key not in said + again
print(f"potstill synth over HTTP: stopped at its budget after {lines} answers, went on with {reused} of them, kept the key to itself")
