// One question with all its outputs of an iteration.

function drawSample() {
  const box = document.getElementById("sample");
  const entry = current();
  if (!entry) {
    box.replaceChildren(el("p.notice", {}, "No question is left by these filters."));
    return;
  }
  const search = searchFor(state.find);
  box.replaceChildren(
    sampleHead(entry),
    questionOf(entry, search),
    ratesOf(entry),
    ...outputsOf(entry, search),
  );
}

function sampleHead({ question }) {
  const place = listed.findIndex((entry) => entry.question === question);
  const id = page.questions.id[question];
  return el(
    "div.samplehead",
    {},
    button("‹", "previous question (k)", () => step(-1), { disabled: place === 0 }),
    button("›", "next question (j)", () => step(1), { disabled: place === listed.length - 1 }),
    el("span.number", {}, `${count(place + 1)} of ${count(listed.length)}`),
    el("a.id", { href: addressOf({ question: id }), title: "link to this question" }, id),
  );
}

// The name of an option, as prompts have it: (A) ... (Z), (AA), ...
function letterOf(place) {
  let name = "";
  for (let n = place + 1; n; n = Math.floor((n - 1) / 26))
    name = String.fromCharCode(65 + ((n - 1) % 26)) + name;
  return `(${name})`;
}

function questionOf({ question }, search) {
  const { text, options, answers } = page.questions;
  return el(
    "div",
    {},
    el("p.question.text", {}, marked(text[question], search)),
    options[question].length
      ? el(
          "ol.options",
          {},
          options[question].map((option, i) =>
            el(
              "li",
              {},
              el("span.note", {}, `${letterOf(i)} `),
              el("span.text", {}, marked(option, search)),
            ),
          ),
        )
      : null,
    el(
      "p.answers",
      {},
      el("span.note", {}, answers[question].length > 1 ? "answers " : "answer "),
      answers[question].map((answer, i) => [
        i ? el("span.note", {}, " or ") : null,
        el("span.text.answer", {}, marked(answer, search)),
      ]),
    ),
  );
}

// The share right in each iteration of each run that asked this question: bars to go there by.
function ratesOf({ question }) {
  const { run: chosenRun, iteration: now } = chosen();
  const rows = page.runs.flatMap((run, place) => {
    const { rates } = indexOf(run);
    if (!rates.some((of) => of.has(question))) return [];
    const bars = rates.map((of, i) => {
      const [right, drawn] = of.get(question) || [0, 0];
      const result = drawn ? `${right} of ${drawn} right` : "not drawn";
      const title = `iteration ${run.samples.iterations[i]}: ${result}`;
      const here = run === chosenRun && i === now;
      return button(
        el("i", {
          style: {
            height: `${drawn ? Math.max(4, (100 * right) / drawn) : 0}%`,
            background: colorOf(place),
          },
        }),
        title,
        () =>
          go({
            run: run.name,
            iteration: run.samples.iterations[i],
            question: page.questions.id[question],
          }),
        { class: here ? "ratestep here" : "ratestep", "aria-current": here ? "true" : null },
      );
    });
    return [
      el(
        "div.ratesteps",
        {},
        el("span.note", {}, page.runs.length > 1 ? run.name : "right, by iteration"),
        bars,
      ),
    ];
  });
  return el("div.rates", {}, rows);
}

// Outputs -----------------------------------------------------------------------------------------

function outputsOf(entry, search) {
  const { run, columns } = chosen();
  if (!entry.rows.length) return [el("p.notice", {}, notHere(run.samples))];
  const outputs = distinct(columns, entry.rows);
  const column = scored(columns);
  const sign = state.order.startsWith("-") ? -1 : 1;
  if (column) outputs.sort((a, b) => sign * ((column[a.row] ?? 0) - (column[b.row] ?? 0)));
  return outputs.map((output) => outputCard(run, columns, output, search));
}

const notHere = ({ kept, iterations }) =>
  "The outputs of this iteration are not in this page (config.report.samples); it has those of " +
  `${kept.map((place) => iterations[place]).join(", ")}.`;

function outputCard(run, columns, { row, times }, search) {
  const text = page.texts[columns.text[row]];
  const read = page.texts[columns.read[row]];
  const right = isRight(columns, row),
    parsed = isParsed(columns, row);
  const verdict = !parsed
    ? ["unread", "? unreadable"]
    : right
      ? ["right", "✓ right"]
      : ["wrong", "✗ wrong"];
  return el(
    `div.output.${verdict[0]}`,
    {},
    el(
      "div.verdict",
      {},
      el("b", {}, verdict[1]),
      times > 1 ? el("span.note", { title: "drawn so often" }, ` ×${times}`) : null,
      Object.entries(columns.facts).map(([name, values]) => fact(name, values[row])),
    ),
    el("p.text", {}, text ? marked(text, search) : el("span.note", {}, "(empty)")),
    read && read !== text
      ? el("p.read", {}, el("span.note", {}, "read as "), el("span.text", {}, marked(read, search)))
      : null,
    el(
      "dl.scores",
      {},
      scoresOf(columns, row).map(([name, value]) =>
        el("div", {}, el("dt", {}, name), el("dd", {}, value)),
      ),
    ),
    instructions(run, page.texts[columns.relabeled[row]]),
  );
}

const fact = (name, holds) =>
  known(holds)
    ? el(holds ? "span.fact.holds" : "span.fact", {}, `${holds ? "✓" : "✗"} ${name}`)
    : null;

function scoresOf(columns, row) {
  const rewards = Object.entries(columns.rewards).map(([name, values]) => [
    `reward, ${name}`,
    values[row],
  ]);
  const named = Object.entries(columns.scores).map(([name, values]) => [
    scoreName(name),
    values[row],
  ]);
  const { logprob, logprob_start: start } = columns.scores;
  const moved = logprob && start ? [["above the start, nats", logprob[row] - start[row]]] : [];
  return [["tokens", columns.tokens[row]], ...rewards, ...named, ...moved]
    .filter(([, value]) => known(value))
    .map(([name, value]) => [name, number(value)]);
}

// What the output was drawn under and what it is trained under, side by side.
function instructions(run, relabeled) {
  if (!run.samples.relabels || !relabeled) return null;
  const same = relabeled === run.instruction;
  return el(
    "div.instructions",
    {},
    el("div", {}, el("span.note", {}, "asked "), el("span.text", {}, run.instruction)),
    el(
      "div",
      {},
      el("span.note", {}, same ? "kept " : "relabeled "),
      el("span.text", {}, ...changedWords(run.instruction, relabeled)),
    ),
  );
}

// The new instruction, with the words that the old one does not have in their place marked.
function changedWords(old, now) {
  const before = old.split(" ");
  return now
    .split(" ")
    .map((word, i) => [i ? " " : "", word === before[i] ? word : el("b", {}, word)])
    .flat();
}
