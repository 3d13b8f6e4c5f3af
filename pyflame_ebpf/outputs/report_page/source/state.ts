// What the user has chosen. All of it is in the URL's fragment, so that a view can be shared.

import { batch, computed, effect, signal, type Signal } from "@preact/signals";
import { knowsCores } from "./comparison";
import type { Report } from "./data";
import { GROUPINGS, type Grouping } from "./stacks";
import type { TopLevel } from "./tree";

export type Tab = "functions" | "processes" | "trust";
export type Mode = "flame" | "sandwich" | "lines";
export type Colour = "change" | "kind" | "module" | "process";
export type Theme = "auto" | "light" | "dark";
export type Sort = "name" | "self" | "total" | "before" | "after" | "change";

export interface Row {
  grouping: Grouping;
  key: number;
}

export interface State {
  recording: Signal<number>;
  shares: Signal<boolean>; // a comparison by shares of all samples, not by cores
  withCallees: Signal<boolean>; // a comparison's table tells totals
  range: Signal<readonly [number, number] | null>; // seconds from the start, end excluded
  processes: Signal<ReadonlySet<number>>;
  threads: Signal<ReadonlySet<number>>;
  tab: Signal<Tab>;
  mode: Signal<Mode>;
  showTable: Signal<boolean>;
  showGraph: Signal<boolean>;
  icicle: Signal<boolean>;
  fold: Signal<boolean>;
  native: Signal<boolean>;
  kernel: Signal<boolean>;
  library: Signal<boolean>;
  plumbing: Signal<boolean>;
  threadFrames: Signal<boolean>;
  lineFrames: Signal<boolean>;
  top: Signal<TopLevel>;
  colour: Signal<Colour>;
  search: Signal<string>;
  filter: Signal<string>;
  commands: Signal<string>; // filters the table of processes
  grouping: Signal<Grouping>;
  sort: Signal<Sort>;
  ascending: Signal<boolean>;
  selected: Signal<Row | null>;
  zoom: Signal<number>; // a node of the stacks, -1 for all
  theme: Signal<Theme>;
  // Not part of what is shared:
  pointedRow: Signal<Row | null>; // of the table: its boxes light up
  pointedBox: Signal<Row | null>; // the row of a box: it lights up in the table
  details: Signal<readonly [string, string]>; // of the box or row that is pointed at: its name, its figures
  help: Signal<boolean>;
  printing: Signal<boolean>;
}

interface Field {
  key: string;
  read: () => string; // "" for the first value
  write: (text: string) => void; // "" sets the first value
}

export function stateOf(report: Report): State {
  const { first, compared } = report;
  return {
    recording: signal(compared?.first.side ?? 0),
    shares: signal(compared !== null && (compared.first.shares || !report.recordings.every(knowsCores))),
    withCallees: signal(compared?.first.callees ?? false),
    range: signal(null),
    processes: signal(new Set<number>()),
    threads: signal(new Set<number>()),
    tab: signal<Tab>("functions"),
    mode: signal<Mode>("flame"),
    showTable: signal(true),
    showGraph: signal(true),
    icicle: signal(false),
    fold: signal(false),
    native: signal(first.native),
    kernel: signal(first.kernel),
    library: signal(true),
    plumbing: signal(first.plumbing),
    threadFrames: signal(first.threads),
    lineFrames: signal(first.lines),
    top: signal<TopLevel>(first.top),
    colour: signal<Colour>(compared ? "change" : "kind"),
    search: signal(""),
    filter: signal(""),
    commands: signal(""),
    grouping: signal<Grouping>("function"),
    sort: signal<Sort>(compared ? "change" : "self"),
    ascending: signal(false),
    selected: signal(null),
    zoom: signal(-1),
    theme: signal<Theme>("auto"),
    pointedRow: signal(null),
    pointedBox: signal(null),
    details: signal(["", ""]),
    help: signal(false),
    printing: signal(false),
  };
}

// Takes the state out of the fragment, and keeps the fragment as the state is from then on.
export function keepInFragment(report: Report, state: State): void {
  const fields = fieldsOf(report, state);
  const read = () =>
    batch(() => {
      const given = new URLSearchParams(location.hash.slice(1));
      for (const field of fields) {
        field.write(given.get(field.key) ?? "");
      }
    });
  read();
  const fragment = computed(() => {
    const shown = new URLSearchParams();
    for (const field of fields) {
      const text = field.read();
      if (text) {
        shown.set(field.key, text);
      }
    }
    return shown.toString();
  });
  addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== fragment.value) {
      read();
    }
  });
  const write = sparingly(() => {
    const text = fragment.peek();
    if (location.hash.slice(1) !== text) {
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    }
  });
  effect(() => {
    void fragment.value;
    write();
  });
}

const WRITES_MAX = 60; // in so many milliseconds; browsers refuse some more, Safari from 100 on
const WRITES_TIME = 30_000;
const LATER = 1000;

