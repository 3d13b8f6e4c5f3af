// How many samples each node has in the chosen part of the recording.

import type { Recording } from "./data";
import { remembered, type Remembered } from "./remembered";
import type { Groups, Stacks } from "./stacks";

export interface Part {
  from: number; // seconds from the start of the recording
  to: number; // the second after the last
  processes: ReadonlySet<number>; // these, and
  threads: ReadonlySet<number>; // these; both empty for all
}

export interface Weights {
  self: Int32Array; // samples whose stack ends at the node
  total: Int32Array; // and those of all that it calls
  ends: Int32Array; // the nodes at which sampled stacks end
  all: number;
}

// How long the part is; the last second may be cut short.
export function lengthOf({ seconds, duration }: Recording, { from, to }: Pick<Part, "from" | "to">): number {
  return Math.max((to >= seconds ? duration : Math.min(to, duration)) - from, 0);
}

// Calls back for each entry of the samples in the part: its index, its node, its count.
export function eachSample(
  recording: Recording,
  stacks: Stacks,
  part: Part,
  take: (index: number, node: number, count: number) => void,
): void {
  const { node, count, firstOf } = recording.samples;
  const isFiltered = part.processes.size > 0 || part.threads.size > 0;
  const end = firstOf[Math.min(part.to, recording.seconds)];
  for (let index = firstOf[Math.min(part.from, recording.seconds)]; index < end; index += 1) {
    const at = node[index];
    if (isFiltered && !part.processes.has(stacks.process[at]) && !part.threads.has(stacks.thread[at])) {
      continue;
    }
    take(index, at, count[index]);
  }
}

export function weigh(recording: Recording, stacks: Stacks, part: Part): Weights {
  const self = new Int32Array(stacks.count);
  const ends = new Int32Array(recording.samples.node.length);
  let [all, ended] = [0, 0];
  eachSample(recording, stacks, part, (_index, node, count) => {
    if (self[node] === 0) {
      ends[ended] = node;
      ended += 1;
    }
    self[node] += count;
    all += count;
  });
  const total = self.slice();
  addToCallers(total, stacks.parent);
  return { self, total, ends: ends.subarray(0, ended), all };
}

// Every callee comes after its caller, so one pass from the end is enough.
export function addToCallers(total: Int32Array, parent: Int32Array): void {
  for (let node = total.length - 1; node >= 0; node -= 1) {
    const samples = total[node];
    if (samples > 0 && parent[node] >= 0) {
      total[parent[node]] += samples;
    }
  }
}

export interface GroupWeights {
  self: Int32Array;
  total: Int32Array;
}

const weighed: Remembered<Weights, Groups, GroupWeights> = new WeakMap();

export function groupWeights(stacks: Stacks, groups: Groups, weights: Weights): GroupWeights {
  return remembered(weighed, weights, groups, () => weighedGroups(stacks, groups, weights));
}

// What is hidden counts as its nearest shown caller's own time.
function weighedGroups(stacks: Stacks, groups: Groups, weights: Weights): GroupWeights {
  const self = new Int32Array(groups.count);
  const total = new Int32Array(groups.count);
  const { key, outermost } = groups;
  // Counted loops: this is most of the time between a drag and what it shows.
  for (let index = 0; index < outermost.length; index += 1) {
    const samples = weights.total[outermost[index]];
    if (samples > 0) {
      total[key[outermost[index]]] += samples;
    }
  }
  for (let index = 0; index < weights.ends.length; index += 1) {
    const end = weights.ends[index];
    let shown = end;
    while (shown >= 0 && key[shown] < 0) {
      shown = stacks.parent[shown];
    }
    if (shown >= 0) {
      self[key[shown]] += weights.self[end];
    }
  }
  return { self, total };
}
