// The keyboard: what each key does, and the overlay that tells.

import { batch, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { isDark, type Model } from "./model";
import type { Colour, Tab } from "./state";
import { choose, moveRange } from "./timeline";

interface Key {
  keys: string[]; // as KeyboardEvent.key has them
  shown?: string;
  does: string;
  run: (model: Model) => void;
}

const flip = (pick: (model: Model) => { value: boolean }) => (model: Model) => {
  pick(model).value = !pick(model).value;
};

const GROUPS: [string, Key[]][] = [
  [
    "Time",
    [
      { keys: ["["], does: "range one second earlier", run: (model) => moveRange(model, -1, "both") },
      { keys: ["]"], does: "range one second later", run: (model) => moveRange(model, 1, "both") },
      { keys: ["{"], does: "range one second shorter", run: (model) => moveRange(model, -1, "end") },
      { keys: ["}"], does: "range one second longer", run: (model) => moveRange(model, 1, "end") },
      { keys: ["\\"], does: "whole recording", run: (model) => choose(model, 0, Infinity) },
    ],
  ],
  [
    "Look for",
    [
      { keys: ["/"], does: "search the graph by regular expression", run: (model) => search(model) },
      { keys: ["f"], does: "filter the table", run: (model) => filter(model) },
    ],
  ],
  [
    "Frames",
    [
      { keys: ["n"], does: "native", run: flip(({ state }) => state.native) },
      { keys: ["k"], does: "kernel", run: flip(({ state }) => state.kernel) },
      { keys: ["l"], does: "library", run: flip(({ state }) => state.library) },
      { keys: ["p"], does: "plumbing of the interpreter", run: flip(({ state }) => state.plumbing) },
      { keys: ["r"], does: "fold recursion", run: flip(({ state }) => state.fold) },
      { keys: ["i"], does: "icicle: root at the top", run: flip(({ state }) => state.icicle) },
      { keys: ["c"], does: "colour by kind, module, process", run: (model) => nextColour(model) },
    ],
  ],
  [
    "Views",
    [
      { keys: ["1"], does: "flame graph", run: ({ state }) => inGraph(state, "flame") },
      { keys: ["2"], shown: "2 s", does: "callers and callees of the selected function", run: ({ state }) => inGraph(state, "sandwich") },
      { keys: ["3"], shown: "3 e", does: "lines of the selected function", run: ({ state }) => inGraph(state, "lines") },
      { keys: ["4"], does: "processes", run: ({ state }) => (state.tab.value = "processes") },
      { keys: ["5"], does: "trust", run: ({ state }) => (state.tab.value = "trust") },
      { keys: ["t"], does: "table: open or close", run: ({ state }) => closeOne(state.showTable, state.showGraph) },
      { keys: ["g"], does: "graph: open or close", run: ({ state }) => closeOne(state.showGraph, state.showTable) },
      { keys: ["d"], does: "light or dark", run: (model) => switchTheme(model) },
      { keys: ["?"], does: "these keys", run: ({ state }) => (state.help.value = true) },
    ],
  ],
];
const ALIASES: Record<string, string> = { s: "2", e: "3" };

// Where the focus is decides what these do.
const ELSEWHERE: [string, string][] = [
  ["Esc", "back: search, zoom, selection, range"],
  ["← → ↑ ↓", "in the graph: from box to box; Enter zooms"],
  ["↑ ↓", "in the table: from row to row; Enter opens"],
  ["← →", "in the timeline: move the range; Shift its end, Alt its beginning"],
];

type States = Model["state"];

function inGraph(state: States, mode: "flame" | "sandwich" | "lines"): void {
  batch(() => {
    state.tab.value = "functions";
    state.showGraph.value = true;
    state.mode.value = mode;
  });
}

function closeOne(one: { value: boolean }, other: { value: boolean }): void {
  one.value = !one.value;
  if (!one.value) {
    other.value = true;
  }
}

function nextColour({ report, state }: Model): void {
  const order: Colour[] = [...(report.compared ? (["change"] as const) : []), "kind", "module", "process"];
  state.colour.value = order[(order.indexOf(state.colour.value) + 1) % order.length];
}

export function switchTheme({ state, systemDark }: Model): void {
  const dark = !isDark(state, systemDark);
  state.theme.value = dark === systemDark.value ? "auto" : dark ? "dark" : "light";
}

function search({ state }: Model): void {
  if (state.mode.value === "lines") {
    state.mode.value = "flame";
  }
  focusIn(state, "functions", "search", () => (state.showGraph.value = true));
}

function filter({ state }: Model): void {
  if (state.tab.value === "processes") {
    focusIn(state, "processes", "process-filter", () => undefined);
  } else {
    focusIn(state, "functions", "filter", () => (state.showTable.value = true));
  }
}

function focusIn(state: States, tab: Tab, id: string, prepare: () => void): void {
  batch(() => {
    state.tab.value = tab;
    prepare();
  });
  // Not before the page shows it.
  setTimeout(() => {
    const input = document.getElementById(id) as HTMLInputElement | null;
    input?.focus();
    input?.select();
  });
}

export function listenToKeys(model: Model): void {
  const bound = new Map(GROUPS.flatMap(([, keys]) => keys.flatMap((key) => key.keys.map((name) => [name, key] as const))));
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.key === "Escape") {
      back(model, target);
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key === "f") {
      event.preventDefault();
      search(model);
      return;
    }
    if (target.id === "search" && event.key === "Enter") {
      focusFound();
      return;
    }
    const isTyping = target.matches("input[type=text], input.end, select, textarea");
    if (isTyping || model.state.help.value || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (event.key.startsWith("Arrow") && target === document.body) {
      focusGraph(event);
      return;
    }
    const key = bound.get(ALIASES[event.key] ?? event.key);
    if (key) {
      event.preventDefault();
      key.run(model);
    }
  });
}

