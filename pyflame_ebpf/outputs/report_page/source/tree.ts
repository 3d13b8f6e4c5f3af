// Trees to draw: the stacks with some frames left out and others merged, or the callers or callees of one function.

import type { Report } from "./data";
import type { Stacks } from "./stacks";
import { remembered, type Remembered } from "./remembered";
import { addToCallers, type Weights } from "./weights";

export const ROOT = -2; // the label of "all"
const NONE = -1;

export interface Tree {
  count: number;
  label: Int32Array; // a process, a thread, a function or a frame, numbered in this order
  parent: Int32Array; // always smaller than the node itself; -1 of the root
  firstChild: Int32Array; // index into children; one more at the end
  children: Int32Array;
  example: Int32Array; // one node of the stacks that is shown here
  nodeOf: Int32Array; // node of the stacks → node here, -1 for none
  ends: Int32Array; // node of the stacks → node here that its own samples belong to, -1 for none
}

export interface TreeWeights {
  readonly self: Int32Array;
  total: Int32Array;
}

export type TopLevel = "process" | "command" | "interpreter" | "none";

export interface Shape {
  hidden: Uint8Array; // by function
  top: TopLevel;
  threads: boolean;
  lines: boolean;
  fold: boolean;
}

export interface Labels {
  threadsAt: number;
  functionsAt: number;
  framesAt: number;
}

export function labelsOf(report: Report): Labels {
  const threadsAt = report.processes.pid.length;
  const functionsAt = threadsAt + report.threads.tid.length;
  return { threadsAt, functionsAt, framesAt: functionsAt + report.functions.kind.length };
}

// The label of each node of the stacks, -1 where it is not shown.
export function nodeLabels(report: Report, stacks: Stacks, shape: Shape): Int32Array {
  const { threadsAt, functionsAt, framesAt } = labelsOf(report);
  const top = topLabels(report, shape.top);
  return stacks.func.map((func, node) => {
    if (func >= 0) {
      return shape.hidden[func] === 1 ? NONE : shape.lines ? framesAt + stacks.frame[node] : functionsAt + func;
    }
    if (stacks.thread[node] >= 0) {
      return shape.threads ? threadsAt + stacks.thread[node] : NONE;
    }
    return top[stacks.process[node]];
  });
}

function topLabels(report: Report, top: TopLevel): number[] {
  const { command, interpreter } = report.processes;
  if (top === "none") {
    return command.map(() => NONE);
  }
  if (top === "process") {
    return command.map((_, process) => process);
  }
  const first = new Map<string, number>();
  return command.map((text, process) => {
    const key = top === "interpreter" ? interpreter[process] : text;
    if (!first.has(key)) {
      first.set(key, process);
    }
    return first.get(key)!;
  });
}

// Collects nodes, each distinct (parent, label) once.
class Growing {
  count = 0;
  label: Int32Array;
  parent: Int32Array;
  example: Int32Array;
  private slots: Int32Array;

  constructor(capacity: number, rootLabel: number) {
    this.label = new Int32Array(capacity);
    this.parent = new Int32Array(capacity);
    this.example = new Int32Array(capacity);
    this.slots = emptySlots(capacity);
    this.push(NONE, rootLabel, NONE);
  }

  child(parent: number, label: number, example: number): number {
    if (this.count === this.label.length) {
      this.grow();
    }
    const mask = this.slots.length - 1;
    let slot = hashed(parent, label) & mask;
    for (let node = this.slots[slot]; node >= 0; node = this.slots[slot]) {
      if (this.parent[node] === parent && this.label[node] === label) {
        return node;
      }
      slot = (slot + 1) & mask;
    }
    this.slots[slot] = this.count;
    return this.push(parent, label, example);
  }

  private push(parent: number, label: number, example: number): number {
    this.parent[this.count] = parent;
    this.label[this.count] = label;
    this.example[this.count] = example;
    this.count += 1;
    return this.count - 1;
  }

  private grow(): void {
    const larger = (from: Int32Array) => {
      const made = new Int32Array(from.length * 2);
      made.set(from);
      return made;
    };
    this.label = larger(this.label);
    this.parent = larger(this.parent);
    this.example = larger(this.example);
    this.slots = emptySlots(this.label.length);
    const mask = this.slots.length - 1;
    for (let node = 1; node < this.count; node += 1) {
      let slot = hashed(this.parent[node], this.label[node]) & mask;
      while (this.slots[slot] >= 0) {
        slot = (slot + 1) & mask;
      }
      this.slots[slot] = node;
    }
  }

