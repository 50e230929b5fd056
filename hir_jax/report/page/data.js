// The data of the page, and what is derived from it.
//
// The files of this folder stand in one scope, in the order of page.py: each uses names of those
// before it, and of later ones only inside functions. What they share is `page`, the JSON that
// gather.py makes, and the state in the page's address (address.js).

let page = null; // set by main.js once it is unpacked

const SENTENCE_OF_OLD_BROWSERS =
  "This browser cannot unpack the page's data (it lacks DecompressionStream): open it with " +
  "Chrome or Edge 80, Firefox 113, Safari 16.4 or newer.";

async function unpack() {
  if (typeof DecompressionStream === "undefined") throw new Error(SENTENCE_OF_OLD_BROWSERS);
  const packed = atob(document.getElementById("data").textContent);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Numbers -----------------------------------------------------------------------------------------

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const points = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)}`;
const count = (n) => n.toLocaleString("en");
const known = (value) => value !== null && value !== undefined;

// Short, and never "0.000" for what is not 0.
function number(value) {
  if (!known(value)) return "–";
  if (Number.isInteger(value)) return count(value);
  const size = Math.abs(value);
  return size >= 1000
    ? count(Math.round(value))
    : size < 0.001
      ? value.toExponential(1)
      : value.toPrecision(3);
}

// On an axis: without zeros at the end.
const tickOf = (value) => (known(value) ? String(Number(value.toPrecision(4))) : "");

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Runs --------------------------------------------------------------------------------------------

const last = (list) => list[list.length - 1];

const stateOf = (run) =>
  run.finished
    ? `ended, ${run.iterations} iterations`
    : `iteration ${run.iteration} of ${run.iterations}`;

// [a - b, low, high] of each quantity, or why they cannot be compared.
function difference(a, b, name) {
  const found = page.comparisons.find(({ runs }) => runs.includes(a) && runs.includes(b));
  if (!found || found.why) return { why: found ? found.why : "not ended" };
  const [value, low, high] = found[name];
  return { estimate: found.runs[0] === a ? [value, low, high] : [-value, -high, -low] };
}

// Samples -----------------------------------------------------------------------------------------

// Of each run, made when first asked for: rates[iteration] maps a question to [right, drawn] and
// rows[iteration] a question to the places of its samples in the columns.
const indexes = new Map();

function indexOf(run) {
  if (!indexes.has(run)) indexes.set(run, makeIndex(run.samples));
  return indexes.get(run);
}

function makeIndex({ counts, columns, iterations }) {
  const rates = counts.map(
    ({ question, drawn, right }) => new Map(question.map((q, i) => [q, [right[i], drawn[i]]])),
  );
  const rows = iterations.map(() => new Map());
  (columns.question || []).forEach((question, row) => {
    const of = rows[columns.iteration[row]];
    if (of.has(question)) of.get(question).push(row);
    else of.set(question, [row]);
  });
  return { rates, rows };
}

const isRight = (columns, row) => columns.right[row] === "1";
const isParsed = (columns, row) => columns.parsed[row] === "1";

// "object_counting" of "object_counting/313aa5074bcc6654".
const taskOf = (id) => (id.includes("/") ? id.slice(0, id.lastIndexOf("/")) : "");

// Outputs that are the same to a reader, with how often each was drawn.
function distinct(columns, rows) {
  const found = new Map();
  for (const row of rows) {
    const facts = Object.values(columns.facts).map((column) => column[row]);
    const key = [
      columns.text[row],
      columns.read[row],
      columns.right[row],
      columns.parsed[row],
      facts,
    ].join();
    if (found.has(key)) found.get(key).times++;
    else found.set(key, { row, times: 1 });
  }
  return [...found.values()];
}
