// CPU over time, stacked by process; a part of it is chosen by dragging, by keys or by typing both ends.

import { computed, effect, untracked } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import { hasTimes, type Recording } from "./data";
import { everything, processColour, type Model } from "./model";
import { eachSample, lengthOf, type Part } from "./weights";
import { clock, grouped, parseClock, percent, plural, seconds, utc } from "./words";

const HEIGHT = 118;
const POINTS_MAX = 3600; // longer recordings are drawn some seconds at a time
const LAST_SECOND_LEAST = 0.5; // a shorter rest of a second says nothing about cores

interface Curves {
  step: number; // seconds to a point
  processes: number[]; // -1 for all others
  cores: number[][]; // by process, by point
  total: number[]; // of everything, whatever is filtered
}

export function Timeline({ model }: { model: Model }) {
  return hasTimes(model.recording.value) ? <Timed model={model} /> : <Untimed model={model} />;
}

// In place of a timeline where no times are known, as of folded stacks.
function Untimed({ model }: { model: Model }) {
  const recording = model.recording.value;
  const { all } = model.weights.value;
  return (
    <section class="timeline" aria-label="CPU">
      <div class="range">
        <output class="chosen" aria-live="polite">
          <b>{percent(all, model.whole.value.all)}</b> of the samples: <b>{plural(all, "sample")}</b>
          {recording.frequency ? `, ${seconds(all, recording)} of CPU` : ""}. When each was taken is not known.
        </output>
      </div>
    </section>
  );
}

function Timed({ model }: { model: Model }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const curves = useMemo(() => computed(() => curvesOf(model)), []);
  const range = model.state.range.value;

  useEffect(() => {
    const stop = effect(() => {
      plot.current?.destroy();
      plot.current = drawnPlot(model, curves.value, place.current!);
      untracked(() => markRange(model, plot.current));
    });
    const stopMarking = effect(() => markRange(model, plot.current));
    const resized = new ResizeObserver(() => {
      plot.current?.setSize({ width: place.current!.clientWidth, height: HEIGHT });
      markRange(model, plot.current);
    });
    resized.observe(place.current!);
    return () => {
      stop();
      stopMarking();
      resized.disconnect();
      plot.current?.destroy();
    };
  }, []);

  return (
    <section class="timeline" aria-label="CPU over time">
      <RangeBar model={model} curves={curves.value} />
      <div
        ref={place}
        class={range ? "plot" : "plot all"}
        tabIndex={0}
        role="group"
        aria-label="Timeline. Left and right arrows move the chosen range, with Shift its end, with Alt its beginning; Escape chooses everything."
        onKeyDown={(event) => moveByKey(model, event)}
      />
    </section>
  );
}

function curvesOf(model: Model): Curves {
  const { stacks, state } = model;
  const recording = model.recording.value;
  const step = Math.ceil(recording.seconds / POINTS_MAX);
  const points = Math.ceil(recording.seconds / step);
  const filters = { processes: state.processes.value, threads: state.threads.value };
  const own = model.curveProcesses;
  const places = new Map(own.map((process, index) => [process, index]));
  const counts = [...own, -1].map(() => new Array<number>(points).fill(0));
  const total = new Array<number>(points).fill(0);
  const add = (part: Part, take: (point: number, process: number, count: number) => void) => {
    let second = 0;
    eachSample(recording, stacks, part, (index, node, count) => {
      while (recording.samples.firstOf[second + 1] <= index) {
        second += 1;
      }
      take(Math.floor(second / step), stacks.process[node], count);
    });
  };
  add({ ...everything(recording), ...filters }, (point, process, count) => {
    counts[places.get(process) ?? own.length][point] += count;
  });
  add(everything(recording), (point, _process, count) => {
    total[point] += count;
  });
  const inCores = (column: number[]) => column.map((count, point) => count / recording.frequency / length(point, step, recording));
  const used = [...own, -1].map((_, index) => counts[index].some((count) => count > 0));
  return {
    step,
    processes: [...own, -1].filter((_, index) => used[index]),
    cores: counts.filter((_, index) => used[index]).map(inCores),
    total: inCores(total),
  };
}

// Seconds that a point stands for; the last one may be cut short.
function length(point: number, step: number, { duration, seconds }: Recording): number {
  const end = duration > seconds - 1 ? duration : seconds;
  return Math.max(Math.min(step, end - point * step), LAST_SECOND_LEAST);
}

