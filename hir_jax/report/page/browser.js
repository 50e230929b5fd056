// The sample browser: questions of an iteration on the left, one of them with its outputs beside.

// How the outputs to a question came out, [value, text, of its rate and its rows].
const VERDICTS = [
  ["any", "any", () => true],
  ["right", "all right", ({ right, drawn }) => right === drawn],
  ["mixed", "right and wrong", ({ right, drawn }) => right > 0 && right < drawn],
  ["wrong", "all wrong", ({ right }) => right === 0],
  ["some_right", "some right", ({ right }) => right > 0],
  ["some_wrong", "some wrong", ({ right, drawn }) => right < drawn],
  ["unread", "some unreadable", ({ rows }, columns) => rows.some((row) => !isParsed(columns, row))],
];

// A question is right where at least half of its outputs are.
const mostly = ([right, drawn]) => right * 2 >= drawn;
const FLIPS = [
  ["any", "any"],
  ["flipped", "flipped", (now, then) => mostly(now) !== mostly(then)],
  ["gained", "now right", (now, then) => mostly(now) && !mostly(then)],
  ["lost", "now wrong", (now, then) => !mostly(now) && mostly(then)],
];

const ROW = 58; // pixels of a question in the list; page.css has the same
let listed = []; // what the list shows, in its order

// The run and the iteration that the address asks for, as places; the newest iteration by default.
function chosen() {
  const run = page.runs[placeOf(state.run)];
  const { iterations } = run.samples;
  const asked = iterations.indexOf(Number(state.iteration));
  const since = iterations.indexOf(Number(state.since));
  return {
    run,
    iteration: asked < 0 ? iterations.length - 1 : asked,
    since: since < 0 ? 0 : since,
    columns: run.samples.columns,
  };
}

function drawBrowser(view) {
  const { run } = chosen();
  view.classList.add("browsing");
  if (!run.samples.iterations.length) {
    put(
      view,
      el("div.bar", {}, runChoice(run)),
      el(
        "p.notice",
        {},
        `${run.name} has no samples: ` +
          (run.config.algorithm === "sft" ? "sft draws none." : "none are drawn yet."),
      ),
    );
    return;
  }
  listed = order(filtered());
  put(view, filters(), el("div.browser", {}, list(), el("article.sample", { id: "sample" })));
  drawSample();
  showInList();
}

const runChoice = (run) =>
  page.runs.length > 1
    ? select(
        "run",
        page.runs.map(({ name }) => [name, name]),
        run.name,
        (name) => go({ run: name }),
      )
    : null;

// Filters -----------------------------------------------------------------------------------------

function filters() {
  const { run, iteration, since, columns } = chosen();
  const { iterations } = run.samples;
  const asked = [...indexOf(run).rates[iteration].keys()];
  const tasks = [...new Set(asked.map((question) => taskOf(page.questions.id[question])))].sort();
  const facts = Object.keys(columns.facts || {}).map((name) => [
    `fact_${name}`,
    `some without ${name}`,
  ]);
  const search = el("input", {
    type: "search",
    id: "find",
    value: state.find,
    placeholder: "in questions, answers and outputs",
    on: { input: () => refilter({ find: search.value }) },
  });
  return el(
    "div.bar.filters",
    { role: "search" },
    runChoice(run),
    select(
      "iteration",
      iterations.map((n) => [n, n]),
      iterations[iteration],
      (n) => go({ iteration: n }),
    ),
    select("outputs", [...VERDICTS, ...facts], state.verdict, (verdict) => go({ verdict })),
    tasks.length > 1
      ? select("task", [["", "any"], ...tasks.map((task) => [task, task])], state.task, (task) =>
          go({ task }),
        )
      : null,
    iterations.length > 1 ? select("change", FLIPS, state.flip, (flip) => go({ flip })) : null,
    iterations.length > 1
      ? select(
          "since",
          iterations.map((n) => [n, n]),
          iterations[since],
          (n) => go({ since: n }),
        )
      : null,
    select("order", orders(columns), state.order, (chosenOrder) => go({ order: chosenOrder })),
    el("label.field.find", {}, el("span", {}, "search"), search),
  );
}

