"""`potstill synth` with llama.cpp's server as its teacher: chat turns, then whole pairs as JSON held to a schema by the server.

    synth_llama_server.py build/release/potstill .deps/llama.cpp/build/bin/llama-server MODEL.gguf
"""
import json, pathlib, re, socket, subprocess, sys, tempfile, time, urllib.request

potstill, server, model = sys.argv[1:4]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    # Its own facts, so that a weak teacher has something to read; ratings by a written critique would be noise.
    (folder / "birds.yaml").write_text("""
name: birds
description: birds
question_instruction: Write a question that the fact answers.
answer_instruction: Answer the question with the fact, in one full sentence.
seeds:
  - {topic: owls, fact: Owls hunt at night because they see well in the dark., question: "When do owls hunt?", answer: Owls hunt at night.}
  - {topic: ducks, fact: Ducks have webbed feet that help them to swim., question: "What helps ducks to swim?", answer: Webbed feet help ducks to swim.}
subtopics:
  - {name: nests, facts: [Birds build nests to keep their eggs safe., Woodpeckers make their nests in holes of trees.]}
  - {name: food, facts: [Eagles catch fish with their sharp claws., Hummingbirds drink the nectar of flowers., Penguins eat fish and krill.]}
  - {name: flight, facts: [Swallows fly south in winter to find insects., Ostriches cannot fly but run very fast.]}
filter: {min_answer_words: 3, min_question_grounding: 0.5}
""")
    log = open(folder / "server.log", "w")
    process = subprocess.Popen([server, "-m", model, "--port", str(port), "-c", "8192", "-np", "4"], stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                    break
            except OSError:
                time.sleep(0.25)
        for writing in ("steps", "json"):
            run = subprocess.run([potstill, "synth", "--task", folder / "birds.yaml", "--teacher", f"http://127.0.0.1:{port}/v1", "--teacher-model", "smollm2",
                                  "--prompting", "chat", "--writing", writing, "--pairs", "3", "--max-rounds", "6", "--decontaminate", "none",
                                  "--seed", "1", "--out", folder / writing], capture_output=True, text=True)
            said = run.stdout + run.stderr
            assert run.returncode == 0, said
            pairs = [json.loads(line) for line in open(folder / writing / "D_gen.jsonl")]
            assert len(pairs) == 3 and all(pair["output"] for pair in pairs), pairs
            raw = [json.loads(line) for line in open(folder / writing / "raw.jsonl")]
            if writing == "json":
                items = [json.loads(r["response"]["text"]) for r in raw if "json_schema" in r["request"] and r["response"]["finish"] == "stop"]
                assert items and all(set(item) == {"question", "answer"} for item in items), "the server did not keep to the schema"
            print(f"potstill synth over llama.cpp's server, {writing}: 3 pairs out of {len(raw)} answers; \"{pairs[0]['instruction']}\" \"{pairs[0]['output']}\"")
    finally:
        process.terminate()
        process.wait(30)
