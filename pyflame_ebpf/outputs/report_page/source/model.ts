// What follows from the recording and from what the user has chosen, each thing computed once it is looked at.

import { computed, type ReadonlySignal } from "@preact/signals";
import { changeOf, shadeOf, type Change, type Counted } from "./comparison";
import type { Recording, Report } from "./data";
import { moduleColour, DARK, hashOf, LIGHT, type Palette } from "./palette";
import { groupCounts, ownCounts, sideOf, treeCounts, type Side } from "./sides";
import { groupsOf, hiddenFunctions, stacksOf, type Grouping, type Groups, type Stacks } from "./stacks";
import type { Colour, Row, State } from "./state";
import {
  calleesTree,
  callersTree,
  labelsOf,
  ROOT,
  treeWeights,
  wholeTree,
  type Shape,
  type Tree,
  type TreeWeights,
} from "./tree";
import { groupWeights, weigh, type Part, type Weights } from "./weights";
import { labelText, ownersText, rowText } from "./words";

export interface TableRow {
  key: number;
  text: string;
  self: number;
  total: number;
}

// What is shown, and the recording that it is compared with: all of that, with the same processes and threads.
export interface Sides {
  shown: Side;
  other: Side;
}

export interface Search {
  wrong: boolean;
  matches: ((label: number) => boolean) | null; // null while nothing is searched
}

export interface Model {
  report: Report;
  stacks: Stacks;
  state: State;
  systemDark: { value: boolean };
  recording: ReadonlySignal<Recording>;
  part: ReadonlySignal<Part>;
  weights: ReadonlySignal<Weights>;
  whole: ReadonlySignal<Weights>; // of the whole recording
  sides: ReadonlySignal<Sides | null>; // null where nothing is compared
  hidden: ReadonlySignal<Uint8Array>;
  tree: ReadonlySignal<Tree>;
  treeWeights: ReadonlySignal<TreeWeights>;
  selectedFunction: ReadonlySignal<number>; // -1 for none
  callers: ReadonlySignal<Tree | null>;
  callees: ReadonlySignal<Tree | null>;
  groups: ReadonlySignal<Groups>;
  rows: ReadonlySignal<TableRow[]>;
  shownRows: ReadonlySignal<TableRow[]>;
  search: ReadonlySignal<Search>;
  palette: ReadonlySignal<Palette>;
  curveProcesses: number[]; // processes with a colour of their own, busiest first
  label: (label: number) => string;
}

const CURVES = 8;

export function modelOf(report: Report, state: State, systemDark: { value: boolean }): Model {
  const stacks = stacksOf(report);
  const recording = computed(() => report.recordings[state.recording.value]);
  const part = computed<Part>(() => {
    const [from, to] = state.range.value ?? [0, recording.value.seconds];
    return { from, to, processes: state.processes.value, threads: state.threads.value };
  });
  const weights = computed(() => weigh(recording.value, stacks, part.value));
  const whole = computed(() => weigh(recording.value, stacks, everything(recording.value)));
  const other = computed(() => otherSide(report, stacks, state));
  const sides = computed(() =>
    report.compared ? { shown: sideOf(recording.value, stacks, part.value, weights.value, state.shares.value), other: other.value } : null,
  );
  const hidden = computed(() =>
    hiddenFunctions(report, {
      native: !state.native.value,
      kernel: !state.kernel.value,
      library: !state.library.value,
      plumbing: !state.plumbing.value,
    }),
  );
  const shape = computed<Shape>(() => ({
    hidden: hidden.value,
    top: state.top.value,
    threads: state.threadFrames.value,
    lines: state.lineFrames.value,
    fold: state.fold.value,
  }));
  const tree = computed(() => wholeTree(report, stacks, shape.value));
  const selectedFunction = computed(() => functionOf(report, state.selected.value));
  const around = (make: typeof callersTree) =>
    computed(() => {
      const func = selectedFunction.value;
      return func < 0 ? null : make(report, stacks, { ...shape.value, hidden: showing(shape.value.hidden, func), lines: false }, func);
    });
  const groups = computed(() => groupsOf(report, stacks, state.grouping.value, hidden.value));
  const rows = computed(() => tableRows(report, stacks, state.grouping.value, groups.value, weights.value, sides.value));
  const wanted = computed(() => patternOf(state.filter.value));
  const names = new Map<number, string>();
  const label = (of: number): string => {
    if (of >= 0 && of < report.processes.pid.length && state.top.value !== "process") {
      return ownersText(report, state.top.value, of);
    }
    let text = names.get(of);
    if (text === undefined) {
      text = labelText(report, of);
      names.set(of, text);
    }
    return text;
  };
  const model: Model = {
    report,
    stacks,
    state,
    systemDark,
    recording,
    part,
    weights,
    whole,
    sides,
    hidden,
    tree,
    treeWeights: computed(() => treeWeights(tree.value, weights.value)),
    selectedFunction,
    callers: around(callersTree),
    callees: around(calleesTree),
    groups,
    rows,
    shownRows: computed(() => {
      const filter = wanted.value;
      const shown = filter ? rows.value.filter((row) => filter.test(row.text)) : rows.value.slice();
      return sorted(model, shown);
    }),
    search: computed(() => {
      void state.top.value; // by which labels at the root change
      return searchFor(state.search.value, label);
    }),
    palette: computed(() => (isDark(state, systemDark) ? DARK : LIGHT)),
    curveProcesses: busiest(report, stacks, whole.peek()),
    label,
  };
  return model;
}