// A search redraws the list and the sample alone, so that the field keeps its caret.
function refilter(changes) {
  go(changes, { replace: true, draw: false });
  listed = order(filtered());
  document.querySelector(".list").replaceWith(list());
  drawSample();
  showInList();
}

// The questions of the iteration that all filters let through.
function filtered() {
  const { run, iteration, since, columns } = chosen();
  const { rates, rows } = indexOf(run);
  const fact = state.verdict.startsWith("fact_") ? columns.facts?.[state.verdict.slice(5)] : null;
  const verdict = fact
    ? (entry) => entry.rows.some((row) => !fact[row])
    : (VERDICTS.find(([name]) => name === state.verdict) || VERDICTS[0])[2];
  const flip = FLIPS.find(([name]) => name === state.flip)?.[2];
  const matches = matcher(columns);
  const found = [];
  for (const [question, rate] of rates[iteration]) {
    const then = rates[since].get(question);
    const entry = {
      question,
      right: rate[0],
      drawn: rate[1],
      rows: rows[iteration].get(question) || [],
    };
    entry.change = then ? rate[0] / rate[1] - then[0] / then[1] : 0;
    if (!verdict(entry, columns)) continue;
    if (state.task && taskOf(page.questions.id[question]) !== state.task) continue;
    if (flip && !(then && flip(rate, then))) continue;
    if (matches(entry)) found.push(entry);
  }
  return found;
}

// Whether a question, its answers or one of its outputs has what is searched for. Each text is
// looked into once, however often it was drawn.
function matcher(columns) {
  const search = searchFor(state.find);
  if (!search) return () => true;
  const has = (text) => text.search(search) >= 0;
  const { id, text, options, answers } = page.questions;
  const texts = page.texts.map(has);
  return ({ question, rows }) =>
    has(text[question]) ||
    has(id[question]) ||
    options[question].some(has) ||
    answers[question].some(has) ||
    rows.some((row) => texts[columns.text[row]] || texts[columns.read[row]]);
}

// Order -------------------------------------------------------------------------------------------

function orders(columns) {
  const numbers = [
    ["tokens", "length"],
    ...Object.keys(columns.scores || {}).map((name) => [name, scoreName(name)]),
  ];
  return [
    ["file", "as drawn"],
    ["rate", "fewest right"],
    ["-rate", "most right"],
    ["change", "lost most"],
    ["-change", "gained most"],
    ...numbers.flatMap(([name, text]) => [
      [name, `lowest ${text}`],
      [`-${name}`, `highest ${text}`],
    ]),
  ];
}

const scoreName = (name) =>
  ({
    logprob: "log-probability",
    logprob_start: "log-probability at the start",
    opposite: "log-probability asked for wrong",
    margin: "margin, nats",
  })[name] ||
  name.replaceAll("_", " ");

// The column that the address orders by, if it is one of samples.
const scored = (columns) => {
  const name = state.order.replace(/^-/, "");
  return name === "tokens" ? columns.tokens : columns.scores?.[name];
};

// Questions by their own figures, or by the lowest or highest score among their outputs.
function order(entries) {
  const { columns } = chosen();
  const down = state.order.startsWith("-");
  const column = scored(columns);
  const key =
    { rate: (e) => e.right / e.drawn, change: (e) => e.change }[state.order.replace(/^-/, "")] ||
    (column && ((e) => extreme(e.rows.map((row) => column[row]).filter(known), down)));
  if (!key) return entries;
  const keyed = entries.map((entry) => [key(entry), entry]);
  const sign = down ? -1 : 1;
  keyed.sort(([a], [b]) => (known(a) && known(b) ? sign * (a - b) : known(b) - known(a)));
  return keyed.map(([, entry]) => entry);
}

const extreme = (values, down) =>
  values.length ? values.reduce((a, b) => (down ? Math.max(a, b) : Math.min(a, b))) : null;

// The list ----------------------------------------------------------------------------------------

