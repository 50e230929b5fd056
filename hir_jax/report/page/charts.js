// One chart: lines with bands, a readout that follows the cursor and serves as the legend.

const DASHES = [[], [5, 4], [2, 3], [9, 4, 2, 4]];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const drawn = new Set(); // charts in the view
const resizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries)
    target.chart?.setSize({ width: Math.max(200, contentRect.width), height: CHART_HEIGHT });
});
const CHART_HEIGHT = 210;

function clearCharts() {
  for (const chart of drawn) chart.destroy();
  drawn.clear();
  resizes.disconnect();
}

// lines: {run, place, label, xs, ys, low?, high?, dash}, run and place being its name and number.
function chart({ title, note, xLabel, show, tick = tickOf, range, log, lines }) {
  const readout = el("div.readout");
  const plot = el("div.plot", {
    role: "img",
    "aria-label": `${title}: ${lines.map(describe(show)).join("; ")}`,
  });
  const box = el(
    "figure.chart",
    {},
    el("figcaption", {}, title, note ? el("span.note", {}, ` ${note}`) : null),
    readout,
    plot,
  );
  const { xs, columns, series, bands } = aligned(lines);
  const options = {
    width: 400,
    height: CHART_HEIGHT,
    series: [{}, ...series],
    bands,
    legend: { show: false },
    scales: { x: { time: false }, y: { range: rangeOf(range), distr: log ? 3 : 1 } },
    axes: [
      axis({ label: xLabel, labelSize: 18, size: 30, incrs: WHOLE }),
      axis({ size: 52, values: (u, ticks) => ticks.map(log ? logTick : tick) }),
    ],
    cursor: { sync: { key: xLabel }, drag: { x: true, y: false }, points: { size: 7 } },
    hooks: { setCursor: [(u) => tell(readout, lines, u.cursor.idx, xs, xLabel, show)] },
  };
  // Drawn once it is in the page and so has a width.
  box.start = () => {
    plot.chart = new uPlot(options, [xs, ...columns], plot);
    drawn.add(plot.chart);
    resizes.observe(plot);
    tell(readout, lines, null, xs, xLabel, show);
  };
  return box;
}

const WHOLE = [1, 2, 5]
  .flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7].map((e) => n * 10 ** e))
  .sort((a, b) => a - b);
const logTick = (value) => (known(value) && Math.log10(value) % 1 === 0 ? tickOf(value) : "");

const axis = (rest) => ({
  stroke: () => css("--muted"),
  grid: { stroke: () => css("--line"), width: 1 },
  ticks: { stroke: () => css("--line"), width: 1, size: 4 },
  font: "12px system-ui, sans-serif",
  labelFont: "12px system-ui, sans-serif",
  ...rest,
});

// A given range, or what the values span with a little air; never a single height.
function rangeOf(range) {
  if (range) return range;
  return (u, low, high) => {
    if (!known(low)) return [0, 1];
    if (u.scales.y.distr === 3) return [low / 1.3, high * 1.3];
    const air = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
  };
}

const describe =
  (show) =>
  ({ run, label, ys }) =>
    `${run}, ${label}: at the end ${show(last(ys))}`;

// uPlot's columns: all lines on the x of all, with gaps where a line has no value.
function aligned(lines) {
  const xs = [...new Set(lines.flatMap((line) => line.xs))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, i) => [x, i]));
  const column = (line, values) => {
    const made = new Array(xs.length).fill(null);
    line.xs.forEach((x, i) => (made[at.get(x)] = values[i]));
    return made;
  };
  const columns = [],
    series = [],
    bands = [];
  for (const line of lines) {
    const color = () => css(`--run-${line.place % 8}`);
    columns.push(column(line, line.ys));
    line.column = last(columns);
    series.push({
      stroke: color,
      width: 2,
      dash: DASHES[line.dash || 0],
      spanGaps: true,
      points: { show: line.xs.length < 40, size: 5 },
    });
    if (!line.low) continue;
    columns.push(column(line, line.high), column(line, line.low));
    const edge = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };
    series.push(edge, edge);
    bands.push({
      series: [series.length - 1, series.length],
      fill: () => css(`--run-${line.place % 8}`) + "26",
    });
  }
  return { xs, columns, series, bands };
}

// The values under the cursor; without one, the newest. An entry a run where there are several.
function tell(readout, lines, index, xs, xLabel, show) {
  const place = known(index) ? index : xs.length - 1;
  const valueOf = ({ column }) => {
    let i = place; // of a line with fewer points the newest before
    while (i > 0 && !known(column[i])) i--;
    return el("b", {}, show(column[i]));
  };
  const dashOf = ({ place: run, dash }) => swatch(run, dash ? `dash.dash-${dash}` : "dash");
  const names = [...new Set(lines.map(({ label }) => label))];
  const several = page.runs.length > 1;
  const entries = several
    ? [...new Set(lines.map(({ run }) => run))].map((run) => {
        const own = lines.filter((line) => line.run === run);
        return el(
          "span",
          {},
          swatch(own[0].place),
          ` ${run} `,
          own.map((line, i) => [i ? " / " : "", valueOf(line)]),
        );
      })
    : lines.map((line) =>
        el("span", {}, dashOf(line), names.length > 1 ? ` ${line.label} ` : " ", valueOf(line)),
      );
  const inTurn = several && names.length > 1 ? `: ${names.join(" / ")}` : "";
  const head = el("span.note", {}, `${xLabel} ${number(xs[place])}${inTurn}`);
  readout.replaceChildren(head, ...entries);
}
