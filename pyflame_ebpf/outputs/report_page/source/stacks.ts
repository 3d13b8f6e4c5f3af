// The tree of all stacks, and what is derived from it once.

import { Kind, NATIVE_GAP, OF_LIBRARY, PLUMBING, type Report } from "./data";

export type Grouping = "function" | "line" | "module" | "process" | "thread";
export const GROUPINGS: Grouping[] = ["function", "line", "module", "process", "thread"];

export interface Stacks {
  count: number;
  entry: Uint32Array;
  parent: Int32Array; // -1 above the processes
  depth: Uint16Array; // 1 for processes
  process: Int32Array;
  thread: Int32Array; // -1 of the processes' own nodes
  func: Int32Array; // -1 of processes and threads
  frame: Int32Array; // the same
}

// Which row of a table each node counts for.
export interface Groups {
  count: number;
  key: Int32Array; // -1 for none
  outermost: Int32Array; // the nodes without a caller of the same key: recursion counts once
}

export function stacksOf(report: Report): Stacks {
  const { rise, entry } = report;
  const count = entry.length;
  const processes = report.processes.pid.length;
  const framesAt = processes + report.threads.tid.length;
  const stacks: Stacks = {
    count,
    entry,
    parent: new Int32Array(count),
    depth: new Uint16Array(count),
    process: new Int32Array(count),
    thread: new Int32Array(count),
    func: new Int32Array(count),
    frame: new Int32Array(count),
  };
  const path: number[] = [-1];
  for (let node = 0, depth = 0; node < count; node += 1) {
    depth = depth + 1 - rise[node];
    const parent = path[depth - 1];
    path[depth] = node;
    stacks.parent[node] = parent;
    stacks.depth[node] = depth;
    stacks.process[node] = depth === 1 ? entry[node] : stacks.process[parent];
    stacks.thread[node] = depth === 1 ? -1 : depth === 2 ? entry[node] - processes : stacks.thread[parent];
    stacks.frame[node] = depth > 2 ? entry[node] - framesAt : -1;
    stacks.func[node] = depth > 2 ? report.frameFunction[stacks.frame[node]] : -1;
  }
  return stacks;
}

// ``hidden`` is 1 for functions that count for no row.
export function groupsOf(report: Report, stacks: Stacks, grouping: Grouping, hidden: Uint8Array): Groups {
  const shown = (of: (func: number, node: number) => number) =>
    stacks.func.map((func, node) => (func < 0 || hidden[func] === 1 ? -1 : of(func, node)));
  const { module, modules, kind } = report.functions;
  switch (grouping) {
    case "function":
      return nested(stacks, shown((func) => func), kind.length);
    case "line":
      return nested(stacks, shown((_, node) => stacks.frame[node]), report.frameFunction.length);
    case "module":
      return nested(stacks, shown((func) => module[func]), modules.length);
    case "process":
      return { count: report.processes.pid.length, key: stacks.process, outermost: atDepth(stacks, 1) };
    case "thread":
      return { count: report.threads.tid.length, key: stacks.thread, outermost: atDepth(stacks, 2) };
  }
}

function atDepth(stacks: Stacks, depth: number): Int32Array {
  const found: number[] = [];
  stacks.depth.forEach((each, node) => {
    if (each === depth) {
      found.push(node);
    }
  });
  return Int32Array.from(found);
}

function nested(stacks: Stacks, key: Int32Array, count: number): Groups {
  const outermost = new Int32Array(stacks.count);
  let found = 0;
  const open = new Uint16Array(count); // how many callers of this node have the key
  const path: number[] = [];
  for (let node = 0; node < stacks.count; node += 1) {
    for (let depth = path.length; depth >= stacks.depth[node]; depth -= 1) {
      const left = path.pop()!;
      if (left >= 0) {
        open[left] -= 1;
      }
    }
    const own = key[node];
    path.push(own);
    if (own >= 0) {
      if (open[own] === 0) {
        outermost[found] = node;
        found += 1;
      }
      open[own] += 1;
    }
  }
  return { count, key, outermost: outermost.slice(0, found) };
}

export interface Hidden {
  native: boolean;
  kernel: boolean;
  library: boolean;
  plumbing: boolean;
}

// 1 for each function that is not shown.
export function hiddenFunctions(report: Report, hidden: Hidden): Uint8Array {
  const { kind, flags } = report.functions;
  return Uint8Array.from(kind, (each, index) => {
    const flag = flags[index];
    const isHidden =
      (hidden.plumbing && (flag & PLUMBING) !== 0) ||
      (hidden.library && (flag & OF_LIBRARY) !== 0) ||
      (hidden.native && (each === Kind.Native || (flag & NATIVE_GAP) !== 0)) ||
      (hidden.kernel && each === Kind.Kernel);
    return isHidden ? 1 : 0;
  });
}
