// Elements. Texts go into the page as text nodes alone; nothing here reads markup.

// el("td.number", {title: "mean"}, "1.0", el("b", {}, "!")): what is null is left out. A property
// `style` is an object, `on` maps events to listeners, any other is an attribute.
function el(kind, attributes = {}, ...children) {
  const [name, ...classes] = kind.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (!known(value) || value === false) continue;
    if (key === "style") for (const [k, v] of Object.entries(value)) made.style.setProperty(k, v);
    else if (key === "on") for (const [k, v] of Object.entries(value)) made.addEventListener(k, v);
    else made.setAttribute(key, value === true ? "" : value);
  }
  put(made, ...children);
  return made;
}

// Adds children at the end, without those that are null.
const put = (parent, ...children) =>
  parent.append(...children.flat(Infinity).filter((child) => known(child) && child !== false));

const button = (text, title, act, attributes = {}) =>
  el(
    "button",
    { type: "button", title, "aria-label": title, on: { click: act }, ...attributes },
    text,
  );

// options: [value, text] each.
function select(label, options, chosen, act) {
  const made = el(
    "select",
    { on: { change: () => act(made.value) } },
    options.map(([value, text]) =>
      el("option", { value, selected: String(value) === String(chosen) }, text),
    ),
  );
  return el("label.field", {}, el("span", {}, label), made);
}

const section = (title, note, ...children) =>
  el("section", {}, el("h2", {}, title), note ? el("p.note", {}, note) : null, ...children);

function table(headers, rows, kind = "table") {
  return el(
    "div.wide",
    {},
    el(
      kind,
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          headers.map((text) => el("th", { scope: "col" }, text)),
        ),
      ),
      el("tbody", {}, rows),
    ),
  );
}

const colorOf = (place) => `var(--run-${place % 8})`;
const swatch = (place, kind = "swatch") =>
  el(`i.${kind}`, { style: { background: colorOf(place) } });

// A 95% interval drawn from `from` to `to`, with its value; a line at 0 where 0 is inside.
function whisker([value, low, high], from, to, place = null) {
  const at = (x) => `${(100 * (Math.min(Math.max(x, from), to) - from)) / (to - from)}%`;
  const width = `${(100 * (Math.min(high, to) - Math.max(low, from))) / (to - from)}%`;
  const color = place === null ? "var(--ink)" : colorOf(place);
  return el(
    "div.whisker",
    { "aria-hidden": "true" },
    from < 0 ? el("i.zero", { style: { left: at(0) } }) : null,
    el("i.reach", { style: { left: at(low), width, background: color } }),
    el("i.value", { style: { left: at(value), background: color } }),
  );
}

// The text in pieces, those that match a search marked.
function marked(text, search) {
  if (!search) return [text];
  const pieces = [];
  let end = 0;
  for (const found of text.matchAll(search)) {
    pieces.push(text.slice(end, found.index), el("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  return [...pieces, text.slice(end)];
}

// What is searched for, as it stands, in upper or lower case.
const searchFor = (text) =>
  text ? new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi") : null;
