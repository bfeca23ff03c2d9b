"""A careful PyTorch + PEFT distillation loop and TRL's GKD trainer on the very token ids and factors that train_bench wrote.

    python bench/train/peers.py peft --student DIR --teacher MODEL --work DIR --dtype fp32 --mode same

Prints one JSON line: tokens/s (median over the steps after the second; tokens without padding), peak RSS, the losses.
The PEFT loop: frozen base without gradients, sdpa attention, right-padded batches, teacher in eval mode without a graph,
T = 2, alpha = 1, T² · KL on the answer positions, AdamW over the factors alone.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import torch.nn.functional as F
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("who", choices=["peft", "trl"])
parser.add_argument("--student", required=True)
parser.add_argument("--teacher", required=True)
parser.add_argument("--work", required=True, help="train_bench's --out")
parser.add_argument("--dtype", default="fp32")
parser.add_argument("--mode", default="same")
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--steps", type=int, default=0)
parser.add_argument("--optimizer", default="adamw")
options = parser.parse_args()
torch.set_num_threads(2)
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
TEMPERATURE = 2.0
steps = json.load(open(f"{options.work}/records.json"))
if options.steps:
    steps = steps[: options.steps]


def load(path):
    if path.endswith(".gguf"):
        folder, name = os.path.split(path)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=DTYPE)
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=DTYPE)


def padded(records):
    longest = max(len(r["tokens"]) for r in records)
    ids = torch.tensor([r["tokens"] + [0] * (longest - len(r["tokens"])) for r in records])
    mask = torch.tensor([[1] * len(r["tokens"]) + [0] * (longest - len(r["tokens"])) for r in records])
    answer = torch.tensor([r["is_answer"] + [0] * (longest - len(r["tokens"])) for r in records]).bool()
    return ids, mask, answer


teacher = load(options.teacher).eval().requires_grad_(False)
student = load(options.student)
student = peft.PeftModel.from_pretrained(student, f"{options.work}/adapter", is_trainable=True)
losses, speeds, shares = [], [], []


def peft_loop():
    trained = [p for p in student.parameters() if p.requires_grad]
    if options.optimizer == "muon":
        optimizer = torch.optim.Muon(trained, lr=options.lr, weight_decay=0.0)
    else:
        optimizer = torch.optim.AdamW(trained, lr=options.lr, weight_decay=0.0)
    student.train()
    for records in steps:
        start = time.perf_counter()
        ids, mask, answer = padded(records)
        target = answer[:, 1:]
        with torch.no_grad():
            p = teacher(input_ids=ids, attention_mask=mask).logits[:, :-1][target].float() / TEMPERATURE
        q = student(input_ids=ids, attention_mask=mask).logits[:, :-1][target].float() / TEMPERATURE
        loss = TEMPERATURE**2 * F.kl_div(F.log_softmax(q, -1), F.log_softmax(p, -1), log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        before = time.perf_counter()
        optimizer.step()
        now = time.perf_counter()
        losses.append(loss.item())
        shares.append((now - before) / (now - start))
        speeds.append(sum(len(r["tokens"]) for r in records) / (now - start))


def trl_gkd():
    import datasets
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            records = steps[state.global_step - 1]
            speeds.append(sum(len(r["tokens"]) for r in records) / (time.perf_counter() - self.start))

        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    def collate(rows):
        ids, mask, answer = padded([{"tokens": r["input_ids"], "is_answer": r["completion_mask"]} for r in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~answer, -100)}

    rows = [{"input_ids": r["tokens"], "completion_mask": r["is_answer"]} for step in steps for r in step]
    config = GKDConfig(output_dir=f"{options.work}/trl", per_device_train_batch_size=len(steps[0]), max_steps=len(steps),
                       learning_rate=options.lr, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=0.0, lmbda=0.0,
                       beta=0.0, seq_kd=False, bf16=False, use_cpu=True, logging_steps=1, save_strategy="no", report_to=[],
                       gradient_checkpointing=False, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
                       remove_unused_columns=False, disable_tqdm=True, optim="adamw_torch", dataloader_num_workers=0)
    folder = options.student
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trainer = GKDTrainer(model=student, teacher_model=teacher, args=config, train_dataset=datasets.Dataset.from_list(rows),
                         processing_class=tokenizer, data_collator=collate, callbacks=[Clock()])
    trainer._get_train_sampler = lambda *a, **k: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.train()


{"peft": peft_loop, "trl": trl_gkd}[options.who]()
print(json.dumps({"who": options.who, "mode": options.mode, "dtype": options.dtype, "loss": losses, "optimizer_share": shares,
                  "tokens_per_s": statistics.median(speeds[2:]),
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
