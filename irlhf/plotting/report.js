"use strict";
const at = id => document.getElementById(id);

for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => button.parentElement.classList.toggle("wide"));
}

const STEP = 12;
const LONG = 420; // characters; longer texts are folded
const PARTS = ["target", "actual", "raw", "gold"];
let shown = STEP;
const rows = at("samples") ? JSON.parse(at("samples").textContent) : [];

function names(part) {
  return [...new Set(rows.flatMap(row => Object.keys(row[part])))];
}

function option(select, value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  select.append(made);
}

function element(kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function folded(name, text) {
  if (text.length <= LONG) return element("div", name, text);
  const made = document.createElement("details");
  made.append(element("summary", name, text.slice(0, LONG / 2) + "…"), element("div", name, text));
  return made;
}

function number(value) {
  return value.toFixed(Math.abs(value) < 100 ? 2 : 0).replace("-", "\u2212");
}

function figures(row) {
  const list = document.createElement("dl");
  for (const name of new Set(PARTS.flatMap(part => Object.keys(row[part])))) {
    const parts = PARTS.filter(part => Object.hasOwn(row[part], name));
    const one = document.createElement("div");
    one.append(element("dt", "", name), ...parts.map(part => element("dd", "", part + " " + number(row[part][name]))));
    list.append(one);
  }
  return list;
}

function card(row) {
  const made = document.createElement("article");
  const mix = row.mix ? ", maximising " + row.mix : "";
  made.append(element("div", "who", row.policy + mix), folded("prompt", row.prompt));
  made.append(folded("completion", row.completion), figures(row));
  return made;
}

function fits(row) {
  const policy = at("policy").value, find = at("find").value.toLowerCase(), reward = at("reward").value;
  if (policy && row.policy !== policy) return false;
  if (find && !(row.prompt + "\n" + row.completion).toLowerCase().includes(find)) return false;
  if (!reward) return true;
  if (!Object.hasOwn(row.target, reward)) return false;
  const low = at("low").value, high = at("high").value;
  return (low === "" || row.target[reward] >= Number(low)) && (high === "" || row.target[reward] <= Number(high));
}

function sorted(found) {
  if (!at("order").value) return found;
  const [sign, part, name] = JSON.parse(at("order").value);
  const value = row => Object.hasOwn(row[part], name) ? sign * row[part][name] : Infinity; // rows without it come last
  const before = (a, b) => value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
  return found.toSorted(before);
}

function draw() {
  at("low").disabled = at("high").disabled = !at("reward").value;
  const found = sorted(rows.filter(fits));
  at("list").replaceChildren(...found.slice(0, shown).map(card));
  at("count").textContent = found.length ? Math.min(shown, found.length) + " of " + found.length : "no matching sample";
  at("more").hidden = found.length <= shown;
}

function again() {
  shown = STEP;
  draw();
}

if (rows.length) {
  option(at("policy"), "", "all policies");
  for (const policy of new Set(rows.map(row => row.policy))) option(at("policy"), policy, policy);
  option(at("reward"), "", "any target");
  for (const name of names("target")) option(at("reward"), name, name + " target");
  option(at("order"), "", "order of the file");
  for (const part of PARTS) {
    for (const name of names(part)) {
      option(at("order"), JSON.stringify([-1, part, name]), "highest " + name + " " + part);
      option(at("order"), JSON.stringify([1, part, name]), "lowest " + name + " " + part);
    }
  }
  for (const id of ["policy", "reward", "order"]) at(id).addEventListener("change", again);
  for (const id of ["find", "low", "high"]) at(id).addEventListener("input", again);
  at("more").addEventListener("click", () => { shown += STEP; draw(); });
  draw();
}
