// The two recordings of a comparison, counted: in all, and by how much the parts of their time scatter, as tallies.py and
// comparison.py have it. A chosen range of time is cut into parts of its own, like a recording of that length.

import { scaleOf, type Counted, type Scale } from "./comparison";
import type { Recording } from "./data";
import type { Groups, Stacks } from "./stacks";
import { treeWeights, type Tree } from "./tree";
import { eachSample, groupWeights, lengthOf, weigh, type Part, type Weights } from "./weights";

const PARTS = 20; // of whole seconds
const PARTS_MIN = 8; // fewer say too little of how much they scatter
const SHORTEST = 0.001; // seconds of which shares of cores are told

export interface Side {
  weights: Weights;
  scale: Scale;
  parts: Parts | null; // null where there are too few, or no times of samples
  weightsIn: (part: Part) => Weights;
}

interface Parts {
  each: Part[];
  inAll: number; // how many the whole is long, a broken one included
  expected: number[]; // of one sample in all, how much each would have were they spread evenly
}

export function sideOf(recording: Recording, stacks: Stacks, part: Part, weights: Weights, shares: boolean): Side {
  const weightsIn = (smaller: Part) => weigh(recording, stacks, smaller);
  const scale = scaleOf(recording, Math.max(lengthOf(recording, part), SHORTEST), weights.all, shares);
  return { weights, scale, weightsIn, parts: partsOf(recording, stacks, part, weights, shares) };
}

function partsOf(recording: Recording, stacks: Stacks, part: Part, weights: Weights, shares: boolean): Parts | null {
  const length = lengthOf(recording, part);
  const width = Math.max(1, Math.floor(length / PARTS));
  const whole = Math.floor(length / width);
  if (!(recording.started > 0) || whole < PARTS_MIN) {
    return null;
  }
  const each = Array.from({ length: whole }, (_, at) => ({ ...part, from: part.from + at * width, to: part.from + (at + 1) * width }));
  const inAll = length / width;
  const samplesIn = (one: Part) => countIn(recording, stacks, one);
  return { each, inAll, expected: each.map((one) => (shares ? samplesIn(one) / Math.max(1, weights.all) : 1 / inAll)) };
}

function countIn(recording: Recording, stacks: Stacks, part: Part): number {
  let all = 0;
  eachSample(recording, stacks, part, (_index, _node, count) => {
    all += count;
  });
  return all;
}

// One column of counts, or several of the same parts: their variances by the scatter.
function scatterOf({ parts, weightsIn }: Side, columns: Int32Array[], columnsIn: (weights: Weights) => Int32Array[]): Float64Array[] {
  const found = columns.map((column) => new Float64Array(column.length));
  if (!parts) {
    return found;
  }
  parts.each.forEach((part, at) => {
    const share = parts.expected[at];
    const some = columnsIn(weightsIn(part));
    columns.forEach((counts, column) => addSquares(found[column], some[column], counts, share));
  });
  const factor = parts.inAll / (parts.each.length - 1);
  return found.map((squares) => squares.map((sum) => sum * factor));
}

function addSquares(squares: Float64Array, some: Int32Array, counts: Int32Array, share: number): void {
  for (let index = 0; index < counts.length; index += 1) {
    const beyond = some[index] - counts[index] * share;
    squares[index] += beyond * beyond;
  }
}

type Count = (index: number) => Counted;

const countsOfTrees = new WeakMap<Side, WeakMap<Tree, Count>>();

// What passes through each node of a tree.
export function treeCounts(side: Side, tree: Tree): Count {
  return remembered(countsOfTrees, side, tree, () => {
    const { total } = treeWeights(tree, side.weights);
    const [scatter] = scatterOf(side, [total], (weights) => [treeWeights(tree, weights).total]);
    return (node) => ({ samples: total[node], scatter: scatter[node] });
  });
}

const countsOfGroups = new WeakMap<Side, WeakMap<Groups, { self: Count; total: Count }>>();

// What each row of a table has itself, and with what it calls.
export function groupCounts(side: Side, stacks: Stacks, groups: Groups): { self: Count; total: Count } {
  return remembered(countsOfGroups, side, groups, () => {
    const counts = groupWeights(stacks, groups, side.weights);
    const [self, total] = scatterOf(side, [counts.self, counts.total], (weights) => {
      const some = groupWeights(stacks, groups, weights);
      return [some.self, some.total];
    });
    return {
      self: (key) => ({ samples: counts.self[key], scatter: self[key] }),
      total: (key) => ({ samples: counts.total[key], scatter: total[key] }),
    };
  });
}

function remembered<Key extends object, Value>(known: WeakMap<Side, WeakMap<Key, Value>>, side: Side, key: Key, make: () => Value): Value {
  let ofSide = known.get(side);
  if (!ofSide) {
    known.set(side, (ofSide = new WeakMap()));
  }
  let made = ofSide.get(key);
  if (!made) {
    ofSide.set(key, (made = make()));
  }
  return made;
}
