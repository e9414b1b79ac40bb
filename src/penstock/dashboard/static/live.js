// The live page: asks GET /admin/live once a second and shows the answer.
//
// Every text reaches the page through textContent: names may hold anything. The key stays in
// this tab's sessionStorage; one that came in the address (/live#key=...) is taken out of it.

const POLL_MILLISECONDS = 1000;
const TROUBLES = {
  failing: "out: it keeps failing",
  key_refused: "out: the provider refuses our key",
  no_quota: "out: its account has no quota left",
};
const STORED = "penstock-key";
const byId = (id) => document.getElementById(id);

let timer = 0;

function takeKeyFromAddress() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) {
    sessionStorage.setItem(STORED, key);
    history.replaceState(null, "", location.pathname);
  }
}

function ask(why) {
  byId("live").hidden = true;
  byId("ask").hidden = false;
  byId("why").textContent = why;
  say("");
  byId("key").focus();
}

function say(text, bad = false) {
  byId("state").textContent = text;
  byId("state").classList.toggle("bad", bad);
}

async function poll() {
  clearTimeout(timer);
  const key = sessionStorage.getItem(STORED);
  if (!key) {
    ask("");
    return;
  }
  try {
    const answer = await fetch("/admin/live", {
      headers: { authorization: `Bearer ${key}` },
      cache: "no-store",
      signal: AbortSignal.timeout(5000),
    });
    if (answer.status === 401 || answer.status === 403) {
      sessionStorage.removeItem(STORED);
      ask(answer.status === 401 ? "That key is not known." : "That key is no admin key.");
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    say("No answer from the service; trying again.", true);
  }
  if (!document.hidden) timer = setTimeout(poll, POLL_MILLISECONDS);
}

// Numbers as people read them.

function amount(value) {
  if (Math.abs(value) >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (Math.abs(value) >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}

function duration(seconds) {
  if (seconds <= 0) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// Elements. Children are kept by key, so that the page does not flicker under the reader.

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function keyed(parent, items, keyOf, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = keyOf(item);
    let child = old.get(key);
    if (!child) {
      child = create();
      child.dataset.key = key;
    }
    update(child, item);
    return child;
  });
  if (wanted.length !== parent.children.length
      || wanted.some((child, index) => parent.children[index] !== child)) {
    parent.replaceChildren(...wanted);
  }
}

function table(element, heads, rows) {
  if (!element.tHead) {
    const head = element.createTHead().insertRow();
    for (const text of heads) {
      const cell = make("th", "", text);
      cell.scope = "col";
      head.append(cell);
    }
    element.createTBody();
  }
  const shown = rows.length ? rows : [["none"]];
  keyed(element.tBodies[0], shown, (row) => row[0], () => make("tr"), (line, row) => {
    while (line.cells.length < row.length) line.insertCell();
    row.forEach((text, index) => setText(line.cells[index], text));
    line.classList.toggle("bad", row[1] === "down");
  });
}

function makeLimit() {
  const limit = make("div", "limit");
  const bar = make("div", "bar");
  bar.setAttribute("role", "meter");
  bar.append(make("div", "free"), make("div", "mark"));
  limit.append(make("span"), bar, make("small"));
  return limit;
}

function showLimit(element, limit) {
  const [name, bar, note] = element.children;
  const [free, mark] = bar.children;
  const share = (value) => Math.min(Math.max(value / limit.capacity || 0, 0), 1);
  setText(name, limit.name);
  bar.setAttribute("aria-label", `${limit.name} free`);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", String(limit.capacity));
  bar.setAttribute("aria-valuenow", String(Math.max(limit.level, 0)));
  free.style.width = `${share(limit.level) * 100}%`;
  mark.hidden = !(limit.reserve > 0);
  mark.style.left = `${share(limit.reserve) * 100}%`;
  const rate = limit.rate_per_second > 0 ? ` · ${amount(limit.rate_per_second)}/s` : "";
  setText(note, `${amount(limit.level)} of ${amount(limit.capacity)}${rate} · ${limit.source}`);
}

function makeDeployment() {
  const card = make("div", "card");
  card.append(make("h3"), make("p"), make("div"));
  return card;
}

function showDeployment(card, deployment) {
  const [name, note, limits] = card.children;
  setText(name, deployment.name);
  const parts = [`${deployment.in_flight} in flight`, `${deployment.answers_429} × 429 this minute`];
  if (deployment.trouble) parts.push(TROUBLES[deployment.trouble] || deployment.trouble);
  if (deployment.paused_seconds > 0) {
    parts.push(`takes nothing for ${duration(deployment.paused_seconds)}`);
  }
  setText(note, parts.join(" · "));
  note.className =
    deployment.trouble || deployment.paused_seconds > 0 || deployment.answers_429 > 0 ? "bad" : "soft";
  keyed(limits, deployment.limits, (limit) => limit.name, makeLimit, showLimit);
}

function makeTotal() {
  const total = make("div");
  total.append(make("dt"), make("dd"));
  return total;
}

function show(snapshot) {
  byId("ask").hidden = true;
  byId("live").hidden = false;
  say(new Date(snapshot.now * 1000).toLocaleTimeString());
  const totals = snapshot.totals;
  const numbers = [
    ["waiting", amount(totals.waiting)],
    ["in flight", amount(totals.in_flight)],
    ["oldest wait", duration(totals.oldest_wait_seconds)],
    ["grants per second", totals.grants_per_second.toFixed(1)],
    ["429s this minute", amount(totals.answers_429)],
  ];
  keyed(byId("totals"), numbers, (number) => number[0], makeTotal, (element, [name, value]) => {
    setText(element.children[0], name);
    setText(element.children[1], value);
  });
  keyed(byId("deployments"), snapshot.deployments, (one) => one.name, makeDeployment, showDeployment);
  const classes = [...snapshot.classes].sort((one, other) => one.rank - other.rank);
  const queued = (one) => [
    one.name, amount(one.waiting), amount(one.in_flight), duration(one.oldest_wait_seconds),
  ];
  table(byId("classes"), ["class", "waiting", "in flight", "oldest wait"], classes.map(queued));
  table(byId("tenants"), ["tenant", "waiting", "in flight", "oldest wait"],
    snapshot.tenants.map(queued));
  table(byId("workers"), ["worker", "state", "runs", "restarts"], snapshot.workers.map((one) => [
    one.name, one.alive ? "answers" : "down", amount(one.runs), amount(one.restarts),
  ]));
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED, byId("key").value.trim());
  byId("key").value = "";
  poll();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
window.addEventListener("hashchange", () => {
  takeKeyFromAddress();
  poll();
});
takeKeyFromAddress();
poll();
