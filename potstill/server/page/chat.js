// The chat page: talks with the server's own API, keeps the conversation in this tab alone.
"use strict";

const $ = (id) => document.getElementById(id);
let messages = [];      // {role, content}
let stop = null;        // AbortController of the answer under way

function headers() {
  const all = { "Content-Type": "application/json" };
  if ($("key").value) all["Authorization"] = "Bearer " + $("key").value;
  return all;
}

// Text with its ``` blocks as <pre>; everything is set as text, so nothing of an answer becomes markup.
function fill(element, text) {
  element.replaceChildren();
  text.split(/^```[^\n]*\n?/m).forEach((part, i) => {
    if (!part) return;
    const piece = document.createElement(i % 2 ? "pre" : "span");
    piece.textContent = part;
    element.append(piece);
  });
}

function add(role, text) {
  document.querySelector(".empty")?.remove();
  const box = document.createElement("div");
  box.className = "message " + role;
  const body = document.createElement("div");
  fill(body, text);
  box.append(body);
  $("messages").append(box);
  $("messages").scrollTop = $("messages").scrollHeight;
  return body;
}

function note(body, text, isError) {
  const line = document.createElement("div");
  line.className = "note" + (isError ? " error" : "");
  line.textContent = text;
  body.parentElement.append(line);
  $("messages").scrollTop = $("messages").scrollHeight;
}

// The JSON of each "data: …" event of a response, as they come.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
      const line = held.slice(0, end);
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

async function ask() {
  const system = $("system").value.trim();
  const request = {
    messages: (system ? [{ role: "system", content: system }] : []).concat(messages),
    temperature: Number($("temperature").value), top_p: 0.95, max_tokens: Number($("max-tokens").value),
    stream: true, stream_options: { include_usage: true },
  };
  const body = add("assistant", "…");
  let text = "", tokens = 0, reason = "";
  const begin = performance.now();
  stop = new AbortController();
  $("send").textContent = "Stop";
  try {
    const response = await fetch("v1/chat/completions",
      { method: "POST", headers: headers(), body: JSON.stringify(request), signal: stop.signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const atEnd = $("messages").scrollHeight - $("messages").scrollTop - $("messages").clientHeight < 40;
      for (const choice of event.choices) {
        text += choice.delta.content ?? "";
        reason = choice.finish_reason ?? reason;
      }
      tokens = event.usage?.completion_tokens ?? tokens;
      fill(body, text);
      if (atEnd) $("messages").scrollTop = $("messages").scrollHeight;
    }
    const seconds = (performance.now() - begin) / 1000;
    note(body, `${tokens} tokens, ${(tokens / seconds).toFixed(1)} a second` + (reason === "length" ? ", cut at the longest answer" : ""));
  } catch (error) {
    if (!text) fill(body, "");
    note(body, error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
    if (!text) messages.pop(); // a question without an answer is asked again, not twice
  }
  if (text) messages.push({ role: "assistant", content: text });
  stop = null;
  $("send").textContent = "Send";
  $("input").focus();
}

function reset() {
  stop?.abort();
  messages = [];
  const empty = document.createElement("p");
  empty.className = "empty";
  empty.textContent = "Ask something. Nothing leaves this machine.";
  $("messages").replaceChildren(empty);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stop) return stop.abort();
  const text = $("input").value.trim();
  if (!text) return;
  $("input").value = "";
  $("input").style.height = "";
  messages.push({ role: "user", content: text });
  add("user", text);
  ask();
});
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && matchMedia("(pointer: fine)").matches) {
    event.preventDefault();
    if (!stop) $("form").requestSubmit();
  }
});
$("input").addEventListener("input", () => {
  $("input").style.height = "auto";
  $("input").style.height = $("input").scrollHeight + 2 + "px";
});
$("new").addEventListener("click", reset);
$("settings-button").addEventListener("click", () => {
  $("settings").hidden = !$("settings").hidden;
  $("settings-button").setAttribute("aria-expanded", String(!$("settings").hidden));
});
fetch("v1/models", { headers: headers() }).then((response) => response.ok ? response.json() : null).then((list) => {
  if (list) $("model").textContent = list.data[0].id;
  else $("settings-button").click();
}).catch(() => {});
reset();