// Each press takes back one thing.
function back({ state }: Model, target: HTMLElement): void {
  const typed: Record<string, Signal<string>> = { search: state.search, filter: state.filter, "process-filter": state.commands };
  if (state.help.value) {
    state.help.value = false;
  } else if (target.id in typed) {
    typed[target.id].value = "";
    target.blur();
  } else if (target.matches("input")) {
    target.blur();
  } else if (state.search.value) {
    state.search.value = "";
  } else if (state.zoom.value >= 0 || state.selected.value) {
    batch(() => {
      state.zoom.value = -1;
      state.selected.value = null;
    });
  } else {
    state.range.value = null;
  }
}

// The widest match is where one looks first.
function focusFound(): void {
  const graph = document.querySelector<HTMLElement & { focusWidest: () => void }>(".graph");
  graph?.focus();
  graph?.focusWidest();
}

function focusGraph(event: KeyboardEvent): void {
  const graph = document.querySelector<HTMLElement>(".graph");
  if (graph) {
    graph.focus();
    graph.dispatchEvent(new KeyboardEvent("keydown", { key: event.key }));
    event.preventDefault();
  }
}

export function Help({ model }: { model: Model }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const isOpen = model.state.help.value;
  useEffect(() => {
    if (isOpen && !dialog.current!.open) {
      dialog.current!.showModal();
    } else if (!isOpen && dialog.current!.open) {
      dialog.current!.close();
    }
  }, [isOpen]);
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-label="Keyboard"
      onClose={() => (model.state.help.value = false)}
      onClick={(event) => {
        if (event.target === dialog.current) {
          model.state.help.value = false;
        }
      }}
    >
      <div>
        <header>
          <h2>Keyboard</h2>
          <button type="button" class="icon" aria-label="Close" onClick={() => (model.state.help.value = false)}>
            ✕
          </button>
        </header>
        <div class="groups">
          {GROUPS.map(([name, keys]) => (
            <section key={name}>
              <h3>{name}</h3>
              <dl>
                {keys.map((key) => (
                  <div key={key.does}>
                    <dt>
                      {(key.shown ?? key.keys[0]).split(" ").map((each) => (
                        <kbd key={each}>{each}</kbd>
                      ))}
                    </dt>
                    <dd>{key.does}</dd>
                  </div>
                ))}
              </dl>
            </section>
          ))}
          <section class="wide">
            <h3>Everywhere else</h3>
            <dl>
              {ELSEWHERE.map(([keys, does]) => (
                <div key={does}>
                  <dt>
                    {keys.split(" ").map((each) => (
                      <kbd key={each}>{each}</kbd>
                    ))}
                  </dt>
                  <dd>{does}</dd>
                </div>
              ))}
            </dl>
          </section>
        </div>
        <p class="soft">
          Drag in the timeline to choose seconds. Double-click a row to open it. What is shown is kept in the address, so that it can be
          shared with anybody who has the same file.
        </p>
      </div>
    </dialog>
  );
}
