// What the runs came to: the closing table, differences, alarms, and the first two curves.

function drawOverview(view) {
  put(
    view,
    alarmsOf(page.runs),
    section("On the test questions", OUTCOME_NOTE, outcomeTable()),
    page.runs.length > 1 ? differences() : null,
    factsOf(page.runs),
    choicesOf(page.runs),
  );
  const [following] = GROUPS;
  drawCharts(view, [{ ...following, charts: following.charts.slice(0, 2), few: true }]);
}

const OUTCOME_NOTE =
  "An answer to each question, greedy where the run says nothing else. In brackets 95% intervals " +
  "of what other questions would give, clustered by story; changes and gaps are paired.";

// Outcomes ----------------------------------------------------------------------------------------

function outcomeTable() {
  const headers = [
    "run",
    "asked correct",
    "asked wrong",
    "gap",
    "unparseable",
    "best constant",
    "questions",
    "kept",
  ];
  return table(
    headers,
    page.runs.map((run, place) => el("tr", {}, nameCell(run, place), outcomeCells(run, place))),
  );
}

const nameCell = (run, place) =>
  el(
    "th",
    { scope: "row" },
    swatch(place),
    " ",
    run.name,
    el("div.note", {}, run.config.algorithm, ", ", taskName(run), run.answers),
    el("div.note", {}, spent(run)),
  );

const taskName = ({ config }) => config["data.task"] || config["data.source"];

function spent(run) {
  const seconds = run.timings.reduce((sum, line) => sum + line.seconds, 0);
  const drawn = last(run.curves.evaluate.samples_drawn || [0]);
  return `${count(drawn)} samples${seconds ? `, ${duration(seconds)}` : ""}`;
}

function outcomeCells(run, place) {
  const found = run.outcome;
  if (!found) return el("td", { colspan: 7 }, stateOf(run), unfinished(run));
  const { before, after, change } = found;
  const moved = (name) => (name in change ? change[name] : null);
  const constant =
    after.constant.text.length > 24 ? `${after.constant.text.slice(0, 23)}…` : after.constant.text;
  return [
    cell(after.asked_correct, before.asked_correct, moved("asked_correct"), 0, place),
    cell(after.asked_wrong, before.asked_wrong, moved("asked_wrong"), 0, place),
    cell(after.gap, before.gap, moved("gap"), -1, place, points),
    el("td.number", {}, percent(after.unparseable)),
    el(
      "td.number",
      { title: after.constant.text },
      percent(after.constant.accuracy),
      el("div.note", {}, `“${constant}”`),
    ),
    el("td.number", {}, count(after.n), el("div.note", {}, `${count(after.stories)} stories`)),
    el("td.kept", {}, found.note),
  ];
}

function cell(after, before, change, from, place, show = percent) {
  return el(
    "td.estimate",
    {},
    el("b", {}, show(after[0])),
    " ",
    el("span.note", {}, interval(after, from < 0 ? points : undefined)),
    whisker(after, from, 1, place),
    el(
      "div.note",
      {},
      `before ${show(before[0])}`,
      change ? `: ${points(change[0])} ${interval(change, points)}` : "",
    ),
  );
}

const interval = ([, low, high], show = (x) => (100 * x).toFixed(1)) =>
  `[${show(low)}, ${show(high)}]`;

// What is known of a run that goes on: its newest evaluation on the development questions.
function unfinished(run) {
  const { accuracy, accuracy_asked_wrong: wrong, iteration } = run.curves.evaluate;
  if (!accuracy) return null;
  return el(
    "div.note",
    {},
    `On the development questions, iteration ${last(iteration)}: ` +
      `${percent(last(accuracy))} asked correct, ${percent(last(wrong))} asked wrong.`,
  );
}

// Comparison --------------------------------------------------------------------------------------

function differences() {
  const beside = placeOf(state.beside);
  const choice = select(
    "beside",
    page.runs.map((run) => [run.name, run.name]),
    page.runs[beside].name,
    (name) => go({ beside: name }),
  );
  const others = page.runs
    .map((run, place) => ({ run, place }))
    .filter(({ place }) => place !== beside);
  const rows = others.map(({ run, place }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, swatch(place), " ", run.name),
      ["asked_correct", "asked_wrong", "gap"].map((name) => differenceCell(place, beside, name)),
    ),
  );
  return section(
    "Differences",
    "In points, paired by question, with 95% intervals clustered by story; bold where one " +
      "does not hold 0. What other seeds would change is not in them.",
    el("div.bar", {}, choice),
    table(["run", "asked correct", "asked wrong", "gap"], rows),
  );
}

function differenceCell(place, beside, name) {
  const { estimate, why } = difference(place, beside, name);
  if (why) return el("td.note", {}, why);
  const sure = estimate[1] > 0 || estimate[2] < 0;
  return el(
    "td.estimate",
    {},
    el(sure ? "b" : "span", {}, points(estimate[0])),
    " ",
    el("span.note", {}, interval(estimate, points)),
    whisker(estimate, -1, 1, place),
  );
}

// Facts, ways of answering, alarms ----------------------------------------------------------------

function factsOf(runs) {
  const rows = runs.flatMap((run, place) =>
    Object.entries(run.outcome?.after.facts || {}).map(([fact, now]) => {
      const then = run.outcome.before.facts[fact];
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, swatch(place), " ", run.name, el("div.note", {}, fact)),
        cell(now.asked_for, then.asked_for, null, 0, place),
        cell(now.asked_against, then.asked_against, null, 0, place),
        cell(now.gap, then.gap, null, -1, place, points),
      );
    }),
  );
  return rows.length
    ? section(
        "Facts",
        "The share of test questions whose answer has a fact, asked for and asked against.",
        table(["fact", "asked for", "asked against", "difference"], rows),
      )
    : null;
}

function choicesOf(runs) {
  const rows = runs.flatMap((run, place) =>
    Object.entries(run.outcome?.after.choices || {}).map(
      ([way, { accuracy, beside_greedy: beside }]) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, swatch(place), " ", run.name, el("div.note", {}, way)),
          el(
            "td.estimate",
            {},
            el("b", {}, percent(accuracy[0])),
            " ",
            el("span.note", {}, interval(accuracy)),
            whisker(accuracy, 0, 1, place),
          ),
          el(
            "td.estimate",
            {},
            points(beside[0]),
            " ",
            el("span.note", {}, interval(beside, points)),
            whisker(beside, -1, 1, place),
          ),
        ),
    ),
  );
  return rows.length
    ? section("Ways of answering", null, table(["way", "accuracy", "beside greedy"], rows))
    : null;
}

function alarmsOf(runs) {
  const found = runs.flatMap((run, place) => run.alarms.map((alarm) => ({ run, place, ...alarm })));
  if (!found.length) return null;
  const text = ({ kind, count: times, iteration, step }) =>
    `${kind} (first in iteration ${iteration}, at step ${step}` +
    `${times ? `; ${count(times)} times` : ""})`;
  return el(
    "section.alarms",
    { role: "status" },
    el("h2", {}, "Alarms"),
    el(
      "ul",
      {},
      found.map((alarm) =>
        el(
          "li",
          {},
          swatch(alarm.place),
          " ",
          runs.length > 1 ? `${alarm.run.name}: ` : "",
          text(alarm),
        ),
      ),
    ),
  );
}
