// Which curves there are: those of every run first, in groups, then any that only some runs have.

const orDash = (show) => (value) => (known(value) ? show(value) : "–");
const whole = (value) => Number((100 * value).toFixed(1));
const SHARES = { show: orDash(percent), tick: (value) => `${whole(value)}%`, range: [0, 1.02] };
const POINTS = { show: orDash(points), tick: (value) => `${value > 0 ? "+" : ""}${whole(value)}` };

// names: what stands in one chart, the first solid, others dashed; a pattern takes all it matches.
// each: a chart for each fact of that pattern. unlike: only where it differs from another.
const GROUPS = [
  {
    title: "Following instructions",
    note: "Answers to the development questions; bands are 95% intervals by story.",
    phase: "evaluate",
    charts: [
      {
        title: "accuracy",
        note: "asked correct, and (dashed) asked wrong",
        names: ["accuracy", "accuracy_asked_wrong"],
        ...SHARES,
      },
      { title: "gap", names: ["gap"], ...POINTS },
      { title: "right with all facts", names: ["fulfilled"], ...SHARES },
      {
        title: "facts",
        note: "asked for, and asked against",
        each: /^fact_(.*?)(_asked_against)?$/,
        ...SHARES,
      },
      { title: "unparseable", names: ["unparseable"], ...SHARES },
    ],
  },
  {
    title: "Samples",
    note: "Outputs to the training questions, as they were drawn.",
    phase: "sample",
    charts: [
      { title: "right", names: ["correct"], ...SHARES },
      { title: "reward", names: ["reward"], unlike: "correct", range: [0, 1.02] },
      { title: "pass@k", note: "a right one among k", names: [/^pass@/], ...SHARES },
      { title: "questions all right, all wrong", names: ["all_right", "all_wrong"], ...SHARES },
      { title: "could be read", names: ["parsed"], ...SHARES },
      {
        title: "repeats",
        note: "of an output to the same question",
        names: ["repeated"],
        ...SHARES,
      },
      { title: "facts", each: /^fact_(.*)$/, ...SHARES },
      {
        title: "length, tokens",
        note: "mean, and the longest",
        names: ["tokens_mean", "tokens_max"],
      },
      {
        title: "told apart",
        note: "share of samples likelier under what they achieved",
        names: ["told_apart"],
        ...SHARES,
      },
      { title: "distance from the start", note: "KL, nats an output", names: ["kl_to_start"] },
    ],
  },
  {
    title: "Training",
    note: "A line every few steps.",
    phase: "train",
    charts: [
      { title: "loss", names: ["loss"] },
      { title: "entropy", note: "nats a token", names: ["entropy"] },
      {
        title: "KL",
        note: "nats a token: to the start, and to what drew the samples",
        names: ["kl", "kl_behaviour"],
      },
      { title: "norm of the gradient", names: ["grad_norm"], log: true },
    ],
  },
  {
    title: "Trained on",
    note: "Pairs of an iteration's first epoch.",
    phase: "pairs",
    charts: [
      { title: "pairs", names: ["pairs"] },
      { title: "under the correct-answer instruction", names: ["correct"], ...SHARES },
    ],
  },
];

// No curves of their own.
const PLACES = ["iteration", "samples_drawn", "step"];
const isMinor = (name) =>
  PLACES.includes(name) ||
  /_(low|high)$/.test(name) ||
  ["negative_entropy", "size", "questions"].includes(name);

const X_LABELS = { iteration: "iteration", samples_drawn: "samples", step: "step" };

function drawCurves(view) {
  const labels = Object.entries({
    iteration: "iteration",
    samples_drawn: "samples drawn",
    step: "optimizer step",
  });
  put(
    view,
    el(
      "div.bar",
      {},
      select("along", labels, state.x, (x) => go({ x })),
      el(
        "span.note",
        {},
        "Drag over a chart to look closer, click twice to see all. Training is always along steps.",
      ),
    ),
  );
  drawCharts(view, [...GROUPS, ...speed()]);
  put(
    view,
    section("Seconds by phase", "Compilation included; evaluation and start-up are not.", phases()),
  );
}

// Appends a section a group, and starts its charts; with `few` those of its own list alone, which
// fill the width.
function drawCharts(view, groups) {
  for (const group of groups) {
    const specs = [...group.charts, ...(group.few ? [] : others(group))];
    const boxes = specs.flatMap((spec) => chartsOf(group, spec));
    if (!boxes.length) continue;
    const grid = el(group.few ? "div.charts.few" : "div.charts", {}, boxes);
    put(view, section(group.title, group.note, grid));
    boxes.forEach((box) => box.start());
  }
}

// Charts for the names that a group's own do not cover, such as a method's loss terms.
function others({ phase, charts }) {
  const named = charts.flatMap(({ names = [], each }) => [...names, each]).filter(Boolean);
  const covers = (name) =>
    named.some((one) => (one instanceof RegExp ? one.test(name) : one === name));
  const names = new Set(page.runs.flatMap((run) => Object.keys(run.curves[phase] || {})));
  return [...names]
    .filter((name) => !isMinor(name) && !covers(name))
    .map((name) => ({ title: name.replaceAll("_", " "), names: [name] }));
}

