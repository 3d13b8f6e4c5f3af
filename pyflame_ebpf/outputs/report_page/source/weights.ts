// How many samples each node has in the chosen part of the recording.

import type { Recording } from "./data";
import type { Groups, Stacks } from "./stacks";

export interface Part {
  from: number; // seconds from the recording's first one
  to: number; // the second after the last
  processes: ReadonlySet<number>; // empty for all
  threads: ReadonlySet<number>;
}

export interface Weights {
  self: Float64Array; // samples whose stack ends at the node
  total: Float64Array; // and those of all that it calls
  all: number;
}

// Calls back for each entry of the samples in the part: its index, its node, its count.
export function eachSample(
  recording: Recording,
  stacks: Stacks,
  part: Part,
  take: (index: number, node: number, count: number) => void,
): void {
  const { node, count, firstOf } = recording.samples;
  const end = firstOf[Math.min(part.to, recording.seconds)];
  for (let index = firstOf[Math.min(part.from, recording.seconds)]; index < end; index += 1) {
    const at = node[index];
    if (part.processes.size && !part.processes.has(stacks.process[at])) {
      continue;
    }
    if (part.threads.size && !part.threads.has(stacks.thread[at])) {
      continue;
    }
    take(index, at, count[index]);
  }
}

export function weigh(recording: Recording, stacks: Stacks, part: Part): Weights {
  const self = new Float64Array(stacks.count);
  let all = 0;
  eachSample(recording, stacks, part, (_index, node, count) => {
    self[node] += count;
    all += count;
  });
  const total = self.slice();
  addToCallers(total, stacks.parent);
  return { self, total, all };
}

// Every callee comes after its caller, so one pass from the end is enough.
export function addToCallers(total: Float64Array, parent: Int32Array): void {
  for (let node = total.length - 1; node >= 0; node -= 1) {
    const caller = parent[node];
    if (caller >= 0 && total[node] > 0) {
      total[caller] += total[node];
    }
  }
}

export interface GroupWeights {
  self: Float64Array;
  total: Float64Array;
}

// What is hidden counts as its nearest shown caller's own time.
export function groupWeights(stacks: Stacks, groups: Groups, weights: Weights): GroupWeights {
  const self = new Float64Array(groups.count);
  const total = new Float64Array(groups.count);
  const { key, outermost } = groups;
  const { parent } = stacks;
  for (let node = 0; node < stacks.count; node += 1) {
    if (weights.total[node] === 0) {
      continue;
    }
    if (outermost[node] === 1) {
      total[key[node]] += weights.total[node];
    }
    if (weights.self[node] > 0) {
      let shown = node;
      while (shown >= 0 && key[shown] < 0) {
        shown = parent[shown];
      }
      if (shown >= 0) {
        self[key[shown]] += weights.self[node];
      }
    }
  }
  return { self, total };
}
