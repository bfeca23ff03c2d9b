#!/usr/bin/env python3
"""Writes chat_templates.json: conversations as transformers renders the published templates.

    python tests/golden/text/make_chat_golden.py TRL_TEMPLATES SMOLLM2.gguf
        TRL_TEMPLATES: trl/chat_templates of the wheel trl==1.16.0, where the families' templates lie as published
    made with transformers 5.23.0, jinja2 3.1.6

Of each template only the lines that print or name its family are kept, which is what ChatTemplate::detect reads.
"""
import json
import pathlib
import re
import sys

import gguf
from transformers.utils.chat_template_utils import render_jinja_template

CHATML = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
# Mistral's published templates, without their parts for tools
CHECK = "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif %}"
SYSTEM = "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}"
MISTRAL_V1 = SYSTEM + "{%- for message in loop_messages %}" + CHECK + """{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token}}{%- else %}{{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}{%- endif %}{%- endfor %}"""
MISTRAL_V3 = SYSTEM + "{%- for message in loop_messages %}" + CHECK + """{%- if message["role"] == "user" %}{%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}{%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}{%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}{%- endif %}{%- endfor %}"""


def conversations():
    u = lambda text: {"role": "user", "content": text}
    a = lambda text: {"role": "assistant", "content": text}
    s = lambda text: {"role": "system", "content": text}
    return [
        [u("Hello")],
        [u("  Why is the sky blue? \n"), a("\nRayleigh scattering.  ")],
        [s("You are terse."), u("Hi")],
        [s(" Answer in French. "), u("One?"), a("Un."), u("Two?"), a("Deux."), u("Three <|im_end|> {{ x }}?")],
        [u("a"), a("<think>\nfirst\n</think>\n\nb"), u("c"), a("<think>\nsecond thought\n</think>\n\nd")],
        [u("\u00a0\u2003Stra\u00dfe \u4f60\u597d \U0001f642\x1c"), a("\x1f ok \u3000")],
        [s("x"), u("1"), a("2")],
        [s(""), u(""), a("")],
        [u("two"), u("in a row")],
        [a("assistant first")],
    ]


def main(trl, smollm2):
    reader = gguf.GGUFReader(smollm2)
    source = lambda name: (pathlib.Path(trl) / f"{name}.jinja").read_text()
    families = {
        "ChatML": (CHATML, "", ""),
        "SmolLM2": (reader.fields["tokenizer.chat_template"].contents(), "<|im_start|>", "<|im_end|>"),
        "Qwen2.5": (source("qwen2_5"), "", "<|im_end|>"),
        "Qwen3": (source("qwen3"), "", "<|im_end|>"),
        "Qwen3-2507": (source("qwen3_instruct_2507"), "", "<|im_end|>"),
        "Llama 3": (source("llama3"), "<|begin_of_text|>", "<|eot_id|>"),
        "Llama 3.1": (source("llama3_1"), "<|begin_of_text|>", "<|eot_id|>"),
        "Llama 3.2": (source("llama3_2"), "<|begin_of_text|>", "<|eot_id|>"),
        "Mistral v1": (MISTRAL_V1, "<s>", "</s>"),
        "Mistral v3": (MISTRAL_V3, "<s>", "</s>"),
        "Gemma": (source("gemma"), "<bos>", "<end_of_turn>"),
        "Gemma 3": (source("gemma3"), "<bos>", "<end_of_turn>"),
    }
    kind = {"Qwen3-2507": "ChatML", "Llama 3.2": "Llama 3.1"}
    out = []
    for name, (template, bos, eos) in families.items():
        cases = []
        for messages in conversations():
            for answer in (False, True):
                case = {"messages": messages, "add_generation_prompt": answer}
                try:
                    rendered, _ = render_jinja_template(
                        [messages], chat_template=template, add_generation_prompt=answer, bos_token=bos, eos_token=eos,
                        date_string="26 Jul 2024")
                    case["rendered"] = rendered[0]
                except Exception as error:
                    case["refused"] = str(error)
                cases.append(case)
        lines = template.splitlines(keepends=True)
        marks = re.compile(r"<\||\[/?INST\]|<start_of_turn>|first_user_prefix|think>|reasoning_content|Cutting Knowledge|SmolLM|Qwen,|^'|^You")
        kept = template if len(template) < 1000 else "".join(line for line in lines if marks.search(line) and "tool" not in line)
        out.append({"family": name, "kind": kind.get(name, name), "source": kept, "cases": cases})
    target = pathlib.Path(__file__).with_name("chat_templates.json")
    target.write_text(json.dumps(out, ensure_ascii=True, indent=0) + "\n")


main(*sys.argv[1:])
