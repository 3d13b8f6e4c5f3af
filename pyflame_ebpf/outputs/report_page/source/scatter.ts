// By how much the counts of a recording's parts scatter, of all nodes of a tree or rows of a table: every sample is listed
// at its node with its part, and one pass from the last node to the first adds up all parts at once.

import type { Groups, Stacks } from "./stacks";
import type { Tree } from "./tree";

export interface Parts {
  count: number;
  inAll: number; // how many the whole is long, a broken one included
  expected: Float64Array; // of one sample in all, how much each would have were they spread evenly
  samples: number; // at the most
  eachSample: (take: (part: number, node: number, count: number) => void) => void; // part after part
}

// The nodes of a tree, each before its callees and these before any other: what is deeper belongs to the last one above.
interface Outline {
  order: Int32Array | null; // null where they are numbered so
  depth: Uint16Array; // of each node, from 1 on
  deepest: number;
}

// How many samples each node has itself in which parts: a chain of entries for each.
class Own {
  readonly first: Int32Array; // by node, 0 for none
  readonly next: Int32Array;
  readonly part: Uint8Array;
  readonly count: Int32Array;
  private used = 0;

  constructor(nodes: number, samples: number) {
    this.first = new Int32Array(nodes);
    this.next = new Int32Array(samples + 1);
    this.part = new Uint8Array(samples + 1);
    this.count = new Int32Array(samples + 1);
  }

  add(node: number, part: number, count: number): void {
    const first = this.first[node];
    if (first > 0 && this.part[first] === part) {
      this.count[first] += count;
      return;
    }
    this.used += 1;
    this.next[this.used] = first;
    this.part[this.used] = part;
    this.count[this.used] = count;
    this.first[node] = this.used;
  }
}

// Called with a node and where in `sums` its parts are: of part p at base + p, 0 where p is not in from..to.
type Take = (node: number, sums: Int32Array, base: number, from: number, to: number) => void;

// Calls back for every node with samples, the last first, with its samples and those of all that it calls.
function eachSummed(outline: Outline, own: Own, parts: number, take: Take): void {
  const { order, depth, deepest } = outline;
  const sums = new Int32Array((deepest + 1) * parts); // of the last node seen at each depth
  const low = new Uint8Array(deepest + 1).fill(parts);
  const high = new Uint8Array(deepest + 1);
  for (let at = depth.length - 1; at >= 0; at -= 1) {
    const node = order ? order[at] : at;
    const level = depth[node];
    const base = level * parts;
    let [from, to] = [low[level], high[level]];
    for (let entry = own.first[node]; entry > 0; entry = own.next[entry]) {
      const part = own.part[entry];
      sums[base + part] += own.count[entry];
      from = part < from ? part : from;
      to = part >= to ? part + 1 : to;
    }
    if (from >= to) {
      continue;
    }
    take(node, sums, base, from, to);
    const above = base - parts;
    for (let part = from; part < to; part += 1) {
      sums[above + part] += sums[base + part];
      sums[base + part] = 0;
    }
    low[level] = parts;
    high[level] = 0;
    low[level - 1] = Math.min(low[level - 1], from);
    high[level - 1] = Math.max(high[level - 1], to);
  }
}

// The variance of a count by the scatter of its parts.
function factorOf({ inAll, count }: Parts): number {
  return inAll / (count - 1);
}

// Of each node of a tree, of which `total` were counted.
export function scatterInTree(parts: Parts, tree: Tree, total: Int32Array): (node: number) => number {
  const own = new Own(tree.count, parts.samples);
  parts.eachSample((part, node, count) => {
    if (tree.ends[node] >= 0) {
      own.add(tree.ends[node], part, count);
    }
  });
  const { expected } = parts;
  // The sum of (n - all * expected) ** 2, but for all ** 2 * expected ** 2, which parts without samples have, too.
  const beyond = new Float64Array(tree.count);
  eachSummed(outlineOf(tree), own, parts.count, (node, sums, base, from, to) => {
    let [squares, products] = [0, 0];
    for (let part = from; part < to; part += 1) {
      const samples = sums[base + part];
      squares += samples * samples;
      products += samples * expected[part];
    }
    beyond[node] = squares - 2 * total[node] * products;
  });
  const even = expected.reduce((sum, share) => sum + share * share, 0);
  const factor = factorOf(parts);
  return (node) => (beyond[node] + total[node] * total[node] * even) * factor;
}

// The samples of each row of a table by part.
export class Sums {
  private readonly samples: Int32Array;

  constructor(
    private readonly parts: Parts,
    rows: number,
  ) {
    this.samples = new Int32Array(rows * parts.count);
  }

  add(row: number, part: number, count: number): void {
    this.samples[row * this.parts.count + part] += count;
  }

  // Of a row of which so many were counted in all.
  scatterOf(row: number, all: number): number {
    const { count, expected } = this.parts;
    let squares = 0;
    for (let part = 0; part < count; part += 1) {
      squares += (this.samples[row * count + part] - all * expected[part]) ** 2;
    }
    return squares * factorOf(this.parts);
  }
}

// What is hidden counts as its nearest shown caller's own time.
export function sumsOfOwn(parts: Parts, stacks: Stacks, { count: rows, key }: Groups): Sums {
  const sums = new Sums(parts, rows);
  parts.eachSample((part, node, count) => {
    let shown = node;
    while (shown >= 0 && key[shown] < 0) {
      shown = stacks.parent[shown];
    }
    if (shown >= 0) {
      sums.add(key[shown], part, count);
    }
  });
  return sums;
}

export function sumsThrough(parts: Parts, stacks: Stacks, { count: rows, key, outermost }: Groups): Sums {
  const own = new Own(stacks.count, parts.samples);
  parts.eachSample((part, node, count) => own.add(node, part, count));
  const made = new Sums(parts, rows);
  let last = outermost.length - 1;
  eachSummed(outlineOfStacks(stacks), own, parts.count, (node, sums, base, from, to) => {
    while (last >= 0 && outermost[last] > node) {
      last -= 1;
    }
    for (let part = from; outermost[last] === node && part < to; part += 1) {
      made.add(key[node], part, sums[base + part]);
    }
  });
  return made;
}

function outlineOfStacks({ depth }: Stacks): Outline {
  return { order: null, depth, deepest: deepestOf(depth) };
}

const outlines = new WeakMap<Tree, Outline>();

function outlineOf(tree: Tree): Outline {
  let outline = outlines.get(tree);
  if (!outline) {
    outlines.set(tree, (outline = outlined(tree)));
  }
  return outline;
}

function outlined({ count, parent }: Tree): Outline {
  const size = new Int32Array(count).fill(1); // with its callees
  for (let node = count - 1; node > 0; node -= 1) {
    size[parent[node]] += size[node];
  }
  const depth = new Uint16Array(count).fill(1);
  const order = new Int32Array(count);
  const next = new Int32Array(count).fill(1); // the place of the next callee
  for (let node = 1; node < count; node += 1) {
    const caller = parent[node];
    const place = next[caller];
    depth[node] = depth[caller] + 1;
    order[place] = node;
    next[caller] += size[node];
    next[node] = place + 1;
  }
  return { order, depth, deepest: deepestOf(depth) };
}

function deepestOf(depth: Uint16Array): number {
  return depth.reduce((deepest, each) => Math.max(deepest, each), 0);
}
