// The playground of one chain: a form made from its schemas, and its streamed output.
//
// Every text reaches the page through textContent: schemas and outputs may hold anything. The key
// stays in this tab's sessionStorage; one that came in the address (#key=...) is taken out of it.

const STORED = "penstock-key";
const OUTPUT_CHARACTERS_MAX = 1000000;
const byId = (id) => document.getElementById(id);
const chain = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const base = `/chains/${encodeURIComponent(chain)}`;

let readInput = () => null;
let readConfig = () => ({});
let inputSchema = {};
let running = null;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(text, bad = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("bad", bad);
}

function takeKeyFromAddress() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) {
    sessionStorage.setItem(STORED, key);
    history.replaceState(null, "", location.pathname);
  }
}

function ask(why) {
  document.querySelector("main").hidden = true;
  byId("ask").hidden = false;
  byId("why").textContent = why;
  byId("key").focus();
}

function headers() {
  return { authorization: `Bearer ${sessionStorage.getItem(STORED) ?? ""}` };
}

async function schema(kind) {
  const answer = await fetch(`${base}/${kind}_schema`, { headers: headers() });
  if (!answer.ok) throw await problem(answer);
  return answer.json();
}

async function problem(answer) {
  const body = await answer.json().catch(() => ({}));
  const { detail } = body;
  const text = Array.isArray(detail)
    ? detail.map((one) => `${(one.loc ?? []).join(".")}: ${one.msg}`).join("\n")
    : (detail ?? "no reason given");
  return Object.assign(new Error(text), { status: answer.status });
}

// Forms from JSON Schema: objects of simple fields; whatever is not simple is written as JSON.

function resolved(part, root) {
  const name = part?.$ref?.split("/").pop();
  if (name) return resolved(root.$defs?.[name] ?? {}, root);
  const options = part?.anyOf?.filter((option) => option.type !== "null");
  if (options?.length === 1) return { ...resolved(options[0], root), ...part, anyOf: undefined };
  if (part?.allOf?.length === 1) return { ...resolved(part.allOf[0], root), ...part };
  return part ?? {};
}

function field(name, part, isRequired) {
  const id = `field-${name}-${Math.random().toString(36).slice(2)}`;
  const fallback = part.default ?? "";
  let control;
  let read = () => control.value;
  if (Array.isArray(part.enum)) {
    const options = part.enum.map((value) => make("option", { textContent: String(value) }));
    control = make("select", { id }, ...(isRequired ? [] : [make("option", { value: "" })]), ...options);
    control.value = String(fallback);
    read = () => part.enum.find((value) => String(value) === control.value);
  } else if (part.type === "boolean") {
    control = make("input", { id, type: "checkbox", checked: Boolean(part.default) });
    read = () => control.checked;
  } else if (part.type === "number" || part.type === "integer") {
    const step = part.type === "integer" ? "1" : "any";
    control = make("input", { id, type: "number", step, value: String(fallback), required: isRequired });
    read = () => (control.value === "" ? undefined : Number(control.value));
  } else if (part.type === "string") {
    control = make("textarea", { id, value: String(fallback), rows: 2 });
    read = () => (control.value === "" && !isRequired ? undefined : control.value);
  } else {
    const text = part.default === undefined ? "" : JSON.stringify(part.default, null, 2);
    control = make("textarea", { id, className: "code", value: text, spellcheck: false });
    read = () => (control.value.trim() === "" && !isRequired ? undefined : JSON.parse(control.value));
  }
  const about = part.description ? [make("p", { className: "hint", textContent: part.description })] : [];
  const label = make("label", { htmlFor: id, textContent: part.title ?? name });
  return { element: make("div", { className: "field" }, label, ...about, control), read };
}

function fields(part, root) {
  const made = Object.entries(part.properties ?? {}).map(([name, below]) => {
    const isRequired = (part.required ?? []).includes(name);
    return [name, field(name, resolved(below, root), isRequired)];
  });
  const read = () => {
    const values = made.map(([name, one]) => [name, one.read()]);
    return Object.fromEntries(values.filter(([, value]) => value !== undefined));
  };
  return { elements: made.map(([, one]) => one.element), read };
}

