"""The `openai` package against `potstill-edge serve`: chat, streams, log-probabilities, JSON schemas, tools, errors.

    openai_client.py build/release/potstill-edge MODEL.gguf
"""
import json, sys
from typing import Annotated

import openai
from pydantic import BaseModel, Field

from edge_server import edge_server


class Planet(BaseModel):
    name: str = Field(max_length=20)
    has_rings: bool
    moons: list[Annotated[str, Field(max_length=12)]] = Field(max_length=3)


with edge_server(sys.argv[1], sys.argv[2]) as address:
    client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    ask = dict(model=model, messages=[{"role": "user", "content": "Name a planet with rings."}], max_tokens=48, seed=1)

    whole = client.chat.completions.create(**ask, temperature=0, logprobs=True, top_logprobs=3)
    text = whole.choices[0].message.content
    assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.content), "one entry for each token"
    assert bytes(b for token in whole.choices[0].logprobs.content for b in token.bytes).decode() == text
    assert all(token.logprob == max(top.logprob for top in token.top_logprobs) for token in whole.choices[0].logprobs.content), "greedy"

    chunks = list(client.chat.completions.create(**ask, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text, "the stream says the same"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens

    draws = [client.chat.completions.create(**ask, temperature=1.0, n=3) for _ in range(2)]
    texts = [[choice.message.content for choice in draw.choices] for draw in draws]
    assert texts[0] == texts[1] and len(set(texts[0])) > 1, "a seed repeats its draws, and choices differ"

    planet = client.chat.completions.parse(**{**ask, "max_tokens": 200}, temperature=0.7, response_format=Planet)
    assert isinstance(planet.choices[0].message.parsed, Planet)
    anything = client.chat.completions.create(**{**ask, "max_tokens": 300}, temperature=1.0, response_format={"type": "json_object"})
    if anything.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(anything.choices[0].message.content), dict)

    tools = [{"type": "function", "function": {"name": "rings", "parameters": {
        "type": "object", "properties": {"planet": {"enum": ["Saturn", "Uranus"]}}, "required": ["planet"]}}}]
    called = client.chat.completions.create(**{**ask, "max_tokens": 200}, temperature=0, tools=tools, tool_choice="required")
    call = called.choices[0].message.tool_calls[0]
    assert called.choices[0].finish_reason == "tool_calls" and call.function.name == "rings"
    assert json.loads(call.function.arguments)["planet"] in ("Saturn", "Uranus")
    follow = ask["messages"] + [called.choices[0].message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "yes"}]
    client.chat.completions.create(**{**ask, "messages": follow}, tools=tools)

    echoed = client.completions.create(model=model, prompt=["The sky is", "Ice is"], max_tokens=4, echo=True, logprobs=2, stop=["\n"], temperature=0)
    for choice, prompt in zip(echoed.choices, ["The sky is", "Ice is"]):
        assert choice.text.startswith(prompt) and choice.logprobs.token_logprobs[0] is None
        assert "".join(choice.logprobs.tokens).startswith(prompt)

    for change, error in [({"temperature": 9}, openai.BadRequestError), ({"model": "other"}, openai.NotFoundError),
                          ({"max_tokens": 10**6}, openai.BadRequestError)]:
        try:
            client.chat.completions.create(**{**ask, **change})
            raise SystemExit(f"{change} was taken")
        except error as refused:
            assert refused.body["message"], refused
print(f"openai {openai.__version__}: chat, streams, log-probabilities, JSON schema, tools, completions and errors as it expects")
