"""Five AdamW steps of a LoRA student by transformers and PEFT: weights, initial and final factors, loss of each step.

Made with torch 2.15.0, transformers 5, peft 0.21, seed 3:  python tests/golden/distill/peft_loop.py
Writes peft_loop.json, peft_loop_student.safetensors, peft_loop_teacher.safetensors, peft_loop_adapter/ and
peft_loop_trained.safetensors beside it. Each step takes all pairs, one padded batch, so their order does not matter.
"""

import json
import pathlib

import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
torch.manual_seed(3)
ALPHA, TEMPERATURE, LR, STEPS, VOCAB = 0.7, 2.0, 1e-2, 5, 40


def model(layers):
    config = transformers.LlamaConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=layers,
                                      num_attention_heads=4, num_key_value_heads=2, head_dim=4, tie_word_embeddings=True,
                                      rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=64, initializer_range=0.3,
                                      attn_implementation="eager")
    return transformers.LlamaForCausalLM(config).float()


student, teacher = model(2), model(3).eval()
save_file({k: v.clone().contiguous() for k, v in student.state_dict().items() if k != "lm_head.weight"},
          here / "peft_loop_student.safetensors", {"format": "pt"})
save_file({k: v.clone().contiguous() for k, v in teacher.state_dict().items() if k != "lm_head.weight"},
          here / "peft_loop_teacher.safetensors", {"format": "pt"})

records = []
for prompt, answer in [(5, 4), (3, 9), (8, 2), (2, 6), (6, 5)]:
    ids = torch.randint(0, VOCAB, (prompt + answer,)).tolist()
    records.append({"tokens": ids, "is_answer": [0] * prompt + [1] * answer})
longest = max(len(r["tokens"]) for r in records)
ids = torch.tensor([r["tokens"] + [0] * (longest - len(r["tokens"])) for r in records])
attention = torch.tensor([[1] * len(r["tokens"]) + [0] * (longest - len(r["tokens"])) for r in records])
answer = torch.tensor([r["is_answer"] + [0] * (longest - len(r["tokens"])) for r in records]).bool()

student = peft.get_peft_model(student, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
student.save_pretrained(here / "peft_loop_adapter")
(here / "peft_loop_adapter" / "README.md").unlink(missing_ok=True)
optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=LR, weight_decay=0.01)
with torch.no_grad():
    teacher_logits = teacher(input_ids=ids, attention_mask=attention).logits[:, :-1][answer[:, 1:]]
labels = ids[:, 1:][answer[:, 1:]]
steps = []
for _ in range(STEPS):
    logits = student(input_ids=ids, attention_mask=attention).logits[:, :-1][answer[:, 1:]]
    kl = F.kl_div(F.log_softmax(logits / TEMPERATURE, -1), F.log_softmax(teacher_logits / TEMPERATURE, -1), log_target=True,
                  reduction="batchmean")
    ce = F.cross_entropy(logits, labels)
    loss = ALPHA * TEMPERATURE**2 * kl + (1 - ALPHA) * ce
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    steps.append({"loss": loss.item(), "kl": kl.item(), "ce": ce.item(), "grad_norm": norm.item()})
trained = peft.get_peft_model_state_dict(student)
save_file({k: v.clone().contiguous() for k, v in trained.items()}, here / "peft_loop_trained.safetensors", {"format": "pt"})
with torch.no_grad():
    final = student(input_ids=ids, attention_mask=attention).logits[:, :-1][answer[:, 1:]]
json.dump({"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__, "alpha": ALPHA,
           "temperature": TEMPERATURE, "lr": LR, "rank": 4, "lora_alpha": 8, "vocab": VOCAB, "records": records, "steps": steps,
           "final_logits_mean_abs": final.abs().mean().item()}, open(here / "peft_loop.json", "w"), indent=1)