function otherSide(report: Report, stacks: Stacks, state: State): Side {
  const recording = report.recordings[1 - state.recording.value];
  const part = { from: 0, to: recording.seconds, processes: state.processes.value, threads: state.threads.value };
  return sideOf(recording, stacks, part, weigh(recording, stacks, part), state.shares.value);
}

// The change of what was counted in what is shown and in the other recording.
function changed(model: Model, { shown, other }: Sides, own: Counted, others: Counted): Change {
  return model.state.recording.value === 1
    ? changeOf([others, own], [other.scale, shown.scale])
    : changeOf([own, others], [shown.scale, other.scale]);
}

export function rowChange(model: Model, sides: Sides, row: TableRow): Change {
  const withCallees = model.state.withCallees.value || isWhole(model.state.grouping.value);
  const countsOf = withCallees ? groupCounts : ownCounts;
  const own = countsOf(sides.shown, model.stacks, model.groups.value);
  const others = countsOf(sides.other, model.stacks, model.groups.value);
  return changed(model, sides, own(row.key), others(row.key));
}

export function boxChange(model: Model, sides: Sides, tree: Tree, node: number): Change {
  return changed(model, sides, treeCounts(sides.shown, tree)(node), treeCounts(sides.other, tree)(node));
}

// Whether a row changed by more than noise, among so many rows.
export function isBeyondNoise(model: Model, change: Change): boolean {
  const { thresholds } = model.report.compared!;
  return Math.abs(change.score) >= (thresholds[model.state.grouping.value] ?? thresholds.process);
}

export function isDark(state: State, systemDark: { value: boolean }): boolean {
  if (state.printing.value) {
    return false;
  }
  return state.theme.value === "auto" ? systemDark.value : state.theme.value === "dark";
}

export function everything(recording: Recording): Part {
  return { from: 0, to: recording.seconds, processes: new Set(), threads: new Set() };
}

function showing(hidden: Uint8Array, func: number): Uint8Array {
  const made = hidden.slice();
  made[func] = 0;
  return made;
}

export function functionOf(report: Report, row: Row | null): number {
  if (row?.grouping === "function") {
    return row.key;
  }
  return row?.grouping === "line" ? report.frameFunction[row.key] : -1;
}

function tableRows(report: Report, stacks: Stacks, grouping: Grouping, groups: Groups, weights: Weights, sides: Sides | null): TableRow[] {
  const { self, total } = groupWeights(stacks, groups, weights);
  const others = sides ? groupWeights(stacks, groups, sides.other.weights) : { self, total };
  const rows: TableRow[] = [];
  for (let key = 0; key < total.length; key += 1) {
    if (total[key] > 0 || others.total[key] > 0) {
      rows.push({
        key,
        text: rowText(report, grouping, key),
        self: isWhole(grouping) ? total[key] : self[key],
        total: total[key],
      });
    }
  }
  return rows;
}

