// Settings of the runs, and where they differ.

function drawSettings(view) {
  const several = page.runs.length > 1;
  const find = el("input", {
    type: "search",
    id: "find",
    value: state.fields,
    placeholder: "such as loss. or seed",
    on: {
      input: () => {
        go({ fields: find.value }, { replace: true, draw: false });
        refresh();
      },
    },
  });
  const body = el("div");
  const refresh = () =>
    body.replaceChildren(
      section("Config", null, settingsTable("config", several && !state.all)),
      section(
        "What was read",
        "Digests: equal ones mean equal content, wherever it lies.",
        settingsTable("identity", several && !state.all),
      ),
    );
  put(
    view,
    el(
      "div.bar.filters",
      {},
      several
        ? select(
            "show",
            [
              ["", "where runs differ"],
              ["1", "everything"],
            ],
            state.all,
            (all) => go({ all }),
          )
        : null,
      el("label.field.find", {}, el("span", {}, "search"), find),
    ),
    body,
  );
  refresh();
}

// Texts without their quotes, digests by their first digits.
const shorten = (value) =>
  value.replace(/^"|"$/g, "").replace(/^([0-9a-f]{10})[0-9a-f]{22}$/, "$1…");

function settingsTable(kind, onlyDifferent) {
  const search = searchFor(state.fields);
  const names = [...new Set(page.runs.flatMap((run) => Object.keys(run[kind])))];
  const values = (name) =>
    page.runs.map((run) => (name in run[kind] ? JSON.stringify(run[kind][name]) : "absent"));
  const differs = (name) => new Set(values(name)).size > 1;
  const shown = names.filter(
    (name) => (!onlyDifferent || differs(name)) && (!search || name.search(search) >= 0),
  );
  if (!shown.length)
    return el(
      "p.notice",
      {},
      onlyDifferent ? "The runs do not differ in any of it." : "Nothing of that name.",
    );
  const rows = shown.map((name) =>
    el(
      differs(name) ? "tr.differs" : "tr",
      {},
      el("th", { scope: "row", title: page.meaning[name] || null }, marked(name, search)),
      values(name).map((value) => el("td.value", { title: value }, shorten(value))),
    ),
  );
  return table(["field", ...page.runs.map(({ name }) => name)], rows, "table.settings");
}