function showInput() {
  const isJson = byId("as-json").checked;
  const root = inputSchema;
  const part = resolved(root, root);
  const messages = part.properties?.messages;
  let made;
  if (isJson) {
    const one = field("input", { title: "JSON" }, true);
    made = { elements: [one.element], read: one.read };
  } else if (messages && Object.keys(part.properties).length === 1) {
    const one = field("message", { type: "string", title: "Message" }, true);
    const read = () => ({ messages: [{ role: "user", content: one.read() }] });
    made = { elements: [one.element], read };
  } else if (part.type === "object" && part.properties) {
    made = fields(part, root);
  } else {
    const takesText = part.type === "string" || part.anyOf?.some((option) => option.type === "string");
    const about = takesText ? { type: "string", title: "Text" } : { ...part, title: part.title };
    const one = field("input", about, true);
    made = { elements: [one.element], read: one.read };
  }
  byId("input").replaceChildren(...made.elements);
  readInput = made.read;
}

function showConfig(root) {
  const part = resolved(root.properties?.configurable, root);
  const made = fields(part, root);
  byId("config").replaceChildren(...made.elements);
  byId("config-part").hidden = made.elements.length === 0;
  readConfig = () => {
    const configurable = made.read();
    return Object.keys(configurable).length ? { configurable } : {};
  };
}

// A run, streamed.

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
      const lines = held.slice(0, end).split("\n");
      held = held.slice(end + 2);
      const pick = (name) => lines.find((line) => line.startsWith(name))?.slice(name.length);
      const data = pick("data: ");
      yield { name: pick("event: "), data: data === undefined ? null : JSON.parse(data) };
    }
  }
}

function texts(chunk) {
  if (typeof chunk === "string") return chunk;
  if (chunk && typeof chunk.content === "string" && !chunk.tool_calls?.length) return chunk.content;
  return `${JSON.stringify(chunk, null, 2)}\n`;
}

function put(text) {
  const output = byId("output");
  const isAtEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 8;
  if (output.textContent.length < OUTPUT_CHARACTERS_MAX) output.append(text);
  if (isAtEnd) output.scrollTop = output.scrollHeight;
}

function told(answer, began, runId) {
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const waited = answer.headers.get("penstock-wait-ms");
  const parts = [`${seconds} s`, `class ${answer.headers.get("penstock-class") ?? "?"}`];
  if (waited !== null) parts.push(`waited ${waited} ms for a worker`);
  if (runId) parts.push(`run ${runId}`);
  byId("facts").textContent = parts.join(" · ");
}

async function run() {
  const began = performance.now();
  const priority = byId("class").value;
  const body = JSON.stringify({ input: readInput(), config: readConfig() });
  running = new AbortController();
  const answer = await fetch(`${base}/stream`, {
    method: "POST",
    headers: { ...headers(), "content-type": "application/json", ...(priority ? { priority } : {}) },
    body,
    signal: running.signal,
  });
  if (!answer.ok) throw await problem(answer);
  let runId = "";
  for await (const { name, data } of events(answer.body)) {
    if (name === "metadata") runId = data.run_id;
    if (name === "data") put(texts(data));
    if (name === "error") throw new Error(`${data.status_code}: ${data.message}`);
    told(answer, began, runId);
  }
}

async function start() {
  if (running) return;
  byId("output").textContent = "";
  byId("facts").textContent = "";
  byId("start").disabled = true;
  byId("cancel").disabled = false;
  say("running");
  try {
    await run();
    say("done");
  } catch (error) {
    if (error.name === "AbortError") say("cancelled");
    else if (error.status === 401) refuse(error);
    else {
      say("failed", true);
      put(`\n${error.message}\n`);
    }
  } finally {
    running = null;
    byId("start").disabled = false;
    byId("cancel").disabled = true;
  }
}

function refuse(error) {
  sessionStorage.removeItem(STORED);
  say("");
  ask(error.status === 401 ? "That key is not known." : "That key may not run this chain.");
}

async function open() {
  byId("name").textContent = chain;
  document.title = `${chain} · playground`;
  if (!sessionStorage.getItem(STORED)) {
    ask("");
    return;
  }
  try {
    const [input, config] = await Promise.all([schema("input"), schema("config")]);
    inputSchema = input;
    showInput();
    showConfig(config);
    byId("ask").hidden = true;
    document.querySelector("main").hidden = false;
    byId("input").querySelector("input, textarea, select")?.focus();
  } catch (error) {
    if (error.status === 401 || error.status === 403) refuse(error);
    else say(error.message, true);
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED, byId("key").value);
  byId("key").value = "";
  open();
});
byId("run").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
byId("cancel").addEventListener("click", () => running?.abort());
byId("as-json").addEventListener("change", showInput);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("run").requestSubmit();
});

takeKeyFromAddress();
open();
