// The state of the page stands in its address, behind the #, so that each view is a link:
// #view=samples&run=hir&iteration=3&question=object_counting/313aa5074bcc6654

const DEFAULTS = {
  view: "overview",
  hidden: "", // places of runs that curves leave out, with commas between
  x: "iteration", // of curves that have a value an iteration
  beside: "", // name of the run that others are compared with; the first
  run: "", // the rest is of the sample browser; the first run
  iteration: "",
  question: "",
  verdict: "any",
  task: "",
  flip: "any",
  since: "",
  find: "",
  order: "file",
  fields: "", // of the settings
  all: "",
};

let state = readAddress();

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return { ...DEFAULTS, ...given };
}

function addressOf(changes) {
  const wanted = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes }))
    if (name in DEFAULTS && String(value) !== DEFAULTS[name]) wanted.set(name, value);
  return `#${wanted}`;
}

// Goes to another state. Steps that a reader would not want to go back through, such as each letter
// of a search, replace the one before.
function go(changes, { replace = false, draw = true } = {}) {
  const address = addressOf(changes);
  state = { ...state, ...changes };
  history[replace ? "replaceState" : "pushState"](null, "", address);
  if (draw) drawView();
}

window.addEventListener("popstate", () => {
  state = readAddress();
  drawView();
});

// The place of the run of a name, as addresses have it; of the first where there is none.
const placeOf = (name) =>
  Math.max(
    0,
    page.runs.findIndex((run) => run.name === name),
  );
const isHidden = (place) => state.hidden.split(",").includes(String(place));
