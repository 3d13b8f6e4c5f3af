// By how much the counts of a recording's parts scatter. Of a tree's node that is counted when it is looked at, of the few
// that are drawn; of a table's rows all at once.

import { remembered, type Remembered } from "./remembered";
import type { Groups, Stacks } from "./stacks";
import type { Tree } from "./tree";

export interface Parts {
  count: number;
  inAll: number; // how many the whole is long, a broken one included
  expected: Float64Array; // of one sample in all, how much each would have were they spread evenly
  samples: Samples; // of the whole recording
  eachSample: (take: (part: number, index: number, node: number, count: number) => void) => void; // part after part
}

interface Samples {
  node: Uint32Array;
  count: Uint32Array;
}

// Of something of which `all` were counted, and so many in each part from `at` on: its variance by their scatter.
function varianceOf({ count, expected, inAll }: Parts, samples: Int32Array, at: number, all: number): number {
  let squares = 0;
  for (let part = 0; part < count; part += 1) {
    squares += (samples[at + part] - all * expected[part]) ** 2;
  }
  return (squares * inAll) / (count - 1);
}

// Of each node of a tree, of which `total` were counted.
export function scatterInTree(parts: Parts, tree: Tree, total: Int32Array): (node: number) => number {
  const { place, size } = outlineOf(tree);
  const { places, index } = ordered(parts.samples, tree);
  const partOf = partsOfSamples(parts);
  const { count } = parts.samples;
  const known = new Map<number, number>();
  const counted = (node: number) => {
    const samples = new Int32Array(parts.count + 1); // the last one: in no part
    const end = lowerBound(places, place[node] + size[node]);
    for (let at = lowerBound(places, place[node]); at < end; at += 1) {
      samples[partOf[index[at]]] += count[index[at]];
    }
    return varianceOf(parts, samples, 0, total[node]);
  };
  return (node) => {
    let scatter = known.get(node);
    if (scatter === undefined) {
      known.set(node, (scatter = counted(node)));
    }
    return scatter;
  };
}

const partsKnown = new WeakMap<Parts, Uint8Array>();

// By sample of the recording; of those in none the number of parts.
function partsOfSamples(parts: Parts): Uint8Array {
  let made = partsKnown.get(parts);
  if (!made) {
    const partOf = (made = new Uint8Array(parts.samples.node.length).fill(parts.count));
    parts.eachSample((part, index) => {
      partOf[index] = part;
    });
    partsKnown.set(parts, made);
  }
  return made;
}

// The samples of a recording by their places in a tree: those of a node and of all that it calls lie side by side.
interface Ordered {
  places: Int32Array;
  index: Int32Array;
}

const orders: Remembered<Samples, Tree, Ordered> = new WeakMap();

function ordered(samples: Samples, tree: Tree): Ordered {
  return remembered(orders, samples, tree, () => {
    const { place } = outlineOf(tree);
    const { node } = samples;
    const all = node.length;
    const keys = new Float64Array(all); // place and index in one number: those are sorted fastest
    node.forEach((each, index) => {
      const end = tree.ends[each];
      keys[index] = (end < 0 ? tree.count : place[end]) * all + index;
    });
    keys.sort();
    return { places: Int32Array.from(keys, (key) => Math.floor(key / all)), index: Int32Array.from(keys, (key) => key % all) };
  });
}

function lowerBound(sorted: Int32Array, wanted: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Every node's place before those of its callees, and these before any other; its size is how many they are, with itself.
interface Outline {
  place: Int32Array;
  size: Int32Array;
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
  const size = new Int32Array(count).fill(1);
  for (let node = count - 1; node > 0; node -= 1) {
    size[parent[node]] += size[node];
  }
  const place = new Int32Array(count);
  const next = new Int32Array(count).fill(1); // the place of the next callee
  for (let node = 1; node < count; node += 1) {
    place[node] = next[parent[node]];
    next[parent[node]] += size[node];
    next[node] = place[node] + 1;
  }
  return { place, size };
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
    return varianceOf(this.parts, this.samples, row * this.parts.count, all);
  }
}

// What is hidden counts as its nearest shown caller's own time.
export function sumsOfOwn(parts: Parts, stacks: Stacks, { count: rows, key }: Groups): Sums {
  const sums = new Sums(parts, rows);
  parts.eachSample((part, _index, node, count) => {
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
  const sums = new Sums(parts, rows);
  const isOutermost = new Uint8Array(stacks.count);
  for (let index = 0; index < outermost.length; index += 1) {
    isOutermost[outermost[index]] = 1;
  }
  parts.eachSample((part, _index, node, count) => {
    for (let at = node; at >= 0; at = stacks.parent[at]) {
      if (isOutermost[at] === 1) {
        sums.add(key[at], part, count);
      }
    }
  });
  return sums;
}
