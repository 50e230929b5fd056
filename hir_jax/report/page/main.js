// The frame: head, views, keys, theme; and the start.

const VIEWS = {
  overview: ["Overview", drawOverview],
  curves: ["Curves", drawCurves],
  samples: ["Samples", drawBrowser],
  settings: ["Settings", drawSettings],
};

function drawView() {
  clearCharts();
  const [, draw] = VIEWS[state.view] || VIEWS.overview;
  const view = document.getElementById("view");
  view.className = "";
  view.replaceChildren();
  drawHead();
  draw(view);
}

function drawHead() {
  const running = page.runs.find((run) => !run.finished);
  document.getElementById("head").replaceChildren(
    el(
      "div.brand",
      {},
      el("b", {}, page.runs.length > 1 ? `${page.runs.length} runs` : page.runs[0].name),
      el(
        "span.note",
        {},
        `${running ? `${stateOf(running)}, ` : ""}${new Date(page.made * 1000).toLocaleString()}`,
      ),
    ),
    el(
      "nav.tabs",
      { "aria-label": "views" },
      Object.entries(VIEWS).map(([name, [title]], i) =>
        el(
          name === state.view ? "a.tab.chosen" : "a.tab",
          {
            href: addressOf({ view: name }),
            title: `${title} (${i + 1})`,
            "aria-current": name === state.view ? "page" : null,
            on: {
              click: (event) => {
                if (!event.metaKey && !event.ctrlKey) {
                  event.preventDefault();
                  go({ view: name });
                }
              },
            },
          },
          title,
        ),
      ),
    ),
    el(
      "div.tools",
      {},
      page.runs.length > 1 && ["curves", "overview"].includes(state.view) ? legend() : null,
      running ? watchBox() : null,
      button("◐", `theme: ${theme()} (t)`, nextTheme),
      button("?", "keys (?)", toggleHelp),
    ),
  );
}

const legend = () =>
  page.runs.map((run, place) =>
    button(
      [swatch(place), ` ${run.name}`],
      `show or hide the curves of ${run.name}`,
      () => toggleRun(place),
      { class: "chip", "aria-pressed": isHidden(place) ? "false" : "true" },
    ),
  );

function toggleRun(place) {
  const hidden = new Set(state.hidden.split(",").filter(Boolean));
  if (!hidden.delete(String(place))) hidden.add(String(place));
  go({ hidden: [...hidden].join() }, { replace: true });
}

// What outlives a reload, where the browser keeps anything for a file.
function remembered(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

// Watching a run that goes on ---------------------------------------------------------------------

const WATCH_SECONDS = 30;

function watchBox() {
  const box = el("input", {
    type: "checkbox",
    checked: remembered("hir_jax.watch") === "1",
    on: { change: () => remembered("hir_jax.watch", box.checked ? "1" : "0") },
  });
  return el(
    "label.chip",
    { title: `load the page anew every ${WATCH_SECONDS} seconds` },
    box,
    " reload",
  );
}

setInterval(() => {
  if (page?.runs.some((run) => !run.finished) && remembered("hir_jax.watch") === "1")
    location.reload();
}, WATCH_SECONDS * 1000);

// Theme -------------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
let chosenTheme = null;
const theme = () => chosenTheme || remembered("hir_jax.theme") || "auto";

function nextTheme() {
  chosenTheme = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  remembered("hir_jax.theme", chosenTheme);
  applyTheme();
  drawView();
}

const systemsTheme = matchMedia("(prefers-color-scheme: dark)");

function applyTheme() {
  const system = systemsTheme.matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme() === "auto" ? system : theme();
}

// Keys --------------------------------------------------------------------------------------------

const inSamples = (act) => () => (state.view === "samples" && listed.length ? act() : null);
const KEYS = {
  1: ["overview", () => go({ view: "overview" })],
  2: ["curves", () => go({ view: "curves" })],
  3: ["samples", () => go({ view: "samples" })],
  4: ["settings", () => go({ view: "settings" })],
  j: ["next question", inSamples(() => step(1))],
  k: ["previous question", inSamples(() => step(-1))],
  "]": ["next iteration", inSamples(() => stepIteration(1))],
  "[": ["previous iteration", inSamples(() => stepIteration(-1))],
  "/": ["search", () => document.getElementById("find")?.select()],
  t: ["theme: as the system, light, dark", nextTheme],
  "?": ["these keys", toggleHelp],
};
const ALIKE = { ArrowDown: "j", ArrowRight: "j", ArrowUp: "k", ArrowLeft: "k", n: "j", p: "k" };

function onKey(event) {
  const inField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape" && inField) return event.target.blur();
  if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
  const isArrow = event.key.startsWith("Arrow");
  if (isArrow && state.view !== "samples") return; // they scroll
  const found = KEYS[ALIKE[event.key] || event.key];
  if (!found) return;
  event.preventDefault();
  found[1]();
}

function toggleHelp() {
  const help = document.getElementById("help");
  if (help.open) return help.close();
  help.replaceChildren(
    el("h2", {}, "Keys"),
    el(
      "dl.keys",
      {},
      Object.entries(KEYS).map(([key, [text]]) =>
        el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)),
      ),
    ),
    el(
      "p.note",
      {},
      "Arrows, n and p do as j and k. Each view is a link: copy it from the address. " +
        `Made by hir_jax ${page.version}.`,
    ),
    button("close", "close", () => help.close()),
  );
  help.showModal();
}

// Start -------------------------------------------------------------------------------------------

async function start() {
  applyTheme();
  try {
    page = await unpack();
  } catch (error) {
    document.getElementById("waiting").textContent = error.message;
    return;
  }
  document.addEventListener("keydown", onKey);
  systemsTheme.addEventListener("change", () => {
    applyTheme();
    drawView();
  });
  drawView();
  document.documentElement.dataset.drawn = String(Math.round(performance.now())); // ms since opened
}

start();
