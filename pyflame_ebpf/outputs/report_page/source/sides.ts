// The two recordings of a comparison, counted: in all, and by how much the parts of their time scatter, as tallies.py and
// comparison.py have it. A chosen range of time is cut into parts of its own, like a recording of that length.

import { scaleOf, type Counted, type Scale } from "./comparison";
import type { Recording } from "./data";
import { remembered } from "./remembered";
import { scatterInTree, sumsOfOwn, sumsThrough, type Parts, type Sums } from "./scatter";
import type { Groups, Stacks } from "./stacks";
import { treeWeights, type Tree } from "./tree";
import { eachSample, groupWeights, lengthOf, type Part, type Weights } from "./weights";

const PARTS = 20; // of whole seconds
const PARTS_MIN = 8; // fewer say too little of how much they scatter
const SHORTEST = 0.001; // seconds of which shares of cores are told

export interface Side {
  weights: Weights;
  scale: Scale;
  parts: Parts | null; // null where there are too few, or no times of samples
}

export function sideOf(recording: Recording, stacks: Stacks, part: Part, weights: Weights, shares: boolean): Side {
  const scale = scaleOf(recording, Math.max(lengthOf(recording, part), SHORTEST), weights.all, shares);
  return { weights, scale, parts: partsOf(recording, stacks, part, weights, shares) };
}

function partsOf(recording: Recording, stacks: Stacks, part: Part, weights: Weights, shares: boolean): Parts | null {
  const length = lengthOf(recording, part);
  const width = Math.max(1, Math.floor(length / PARTS));
  const count = Math.floor(length / width);
  if (!(recording.started > 0) || count < PARTS_MIN) {
    return null;
  }
  const eachOfPart: Parts["eachSample"] = (take) => {
    for (let at = 0; at < count; at += 1) {
      const one = { ...part, from: part.from + at * width, to: part.from + (at + 1) * width };
      eachSample(recording, stacks, one, (index, node, samples) => take(at, index, node, samples));
    }
  };
  const inAll = length / width;
  const expected = shares ? sharesOf(count, weights.all, eachOfPart) : new Float64Array(count).fill(1 / inAll);
  return { count, inAll, expected, samples: recording.samples, eachSample: eachOfPart };
}

function sharesOf(count: number, all: number, eachOfPart: Parts["eachSample"]): Float64Array {
  const samplesIn = new Float64Array(count);
  eachOfPart((part, _index, _node, samples) => {
    samplesIn[part] += samples;
  });
  return samplesIn.map((samples) => samples / Math.max(1, all));
}

type Count = (index: number) => Counted;

const countsOfTrees = new WeakMap<Side, WeakMap<Tree, Count>>();

// What passes through each node of a tree.
export function treeCounts(side: Side, tree: Tree): Count {
  return remembered(countsOfTrees, side, tree, () => {
    const { total } = treeWeights(tree, side.weights);
    const scatterOf = side.parts ? scatterInTree(side.parts, tree, total) : () => 0;
    return (node) => ({ samples: total[node], scatter: scatterOf(node) });
  });
}

const ownOfGroups = new WeakMap<Side, WeakMap<Groups, Count>>();
const countsOfGroups = new WeakMap<Side, WeakMap<Groups, Count>>();

// What each row of a table has itself.
export function ownCounts(side: Side, stacks: Stacks, groups: Groups): Count {
  return remembered(ownOfGroups, side, groups, () =>
    countOf(groupWeights(stacks, groups, side.weights).self, side.parts && sumsOfOwn(side.parts, stacks, groups)),
  );
}

// The same with what it calls.
export function groupCounts(side: Side, stacks: Stacks, groups: Groups): Count {
  return remembered(countsOfGroups, side, groups, () =>
    countOf(groupWeights(stacks, groups, side.weights).total, side.parts && sumsThrough(side.parts, stacks, groups)),
  );
}

function countOf(counts: Int32Array, sums: Sums | null): Count {
  return (key) => ({ samples: counts[key], scatter: sums ? sums.scatterOf(key, counts[key]) : 0 });
}