function drawnPlot(model: Model, curves: Curves, place: HTMLElement): uPlot {
  const palette = model.palette.value;
  const recording = model.recording.value;
  const { step } = curves;
  const x = curves.total.map((_, point) => point * step);
  x.push(recording.seconds); // closes the last step
  const sums = stacked(curves.cores);
  const closed = (column: number[]) => [...column, column[column.length - 1]];
  const stepped = uPlot.paths.stepped!({ align: 1 });
  const areas = curves.processes.map((process, index) => ({
    label: process < 0 ? "others" : model.report.processes.label[process],
    stroke: process < 0 ? palette.others : processColour(model, process),
    fill: process < 0 ? palette.others : processColour(model, process),
    width: 0,
    points: { show: false },
    paths: stepped,
    index,
  }));
  const top = Math.max(...curves.total, 0.01);
  const axis = { stroke: palette.soft, font: "11px system-ui, sans-serif", ticks: { stroke: palette.line, size: 4 } };
  // The topmost sum first, so that each lower one covers all but its own band.
  const order = areas.map((_, index) => index).reverse();
  return new uPlot(
    {
      width: Math.max(place.clientWidth, 100),
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 18, 0, 0],
      scales: {
        x: { time: false, range: () => [0, recording.seconds] },
        y: { range: () => [0, top * 1.06] },
      },
      axes: [
        { ...axis, size: 24, gap: 2, grid: { show: false }, values: (_, ticks) => ticks.map((each) => (Number.isInteger(each) ? clock(each) : "")) },
        { ...axis, size: 52, gap: 4, grid: { stroke: palette.line, width: 1 }, space: 26, values: (_, ticks) => ticks.map((each) => `${+each.toFixed(2)}`) },
      ],
      series: [
        {},
        ...order.map((index) => areas[index]),
        { label: "total", stroke: palette.ink, width: 1.25, points: { show: false }, paths: stepped },
      ],
      cursor: {
        drag: { x: true, y: false, setScale: false, dist: 3 },
        points: { show: false },
        y: false,
      },
      hooks: {
        setSelect: [(plot) => chooseDragged(model, plot)],
        setCursor: [(plot) => describePoint(model, curves, sums, plot)],
      },
    },
    [x, ...order.map((index) => closed(sums[index])), closed(curves.total)],
    place,
  );
}

function stacked(cores: number[][]): number[][] {
  const sums: number[][] = [];
  for (const column of cores) {
    const below = sums[sums.length - 1];
    sums.push(below ? column.map((value, point) => value + below[point]) : column);
  }
  return sums;
}

const marking = { now: false }; // the plot tells of its selection, even of one that we set

function chooseDragged(model: Model, plot: uPlot): void {
  if (marking.now) {
    return;
  }
  const { left, width } = plot.select;
  if (width < 1) {
    choose(model, 0, Infinity);
    return;
  }
  const from = Math.floor(plot.posToVal(left, "x") + 0.02);
  const to = Math.ceil(plot.posToVal(left + width, "x") - 0.02);
  choose(model, from, Math.max(to, from + 1));
}

function markRange(model: Model, plot: uPlot | null): void {
  const range = model.state.range.value;
  if (!plot) {
    return;
  }
  // Only then are its scales known.
  queueMicrotask(() => {
    marking.now = true;
    const left = range ? plot.valToPos(range[0], "x") : 0;
    const width = range ? plot.valToPos(range[1], "x") - left : 0;
    plot.setSelect({ left, width, top: 0, height: plot.over.clientHeight }, false);
    marking.now = false;
  });
}

// Chooses these seconds, as far as the recording has them.
export function choose(model: Model, from: number, to: number): void {
  const { seconds } = model.recording.value;
  const begin = Math.max(0, Math.min(from, seconds - 1));
  const end = Math.max(begin + 1, Math.min(to, seconds));
  model.state.range.value = begin === 0 && end === seconds ? null : [begin, end];
}

