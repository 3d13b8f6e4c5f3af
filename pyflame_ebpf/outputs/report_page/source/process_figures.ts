// What each process and thread used the CPU for in the chosen range: the columns of processes.csv.

import { Kind } from "./data";
import type { Model } from "./model";
import { eachSample } from "./weights";

export interface ProcessFigures {
  process: number;
  samples: number;
  missing: number; // samples that miss Python frames
  kernel: number;
  gilKnown: number;
  gilHeld: number;
  hottest: number; // the frame that was most often the innermost Python frame, -1 for none
  threads: ThreadFigures[];
}

export interface ThreadFigures {
  thread: number;
  samples: number;
  kernel: number;
  gilKnown: number;
  gilHeld: number;
}

// Of all processes, whatever is filtered: the table is where the filter is chosen. Busiest first.
export function processFigures(model: Model): ProcessFigures[] {
  const { report, stacks } = model;
  const recording = model.recording.value;
  const innermost = innermostPython(model);
  const [held, unknown] = [report.gils.indexOf("held"), report.gils.indexOf("unknown")];
  const processes = new Map<number, ProcessFigures>();
  const threads = new Map<string, ThreadFigures>();
  const places = new Map<number, Map<number, number>>();
  const everyone = { ...model.part.value, processes: new Set<number>(), threads: new Set<number>() };
  eachSample(recording, stacks, everyone, (index, node, count) => {
    const how = recording.samples.hows[recording.samples.how[index]];
    const figures = entry(processes, stacks.process[node], (process) => ({
      ...{ process, samples: 0, missing: 0, kernel: 0, gilKnown: 0, gilHeld: 0, hottest: -1, threads: [] },
    }));
    const thread = stacks.thread[node];
    const ofThread = entry(threads, `${stacks.process[node]} ${thread}`, () => {
      const made = { thread, samples: 0, kernel: 0, gilKnown: 0, gilHeld: 0 };
      figures.threads.push(made);
      return made;
    });
    for (const each of [figures, ofThread]) {
      each.samples += count;
      each.kernel += how.kernelMode ? count : 0;
      each.gilKnown += how.gil === unknown ? 0 : count;
      each.gilHeld += how.gil === held ? count : 0;
    }
    figures.missing += report.outcomes[how.outcome].missing ? count : 0;
    if (innermost[node] >= 0) {
      const counts = entry(places, stacks.process[node], () => new Map<number, number>());
      counts.set(innermost[node], (counts.get(innermost[node]) ?? 0) + count);
    }
  });
  for (const figures of processes.values()) {
    figures.hottest = mostFrequent(places.get(figures.process));
    figures.threads.sort((one, other) => other.samples - one.samples || one.thread - other.thread);
  }
  const { pid } = report.processes;
  return [...processes.values()].sort(
    (one, other) => other.samples - one.samples || pid[one.process] - pid[other.process],
  );
}

function entry<K, V>(map: Map<K, V>, key: K, make: (key: K) => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make(key);
    map.set(key, value);
  }
  return value;
}

function mostFrequent(counts: Map<number, number> | undefined): number {
  let [best, most] = [-1, 0];
  for (const [frame, count] of counts ?? []) {
    if (count > most || (count === most && frame < best)) {
      [best, most] = [frame, count];
    }
  }
  return best;
}

const known = new WeakMap<object, Int32Array>();

// The frame of each node's innermost Python function, itself included; -1 for none.
function innermostPython({ report, stacks }: Model): Int32Array {
  let made = known.get(stacks);
  if (!made) {
    made = new Int32Array(stacks.count);
    for (let node = 0; node < stacks.count; node += 1) {
      const func = stacks.func[node];
      if (func >= 0 && report.functions.kind[func] === Kind.Python) {
        made[node] = stacks.frame[node];
      } else {
        made[node] = stacks.parent[node] < 0 ? -1 : made[stacks.parent[node]];
      }
    }
    known.set(stacks, made);
  }
  return made;
}