// Only the rows that are in sight are there; the list is as tall as all of them would be.
function list() {
  const tall = el("div.tall", { style: { height: `${ROW * listed.length}px` } });
  const box = el(
    "nav.list",
    { "aria-label": "questions", tabindex: 0, on: { scroll: () => fill(box, tall) } },
    el("p.note.count", { role: "status" }, countText()),
    tall,
  );
  requestAnimationFrame(() => fill(box, tall));
  return box;
}

function countText() {
  const { run, iteration } = chosen();
  const all = indexOf(run).rates[iteration].size;
  return listed.length === all
    ? `${count(all)} questions`
    : `${count(listed.length)} of ${count(all)} questions`;
}

function fill(box, tall) {
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5);
  const end = Math.min(listed.length, first + Math.ceil(box.clientHeight / ROW) + 10);
  const search = searchFor(state.find);
  const start = beginning();
  const rows = [];
  for (let i = first; i < end; i++) rows.push(listRow(i, search, start));
  tall.replaceChildren(...rows);
}

// How many characters all questions of the run begin with alike, which tell none from another.
function beginning() {
  const { run, iteration } = chosen();
  const texts = [...indexOf(run).rates[iteration].keys()].map(
    (question) => page.questions.text[question],
  );
  let end = texts.length > 1 ? texts[0].length : 0;
  for (const text of texts) while (!text.startsWith(texts[0].slice(0, end))) end--;
  return texts[0].slice(0, end).search(/\S*$/); // whole words
}

// A question in a line: from where it differs, or from a little before what is searched for.
function snippet(text, search, start) {
  const match = search ? text.search(search) : -1;
  const from = match < 0 ? start : Math.min(start, match) + Math.max(0, match - start - 30);
  return `${from ? "…" : ""}${text.slice(from, from + 200)}`;
}

function listRow(place, search, start) {
  const entry = listed[place];
  const { text, id } = page.questions;
  const isChosen = entry === current();
  return el(
    isChosen ? "a.entry.chosen" : "a.entry",
    {
      href: addressOf({ question: id[entry.question] }),
      "aria-current": isChosen ? "true" : null,
      style: { top: `${place * ROW}px` },
      on: {
        click: (event) => {
          if (!event.metaKey && !event.ctrlKey) {
            event.preventDefault();
            show(place);
          }
        },
      },
    },
    el("span.snippet", {}, marked(snippet(text[entry.question], search, start), search)),
    el(
      "span.rate",
      {},
      rateBar(entry.right, entry.drawn),
      ` ${entry.right}/${entry.drawn}`,
      entry.change
        ? el(entry.change > 0 ? "span.gained" : "span.lost", {}, entry.change > 0 ? " ▲" : " ▼")
        : null,
    ),
  );
}

const rateBar = (right, drawn) =>
  el(
    "i.ratebar",
    { "aria-hidden": "true" },
    el("i", { style: { width: `${(100 * right) / drawn}%` } }),
  );

// The entry that the address names; else the first.
const current = () =>
  listed.find(({ question }) => page.questions.id[question] === state.question) || listed[0];

// Goes to the question of a place in the list.
function show(place) {
  const entry = listed[Math.min(Math.max(place, 0), listed.length - 1)];
  if (!entry) return;
  go({ question: page.questions.id[entry.question] }, { draw: false });
  drawSample();
  showInList();
}

const step = (by) => show(listed.indexOf(current()) + by);

// Goes to the iteration before or after.
function stepIteration(by) {
  const { run, iteration } = chosen();
  const { iterations } = run.samples;
  const next = iterations[Math.min(Math.max(iteration + by, 0), iterations.length - 1)];
  const entry = current(); // stays where the filters let it
  go({ iteration: next, ...(entry ? { question: page.questions.id[entry.question] } : {}) });
}

function showInList() {
  const box = document.querySelector(".list");
  const top = listed.indexOf(current()) * ROW;
  if (top < box.scrollTop || top + ROW > box.scrollTop + box.clientHeight - ROW)
    box.scrollTop = Math.max(0, top - box.clientHeight / 2);
  fill(box, box.querySelector(".tall"));
}
