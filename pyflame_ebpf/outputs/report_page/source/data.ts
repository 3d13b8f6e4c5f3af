// The recording as the page holds it. The layout of the packed data is described in report_data.py.

export const enum Kind {
  Python = 0,
  Native = 1,
  Kernel = 2,
  Mark = 3,
}

export const PLUMBING = 1;
export const OF_LIBRARY = 2;
export const NATIVE_GAP = 4;

export interface Named {
  name: string;
  missing: boolean; // whether frames are missing
}

export interface Processes {
  pid: number[];
  label: string[];
  name: string[];
  command: string[];
  interpreter: string[];
  scheduler: (number | null)[];
}

export interface Threads {
  tid: number[];
  label: string[];
  name: string[];
}

export interface Functions {
  kind: number[];
  label: string[];
  name: string[];
  file: string[];
  module: number[];
  line: number[];
  flags: number[];
  modules: string[];
}

export interface How {
  kernelMode: boolean;
  gil: number;
  outcome: number;
  native: number;
}

export interface Samples {
  node: Uint32Array;
  how: Uint32Array;
  count: Uint32Array;
  firstOf: Uint32Array; // of each second the first sample; one more at the end
  hows: How[];
}

export interface Recording {
  started: number;
  duration: number;
  frequency: number;
  cpus: number;
  host: string;
  kernel: string;
  arguments: string[];
  version: string;
  scheduler: number | null;
  lost: number;
  partOf: number; // samples of the recording that this is a part of, and that lost so many; 0 of a whole one
  counters: Record<string, number>;
  total: number;
  closing: string;
  outcomes: number[];
  nativeOutcomes: number[];
  seconds: number; // how many there are, 1 where samples have no times; the last one may be partial
  samples: Samples;
}

export interface FirstView {
  top: "process" | "command" | "interpreter" | "none";
  native: boolean;
  kernel: boolean;
  plumbing: boolean;
  lines: boolean;
  threads: boolean;
}

export interface Compared {
  words: string[]; // what changed
  thresholds: Record<string, number>; // standard errors from which on a change is one, by what the rows are
  first: { side: number; shares: boolean; callees: boolean }; // what is shown at first; side 0 is before
}

export interface Report {
  first: FirstView;
  gils: string[];
  outcomes: Named[];
  nativeOutcomes: Named[];
  processes: Processes;
  threads: Threads;
  functions: Functions;
  frameFunction: Uint32Array;
  frameLine: Uint32Array;
  rise: Uint32Array;
  entry: Uint32Array;
  recordings: Recording[]; // one, or the two of a comparison: before, after
  compared: Compared | null;
  sources: { ofFunction: Record<string, number>; texts: Record<string, string>[] };
}

interface Column {
  at: number;
  count: number;
}

const VERSION = 1;

export async function unpack(element: HTMLElement): Promise<Report> {
  const packed = bytesOf(element.textContent ?? "");
  element.textContent = ""; // its text is large, and not needed again
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const content = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = new DataView(content.buffer).getUint32(0, true);
  const document = JSON.parse(new TextDecoder().decode(content.subarray(4, 4 + size)));
  if (document.version !== VERSION) {
    throw new Error(`the data is of version ${document.version}, this page reads ${VERSION}`);
  }
  return reportFrom(document, content.subarray(4 + size));
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64.replace(/\s+/g, ""));
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) {
    bytes[at] = text.charCodeAt(at);
  }
  return bytes;
}

function numbers(content: Uint8Array, { at, count }: Column): Uint32Array {
  const made = new Uint32Array(count);
  for (let byte = 0; byte < 4; byte += 1) {
    const plane = content.subarray(at + byte * count, at + (byte + 1) * count);
    const shift = 8 * byte;
    for (let index = 0; index < count; index += 1) {
      made[index] |= plane[index] << shift;
    }
  }
  return made;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Json = any;

function reportFrom(document: Json, columns: Uint8Array): Report {
  const column = (place: Column) => numbers(columns, place);
  return {
    first: document.first,
    gils: document.gils,
    outcomes: document.outcomes,
    nativeOutcomes: document.nativeOutcomes,
    processes: document.processes,
    threads: document.threads,
    functions: document.functions,
    frameFunction: column(document.frames.function),
    frameLine: column(document.frames.line),
    rise: column(document.nodes.rise),
    entry: column(document.nodes.entry),
    compared: document.compared ?? null,
    recordings: document.recordings.map((each: Json) => recordingFrom(each, column)),
    sources: document.sources,
  };
}

function recordingFrom(from: Json, column: (place: Column) => Uint32Array): Recording {
  const second = column(from.samples.second); // as differences
  let last = 0;
  for (let index = 0; index < second.length; index += 1) {
    last += second[index];
    second[index] = last;
  }
  const seconds = hasTimes(from) ? Math.max(1, Math.ceil(from.duration - 1e-6), last + 1) : last + 1;
  return {
    ...from,
    seconds,
    samples: {
      node: column(from.samples.node),
      how: column(from.samples.how),
      count: column(from.samples.count),
      firstOf: firstSamples(second, seconds),
      hows: from.samples.hows.map(([kernelMode, gil, outcome, native]: number[]) => ({
        kernelMode: kernelMode === 1,
        gil,
        outcome,
        native,
      })),
    },
  };
}

// Whether it is known when each sample was taken: what other tools wrote has all of them in the first second.
export function hasTimes({ started, duration, frequency }: Recording): boolean {
  return started > 0 && duration > 0 && frequency > 0;
}

function firstSamples(second: Uint32Array, seconds: number): Uint32Array {
  const first = new Uint32Array(seconds + 1);
  for (const each of second) {
    first[each + 1] += 1;
  }
  for (let index = 0; index < seconds; index += 1) {
    first[index + 1] += first[index];
  }
  return first;
}
