"""lm-evaluation-harness scores the deployed file through `potstill-edge serve`, and gets what `potstill evaluate` gets.

    lm_eval_server.py build/release/potstill build/release/potstill-edge MODEL.gguf TOKENIZER_FOLDER BENCHMARKS [ROWS]

BENCHMARKS has arc_easy/test.jsonl (the Hub's fields). Without it there is nothing to compare, and the script says so.
"""
import json, math, pathlib, subprocess, sys, tempfile

from edge_server import edge_server

potstill, edge, model, tokenizer, benchmarks = sys.argv[1:6]
rows = int(sys.argv[6]) if len(sys.argv) > 6 else 200
data = pathlib.Path(benchmarks) / "arc_easy/test.jsonl"
if not data.exists():
    print(f"lm-evaluation-harness: skipped, {data} is absent")
    sys.exit(0)

import lm_eval

with tempfile.TemporaryDirectory() as folder, edge_server(edge, model) as address:
    task = pathlib.Path(lm_eval.__file__).parent / "tasks/arc/arc_easy.yaml"
    lines = [line for line in task.read_text().splitlines()
             if not line.startswith(("dataset_path", "dataset_name", "training_split", "validation_split", "task:"))]
    local = pathlib.Path(folder) / "task.yaml"
    local.write_text("\n".join([f"task: arc_easy_local\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data.resolve()}", *lines]))
    theirs = lm_eval.simple_evaluate(
        model="local-completions", tasks=["arc_easy_local"], limit=rows, log_samples=True, bootstrap_iters=0,
        model_args=f"model={pathlib.Path(model).stem},base_url={address}/v1/completions,tokenizer={tokenizer},num_concurrent=4,max_length=2048",
        task_manager=lm_eval.tasks.TaskManager(include_path=folder))
    output = pathlib.Path(folder) / "ours.json"
    subprocess.run([potstill, "evaluate", "--quiet", "--model", model, "--tasks", "arc_easy", "--data", benchmarks, "--limit", str(rows),
                    "--output", str(output), "--log-samples"], check=True, stdout=subprocess.DEVNULL)
    ours = json.loads(output.read_text())["results"]["arc_easy"]
    scores = theirs["results"]["arc_easy_local"]
for metric in ("acc,none", "acc_norm,none"):
    print(f"{metric.split(',')[0]:8} of {rows} rows: harness over HTTP {scores[metric]:.4f}, potstill evaluate {ours[metric]:.4f}")
    # The runtimes round differently in the last bits; a choice between equals may turn over.
    assert math.isclose(scores[metric], ours[metric], abs_tol=1.5 / rows), "the deployed file scores differently"