// Whether what a row used itself is all that it used.
function isWhole(grouping: Grouping): boolean {
  return grouping === "process" || grouping === "thread";
}

function sorted(model: Model, rows: TableRow[]): TableRow[] {
  const { state } = model;
  const sides = model.sides.value;
  return sides ? sortedByChange(model, sides, rows) : sortedBySamples(rows, state);
}

function sortedByChange(model: Model, sides: Sides, rows: TableRow[]): TableRow[] {
  const { sort, ascending } = model.state;
  const sign = ascending.value ? 1 : -1;
  const figures = rows.map((row) => ({ row, change: rowChange(model, sides, row) }));
  const size = ({ change }: { change: Change }) =>
    sort.value === "before" ? change.before : sort.value === "after" ? change.after : Math.abs(change.change) + (isBeyondNoise(model, change) ? 1e6 : 0);
  figures.sort((one, two) => {
    const names = compared(one.row.text, two.row.text);
    return sort.value === "name" ? sign * names : sign * (size(one) - size(two)) || names;
  });
  return figures.map(({ row }) => row);
}

function sortedBySamples(rows: TableRow[], state: State): TableRow[] {
  const by = state.sort.value === "name" ? "name" : state.sort.value === "total" ? "total" : "self";
  const sign = state.ascending.value ? 1 : -1;
  const other = by === "self" ? "total" : "self";
  return rows.sort((one, two) => {
    if (by === "name") {
      return -sign * compared(two.text, one.text) || two.self - one.self;
    }
    return sign * (one[by] - two[by]) || two[other] - one[other] || compared(one.text, two.text);
  });
}