// Moves the chosen range, or one of its ends.
export function moveRange(model: Model, by: number, what: "both" | "begin" | "end"): void {
  const { seconds } = model.recording.value;
  const range = model.state.range.value;
  if (!range) {
    const size = Math.max(1, Math.round(seconds / 10));
    choose(model, by > 0 ? 0 : seconds - size, by > 0 ? size : seconds);
    return;
  }
  let [from, to] = range;
  if (what === "both") {
    const shift = Math.max(-from, Math.min(by, seconds - to));
    [from, to] = [from + shift, to + shift];
  } else if (what === "end") {
    to = Math.max(from + 1, to + by);
  } else {
    from = Math.min(to - 1, from + by);
  }
  choose(model, from, to);
}

function moveByKey(model: Model, event: KeyboardEvent): void {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by === undefined || event.ctrlKey || event.metaKey) {
    return;
  }
  moveRange(model, by, event.shiftKey ? "end" : event.altKey ? "begin" : "both");
  event.preventDefault();
  event.stopPropagation();
}

function describePoint(model: Model, curves: Curves, sums: number[][], plot: uPlot): void {
  const { left, top } = plot.cursor;
  if (left === undefined || top === undefined || left < 0 || marking.now) {
    return;
  }
  const point = Math.min(Math.floor(plot.posToVal(left, "x") / curves.step), curves.total.length - 1);
  const height = plot.posToVal(top, "y");
  const band = sums.findIndex((sum) => sum[point] >= height);
  const recording = model.recording.value;
  const from = point * curves.step;
  const when = `${clock(from)}  ·  ${utc(recording.started + from)}`;
  const total = `${curves.total[point].toFixed(2)} cores in all`;
  if (band < 0) {
    model.state.details.value = [when, total];
    return;
  }
  const process = curves.processes[band];
  const name = process < 0 ? "other processes" : model.report.processes.label[process];
  model.state.details.value = [when, `${name}: ${curves.cores[band][point].toFixed(2)} cores  ·  ${total}`];
}

function RangeBar({ model, curves }: { model: Model; curves: Curves }) {
  const recording = model.recording.value;
  const { from, to } = model.part.value;
  const { all } = model.weights.value;
  const whole = model.whole.value.all;
  const range = model.state.range.value;
  const spans = lengthOf(recording, { from, to });
  const cores = all / recording.frequency / Math.max(spans, LAST_SECOND_LEAST);
  return (
    <div class="range">
      <span class="ends">
        <End model={model} label="From" value={from} set={(second) => choose(model, second, Math.max(to, second + 1))} />
        <span aria-hidden="true">–</span>
        <End model={model} label="To" value={to} set={(second) => choose(model, Math.min(from, second - 1), second)} />
        <button type="button" class="quiet" disabled={!range} onClick={() => choose(model, 0, Infinity)} title="Everything (\)">
          Whole recording
        </button>
      </span>
      <output class="chosen" aria-live="polite" title={`${utc(recording.started + from)} – ${utc(recording.started + to)}`}>
        <b>{percent(all, whole)}</b> of the recording’s CPU in <b>{clock(spans)}</b>: <b>{seconds(all, recording)}</b>,{" "}
        <b>{cores.toFixed(2)}</b> of {plural(recording.cpus, "core")}, {grouped(all)} samples
      </output>
      <ul class="key" aria-label="Processes of the timeline">
        {curves.processes.map((process) => (
          <li key={process}>
            <i style={{ background: process < 0 ? model.palette.value.others : processColour(model, process) }} />
            {process < 0 ? (
              "others"
            ) : (
              <button type="button" class="bare" title="Show only this process" onClick={() => only(model, process)}>
                {model.report.processes.label[process]}
              </button>
            )}
          </li>
        ))}
        <li>
          <i class="stroke" /> all processes
        </li>
      </ul>
    </div>
  );
}

export function only(model: Model, process: number): void {
  const now = model.state.processes.value;
  model.state.processes.value = now.size === 1 && now.has(process) ? new Set() : new Set([process]);
  model.state.threads.value = new Set();
}

function End({ model, label, value, set }: { model: Model; label: string; value: number; set: (second: number) => void }) {
  return (
    <input
      class="end"
      aria-label={`${label}: minutes and seconds from the start of the recording`}
      title={`${label}: seconds, or minutes:seconds, from the start of the recording`}
      value={clock(value)}
      size={6}
      spellcheck={false}
      onChange={(event) => {
        const second = parseClock(event.currentTarget.value);
        if (!Number.isNaN(second)) {
          set(Math.round(second));
        }
        event.currentTarget.value = clock(label === "From" ? model.part.value.from : model.part.value.to);
      }}
    />
  );
}