function chartsOf({ phase }, spec) {
  const pick = phase === "train" ? "step" : state.x;
  const visible = page.runs
    .map((run, place) => ({ run, place }))
    .filter(({ place }) => !isHidden(place));
  const all = [
    ...new Set(visible.flatMap(({ run }) => Object.keys(run.curves[phase] || {}))),
  ].filter((name) => !isMinor(name));
  const sets = spec.each
    ? byFact(all, spec.each)
    : [
        {
          title: spec.title,
          names: spec.names.flatMap((name) =>
            all.filter((one) => (name instanceof RegExp ? name.test(one) : name === one)),
          ),
        },
      ];
  return sets.flatMap(({ title, names }) => {
    const lines = visible.flatMap(({ run, place }) =>
      names.flatMap((name, dash) =>
        lineOf({ run, place, phase, name, pick, dash, unlike: spec.unlike }),
      ),
    );
    return lines.length
      ? [chart({ show: number, ...spec, title, lines, xLabel: X_LABELS[pick] })]
      : [];
  });
}

// A chart a fact: asked for and asked against.
function byFact(names, pattern) {
  const found = new Map();
  for (const name of names) {
    const fact = pattern.exec(name)?.[1];
    if (fact)
      found.set(
        fact,
        [...(found.get(fact) || []), name].sort((a, b) => a.length - b.length),
      );
  }
  return [...found].map(([fact, list]) => ({ title: `fact: ${fact}`, names: list }));
}

function lineOf({ run, place, phase, name, pick, dash, unlike }) {
  const columns = run.curves[phase];
  if (!columns || !(name in columns)) return [];
  if (unlike && String(columns[name]) === String(columns[unlike])) return []; // says nothing new
  return [
    {
      place,
      run: run.name,
      label: name.replaceAll("_", " "),
      dash: dash % DASHES.length,
      xs: columns[pick],
      ys: columns[name],
      low: columns[`${name}_low`],
      high: columns[`${name}_high`],
    },
  ];
}

// Speed -------------------------------------------------------------------------------------------

// Rates as curves along iterations: of them timings.jsonl tells, which has no samples drawn.
function speed() {
  const names = new Set();
  for (const run of page.runs) {
    const columns = (run.curves.speed = { iteration: [], samples_drawn: [], step: [] });
    const byIteration = new Map();
    for (const { phase, iteration, rates } of run.timings)
      for (const [name, value] of Object.entries(rates)) {
        const full = `${phase}: ${name.replace("_per_second", " a second")}`;
        names.add(full);
        byIteration.set(iteration, { ...byIteration.get(iteration), [full]: value });
      }
    for (const iteration of [...byIteration.keys()].sort((a, b) => a - b))
      columns.iteration.push(iteration);
    columns.samples_drawn = columns.step = columns.iteration;
    for (const full of names) {
      const values = columns.iteration.map((iteration) => byIteration.get(iteration)[full] ?? null);
      if (values.some(known)) columns[full] = values;
    }
  }
  return [
    {
      title: "Speed",
      note: "Along iterations; the first compiles.",
      phase: "speed",
      charts: [...names].map((name) => ({ title: name, names: [name] })),
    },
  ];
}

function phases() {
  const runs = page.runs
    .map((run, place) => ({ run, place }))
    .filter(({ run, place }) => run.timings.length && !isHidden(place));
  const names = [...new Set(runs.flatMap(({ run }) => run.timings.map(({ phase }) => phase)))];
  const longest = Math.max(
    ...runs.flatMap(({ run }) => [...totals(run).values()].map((of) => sum(Object.values(of)))),
  );
  return [
    el(
      "div.readout",
      {},
      names.map((name, i) => el("span", {}, el(`i.swatch.phase-${i % 5}`), ` ${name}`)),
    ),
    runs.map(({ run, place }) =>
      el(
        "div.phases",
        {},
        page.runs.length > 1 ? el("h3", {}, swatch(place), " ", run.name) : null,
        [...totals(run)].map(([iteration, of]) =>
          el(
            "div.stack",
            {},
            el("span.note", {}, `iteration ${iteration}`),
            el(
              "div.segments",
              {},
              names.map((name, i) =>
                of[name]
                  ? el(`i.phase-${i % 5}`, {
                      title: `${name}: ${duration(of[name])}`,
                      style: { width: `${(100 * of[name]) / longest}%` },
                    })
                  : null,
              ),
            ),
            el("span.number", {}, duration(sum(Object.values(of)))),
          ),
        ),
      ),
    ),
  ];
}

const sum = (values) => values.reduce((a, b) => a + b, 0);

// iteration -> {phase: seconds}
function totals(run) {
  const found = new Map();
  for (const { phase, iteration, seconds } of run.timings)
    found.set(iteration, { ...found.get(iteration), [phase]: seconds });
  return new Map([...found].sort(([a], [b]) => a - b));
}