  tree(nodeOf: Int32Array, ends: Int32Array): Tree {
    const parent = this.parent.subarray(0, this.count);
    const firstChild = new Int32Array(this.count + 1);
    for (let node = 1; node < this.count; node += 1) {
      firstChild[parent[node] + 1] += 1;
    }
    for (let node = 0; node < this.count; node += 1) {
      firstChild[node + 1] += firstChild[node];
    }
    const next = firstChild.slice();
    const children = new Int32Array(Math.max(this.count - 1, 0));
    for (let node = 1; node < this.count; node += 1) {
      children[next[parent[node]]++] = node;
    }
    return {
      count: this.count,
      label: this.label.subarray(0, this.count),
      parent,
      firstChild,
      children,
      example: this.example.subarray(0, this.count),
      nodeOf,
      ends,
    };
  }
}

function emptySlots(capacity: number): Int32Array {
  return new Int32Array(2 ** Math.ceil(Math.log2(capacity * 2 + 2))).fill(-1);
}

function hashed(parent: number, label: number): number {
  const mixed = Math.imul(parent, 0x9e3779b1) ^ Math.imul(label + 0x7f4a7c15, 0x85ebca6b);
  return mixed ^ (mixed >>> 15);
}

export function wholeTree(report: Report, stacks: Stacks, shape: Shape): Tree {
  const labels = nodeLabels(report, stacks, shape);
  const made = new Growing(stacks.count + 1, ROOT);
  const nodeOf = new Int32Array(stacks.count);
  for (let node = 0; node < stacks.count; node += 1) {
    const caller = stacks.parent[node];
    nodeOf[node] = placed(made, caller < 0 ? 0 : nodeOf[caller], labels[node], node, shape.fold);
  }
  return made.tree(nodeOf, nodeOf);
}

function placed(made: Growing, parent: number, label: number, node: number, fold: boolean): number {
  if (label === NONE || (fold && made.label[parent] === label)) {
    return parent;
  }
  return made.child(parent, label, node);
}

export function calleesTree(report: Report, stacks: Stacks, shape: Shape, func: number): Tree {
  const labels = nodeLabels(report, stacks, shape);
  const made = new Growing(1024, labelsOf(report).functionsAt + func);
  const nodeOf = new Int32Array(stacks.count).fill(NONE);
  for (let node = 0; node < stacks.count; node += 1) {
    const caller = stacks.parent[node];
    const parent = caller < 0 ? NONE : nodeOf[caller];
    if (parent >= 0) {
      nodeOf[node] = placed(made, parent, labels[node], node, shape.fold);
    } else if (stacks.func[node] === func) {
      nodeOf[node] = 0;
      made.example[0] = node;
    }
  }
  return made.tree(nodeOf, nodeOf);
}

export function callersTree(report: Report, stacks: Stacks, shape: Shape, func: number): Tree {
  const labels = nodeLabels(report, stacks, shape);
  const made = new Growing(1024, labelsOf(report).functionsAt + func);
  const nodeOf = new Int32Array(stacks.count).fill(NONE);
  const ends = new Int32Array(stacks.count).fill(NONE);
  for (let node = 0; node < stacks.count; node += 1) {
    const caller = stacks.parent[node];
    if (caller >= 0 && ends[caller] >= 0) {
      ends[node] = ends[caller]; // below a node of the function
      continue;
    }
    if (stacks.func[node] !== func) {
      continue;
    }
    let at = 0;
    made.example[0] = node;
    for (let outer = caller; outer >= 0; outer = stacks.parent[outer]) {
      at = placed(made, at, labels[outer], outer, shape.fold);
      nodeOf[outer] = at;
    }
    nodeOf[node] = 0;
    ends[node] = at;
  }
  return made.tree(nodeOf, ends);
}

const weighed: Remembered<Weights, Tree, TreeWeights> = new WeakMap();

export function treeWeights(tree: Tree, weights: Weights): TreeWeights {
  return remembered(weighed, weights, tree, () => weighedTree(tree, weights));
}

function weighedTree(tree: Tree, weights: Weights): TreeWeights {
  const total = ownOf(tree, weights);
  addToCallers(total, tree.parent);
  let self: Int32Array | null = null; // as large as the tree, and looked at only where the mouse is
  return {
    total,
    get self() {
      return (self ??= ownOf(tree, weights));
    },
  };
}

function ownOf({ count, ends }: Tree, weights: Weights): Int32Array {
  const own = new Int32Array(count);
  for (let index = 0; index < weights.ends.length; index += 1) {
    const node = weights.ends[index];
    if (ends[node] >= 0) {
      own[ends[node]] += weights.self[node];
    }
  }
  return own;
}