function compared(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

// What is no regular expression is looked for as it stands.
export function patternOf(text: string): RegExp | null {
  if (!text) {
    return null;
  }
  try {
    return new RegExp(text, "i");
  } catch {
    return new RegExp(text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "i");
  }
}

function searchFor(text: string, label: (of: number) => string): Search {
  if (!text) {
    return { wrong: false, matches: null };
  }
  let pattern: RegExp;
  try {
    pattern = new RegExp(text, "i");
  } catch {
    return { wrong: true, matches: null };
  }
  const known = new Map<number, boolean>();
  const matches = (of: number): boolean => {
    let found = known.get(of);
    if (found === undefined) {
      found = pattern.test(label(of));
      known.set(of, found);
    }
    return found;
  };
  return { wrong: false, matches };
}

// Samples in or below a matching box, below `zoom` only; nested matches count once.
export function matchedSamples(tree: Tree, weights: TreeWeights, matches: (label: number) => boolean, zoom = 0): number {
  const state = new Uint8Array(tree.count); // 1 below zoom, 2 below a match
  let matched = 0;
  for (let node = zoom; node < tree.count; node += 1) {
    if (weights.total[node] === 0) {
      continue;
    }
    const above = node === zoom ? 1 : state[tree.parent[node]];
    if (above === 1 && matches(tree.label[node])) {
      matched += weights.total[node];
      state[node] = 2;
    } else {
      state[node] = above;
    }
  }
  return matched;
}

// The nodes of a tree that show a row of the table.
export function litNodes(model: Model, tree: Tree, row: Row | null): Uint8Array | null {
  if (!row) {
    return null;
  }
  const { stacks } = model;
  const lit = new Uint8Array(tree.count);
  const { module } = model.report.functions;
  const keyOf: Record<Grouping, (node: number) => number> = {
    function: (node) => stacks.func[node],
    line: (node) => stacks.frame[node],
    module: (node) => (stacks.func[node] < 0 ? -1 : module[stacks.func[node]]),
    process: (node) => (stacks.depth[node] === 1 ? stacks.process[node] : -1),
    thread: (node) => (stacks.depth[node] > 2 ? stacks.thread[node] : -1),
  };
  const key = keyOf[row.grouping];
  const hidden = model.hidden.value;
  for (let node = 0; node < stacks.count; node += 1) {
    if (tree.nodeOf[node] >= 0 && key(node) === row.key && !(stacks.func[node] >= 0 && hidden[stacks.func[node]] === 1)) {
      lit[tree.nodeOf[node]] = 1;
    }
  }
  return lit;
}

// The row of the table that a box belongs to, by the table's present grouping.
export function rowOf(model: Model, tree: Tree, node: number): Row | null {
  const { report, stacks } = model;
  const label = tree.label[node];
  const { threadsAt, functionsAt, framesAt } = labelsOf(report);
  if (label === ROOT || label < 0) {
    return null;
  }
  if (label < threadsAt) {
    return { grouping: "process", key: label };
  }
  if (label < functionsAt) {
    return { grouping: "thread", key: label - threadsAt };
  }
  if (label >= framesAt) {
    return { grouping: "line", key: label - framesAt };
  }
  const grouping = model.state.grouping.value;
  if (grouping === "module") {
    return { grouping, key: report.functions.module[label - functionsAt] };
  }
  const example = tree.example[node];
  if (grouping === "process" && example >= 0) {
    return { grouping: "function", key: stacks.func[example] };
  }
  return { grouping: "function", key: label - functionsAt };
}

function busiest(report: Report, stacks: Stacks, weights: Weights): number[] {
  const samples = new Float64Array(report.processes.pid.length);
  for (let node = 0; node < stacks.count; node += 1) {
    if (stacks.depth[node] === 1) {
      samples[stacks.process[node]] += weights.total[node];
    }
  }
  const order = [...samples.keys()].filter((process) => samples[process] > 0);
  order.sort((one, other) => samples[other] - samples[one] || one - other);
  return order.slice(0, order.length === CURVES + 1 ? CURVES + 1 : CURVES);
}

// The processes of the whole recording that were sampled; the report knows others, too, where some were selected.
export function sampledProcesses({ stacks, whole }: Model): number[] {
  const seen = new Set<number>();
  const { total } = whole.value;
  for (let node = 0; node < stacks.count; node += 1) {
    if (stacks.depth[node] === 1 && total[node] > 0) {
      seen.add(stacks.process[node]);
    }
  }
  return [...seen];
}

export function processColour(model: Model, process: number): string {
  const { curves, others } = model.palette.value;
  const place = model.curveProcesses.indexOf(process);
  return place < 0 ? others : curves[place % curves.length];
}

// Without processes at the root a box may be of several, and has no one colour of a process.
export function shownColour({ colour, top }: State): Colour {
  return colour.value === "process" && (top.value === "none" || top.value === "interpreter") ? "kind" : colour.value;
}

// The colour of every box of a tree, by label where that decides it.
export function colouring(model: Model, tree: Tree): (node: number) => string {
  const sides = model.sides.value;
  if (sides && model.state.colour.value === "change") {
    return byChange(model, sides, tree);
  }
  const { report, stacks } = model;
  const palette = model.palette.value;
  const dark = isDark(model.state, model.systemDark);
  const { threadsAt, functionsAt, framesAt } = labelsOf(report);
  const by = shownColour(model.state);
  const known = new Map<number, string>();
  const ofFunction = (func: number): string => {
    const { kind, module, modules } = report.functions;
    const name = modules[module[func]];
    const shades = [palette.python, palette.native, palette.kernel][kind[func]];
    if (!shades) {
      return palette.mark;
    }
    return by === "module" ? moduleColour(name, dark) : shades[hashOf(name) % shades.length];
  };
  return (node) => {
    const label = tree.label[node];
    const example = tree.example[node];
    if (label === ROOT) {
      return palette.owner;
    }
    if (by === "process" && example >= 0) {
      return processColour(model, stacks.process[example]);
    }
    let colour = known.get(label);
    if (colour === undefined) {
      if (label < functionsAt) {
        colour = label < threadsAt ? palette.owner : palette.thread;
      } else {
        colour = ofFunction(label < framesAt ? label - functionsAt : report.frameFunction[label - framesAt]);
      }
      known.set(label, colour);
    }
    return colour;
  };
}

function byChange(model: Model, sides: Sides, tree: Tree): (node: number) => string {
  const palette = model.palette.value;
  return (node) => {
    const shade = shadeOf(boxChange(model, sides, tree, node));
    return shade > 0 ? palette.more[shade - 1] : shade < 0 ? palette.less[-shade - 1] : palette.same;
  };
}