// Does it at once, but not too often: then later, and once for all that was asked meanwhile.
function sparingly(act: () => void): () => void {
  let times: number[] = [];
  let waiting = 0;
  const now = () => {
    times.push(performance.now());
    act();
  };
  return () => {
    clearTimeout(waiting);
    times = times.filter((time) => time > performance.now() - WRITES_TIME);
    if (times.length < WRITES_MAX) {
      now();
    } else {
      waiting = setTimeout(now, LATER);
    }
  };
}

function fieldsOf(report: Report, state: State): Field[] {
  const { processes, threads, functions } = report;
  return [
    ...(report.compared ? [sideField(state), flag("shares", state.shares), flag("callees", state.withCallees)] : []),
    rangeField(report, state),
    setField("process", state.processes, processes.pid.length),
    setField("thread", state.threads, threads.tid.length),
    choice("tab", state.tab, ["functions", "processes", "trust"]),
    choice("view", state.mode, ["flame", "sandwich", "lines"]),
    flag("table", state.showTable),
    flag("graph", state.showGraph),
    flag("icicle", state.icicle),
    flag("fold", state.fold),
    flag("native", state.native),
    flag("kernel", state.kernel),
    flag("library", state.library),
    flag("plumbing", state.plumbing),
    flag("threads", state.threadFrames),
    flag("lines", state.lineFrames),
    choice("top", state.top, ["process", "command", "interpreter", "none"]),
    choice("colour", state.colour, [...(report.compared ? (["change"] as const) : []), "kind", "module", "process"]),
    text("search", state.search),
    text("filter", state.filter),
    text("commands", state.commands),
    choice("by", state.grouping, GROUPINGS),
    choice("sort", state.sort, report.compared ? ["change", "before", "after", "name"] : ["self", "total", "name"]),
    flag("ascending", state.ascending),
    rowField(state.selected, {
      function: functions.kind.length,
      line: report.frameFunction.length,
      module: functions.modules.length,
      process: processes.pid.length,
      thread: threads.tid.length,
    }),
    {
      key: "zoom",
      read: () => (state.zoom.value < 0 ? "" : String(state.zoom.value)),
      write: (given) => {
        state.zoom.value = whole(given, report.entry.length);
      },
    },
    choice("theme", state.theme, ["auto", "light", "dark"]),
  ];
}

function whole(given: string, limit: number): number {
  const number = /^\d{1,10}$/.test(given) ? Number(given) : -1;
  return number < limit ? number : -1;
}

function choice<T extends string>(key: string, value: Signal<T>, choices: readonly T[]): Field {
  const first = value.peek();
  return {
    key,
    read: () => (value.value === first ? "" : value.value),
    write: (given) => {
      value.value = choices.find((each) => each === given) ?? first;
    },
  };
}

function flag(key: string, value: Signal<boolean>): Field {
  const first = value.peek();
  return {
    key,
    read: () => (value.value === first ? "" : value.value ? "1" : "0"),
    write: (given) => {
      value.value = given === "1" ? true : given === "0" ? false : first;
    },
  };
}

function text(key: string, value: Signal<string>): Field {
  return {
    key,
    read: () => value.value,
    write: (given) => {
      value.value = given;
    },
  };
}

function rangeField(report: Report, state: State): Field {
  return {
    key: "range",
    read: () => (state.range.value ? state.range.value.join("-") : ""),
    write: (given) => {
      const found = /^(\d{1,9})-(\d{1,9})$/.exec(given);
      const seconds = report.recordings[state.recording.peek()].seconds;
      const [from, to] = found ? [Number(found[1]), Math.min(Number(found[2]), seconds)] : [0, 0];
      const isPart = from < to && (from > 0 || to < seconds);
      const now = state.range.peek();
      if (!isPart) {
        state.range.value = null;
      } else if (!now || now[0] !== from || now[1] !== to) {
        state.range.value = [from, to];
      }
    },
  };
}

function sideField({ recording }: State): Field {
  const sides = ["before", "after"];
  const first = recording.peek();
  return {
    key: "side",
    read: () => (recording.value === first ? "" : sides[recording.value]),
    write: (given) => {
      recording.value = sides.includes(given) ? sides.indexOf(given) : first;
    },
  };
}

function setField(key: string, value: Signal<ReadonlySet<number>>, limit: number): Field {
  const read = () => [...value.value].sort((one, other) => one - other).join(".");
  return {
    key,
    read,
    write: (given) => {
      if (given !== read()) {
        value.value = new Set(given.split(".").map((each) => whole(each, limit)).filter((each) => each >= 0));
      }
    },
  };
}

function rowField(value: Signal<Row | null>, limits: Record<Grouping, number>): Field {
  const read = () => (value.value ? `${value.value.grouping}-${value.value.key}` : "");
  return {
    key: "selected",
    read,
    write: (given) => {
      if (given === read()) {
        return;
      }
      const [name, number] = given.split("-");
      const grouping = GROUPINGS.find((each) => each === name);
      const key = grouping ? whole(number ?? "", limits[grouping]) : -1;
      value.value = grouping && key >= 0 ? { grouping, key } : null;
    },
  };
}
