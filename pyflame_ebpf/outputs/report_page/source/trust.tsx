// How far the recording can be trusted, and under which circumstances it was made.

import { computed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Named, Recording } from "./data";
import { sampledProcesses, type Model } from "./model";
import { eachSample } from "./weights";
import { clock, grouped, percent, utc } from "./words";

interface InRange {
  all: number;
  outcomes: number[];
  native: number[];
}

export function Trust({ model }: { model: Model }) {
  const recording = model.recording.value;
  const { report } = model;
  const inRange = useMemo(() => computed(() => countsInRange(model)), []);
  const isPart = inRange.value.all !== recording.total;
  return (
    <section class="pane sheet trust" aria-label="Trust" tabIndex={0}>
      <p class="closing">{recording.closing}.</p>
      <div class="cards">
        <Card title="Python stacks">
          <Outcomes names={report.outcomes} counts={recording.outcomes} part={isPart ? inRange.value.outcomes : null} all={recording.total} />
        </Card>
        <Card title="Native stacks">
          <Outcomes names={report.nativeOutcomes} counts={recording.nativeOutcomes} part={isPart ? inRange.value.native : null} all={recording.total} />
        </Card>
        <Card title="CPU time">
          <CpuTime model={model} />
        </Card>
        <Card title="Recording">
          <Circumstances model={model} />
        </Card>
        <Card title="Counters">
          <Counters counters={recording.counters} />
        </Card>
      </div>
    </section>
  );
}

function countsInRange(model: Model): InRange {
  const recording = model.recording.value;
  const { report } = model;
  const counts: InRange = { all: 0, outcomes: report.outcomes.map(() => 0), native: report.nativeOutcomes.map(() => 0) };
  eachSample(recording, model.stacks, model.part.value, (index, _node, count) => {
    const how = recording.samples.hows[recording.samples.how[index]];
    counts.all += count;
    counts.outcomes[how.outcome] += count;
    counts.native[how.native] += count;
  });
  return counts;
}

function Card({ title, children }: { title: string; children: preact.ComponentChildren }) {
  return (
    <section class="card">
      <h2>{title}</h2>
      {children}
    </section>
  );
}

function Outcomes({ names, counts, part, all }: { names: Named[]; counts: number[]; part: number[] | null; all: number }) {
  const seen = names.map((_, index) => index).filter((index) => counts[index] > 0);
  return (
    <table class="figures">
      <thead>
        <tr>
          <th scope="col">How the walk ended</th>
          <th scope="col" class="number">Samples</th>
          <th scope="col" class="number">Share</th>
          {part ? <th scope="col" class="number">Chosen</th> : null}
        </tr>
      </thead>
      <tbody>
        {seen.map((index) => (
          <tr key={index} class={names[index].missing ? "missing" : ""}>
            <td>{names[index].name}</td>
            <td class="number">{grouped(counts[index])}</td>
            <td class="number">{percent(counts[index], all)}</td>
            {part ? <td class="number">{grouped(part[index])}</td> : null}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

// The counters of which the lost samples are the sum.
const LOSSES: [string, string][] = [
  ["counts_full", "no room to count them"],
  ["tail_calls_failed", "the kernel refused to go on"],
];

function lostByReason({ lost, counters, partOf }: Recording): string {
  const of = partOf ? ` of the whole recording’s ${grouped(partOf)}` : "";
  const reasons = LOSSES.filter(([name]) => counters[name] > 0).map(([name, reason]) => `${grouped(counters[name])} ${reason}`);
  return `${grouped(lost)}${of}${lost && reasons.length ? ` (${reasons.join(", ")})` : ""}`;
}

function CpuTime({ model }: { model: Model }) {
  const recording = model.recording.value;
  const { frequency } = recording;
  const { scheduler } = model.report.processes;
  const charged = sampledProcesses(model).map((process) => scheduler[process]).filter((each) => each !== null);
  return (
    <dl>
      {frequency ? <Fact name="The samples account for">{(recording.total / frequency).toFixed(1)} s</Fact> : null}
      {recording.scheduler === null ? null : <Fact name="The scheduler charged the host">{recording.scheduler.toFixed(1)} s</Fact>}
      {charged.length ? (
        <Fact name="The scheduler charged these processes">{charged.reduce((all, each) => all + each, 0).toFixed(1)} s</Fact>
      ) : null}
      <Fact name="Samples taken and kept">{grouped(recording.total)}</Fact>
      <Fact name="Samples lost">{lostByReason(recording)}</Fact>
      {frequency ? <Fact name="One sample stands for">{(1000 / frequency).toFixed(2)} ms of one CPU</Fact> : null}
    </dl>
  );
}

function Circumstances({ model }: { model: Model }) {
  const recording = model.recording.value;
  return (
    <dl>
      <Fact name="Host">{recording.host || "unknown"}</Fact>
      <Fact name="Kernel">{recording.kernel || "unknown"}</Fact>
      <Fact name="CPUs">{recording.cpus ? grouped(recording.cpus) : "unknown"}</Fact>
      <Fact name="Started">{utc(recording.started) || "unknown"}</Fact>
      <Fact name="Duration">
        {recording.duration ? `${clock(recording.duration)} (${recording.duration.toFixed(1)} s)` : "unknown"}
      </Fact>
      <Fact name="Frequency">{recording.frequency ? `${grouped(recording.frequency)} Hz on each CPU` : "unknown"}</Fact>
      <Fact name="Command line">
        <code>pyflame-ebpf {recording.arguments.join(" ")}</code>
      </Fact>
      <Fact name="pyflame-ebpf">{recording.version || "unknown"}</Fact>
    </dl>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <bdi>{children}</bdi>
      </dd>
    </div>
  );
}

function Counters({ counters }: { counters: Record<string, number> }) {
  const names = Object.keys(counters).sort();
  if (!names.length) {
    return <p class="empty">The recording has none.</p>;
  }
  return (
    <table class="figures">
      <tbody>
        {names.map((name) => (
          <tr key={name} class={counters[name] ? "" : "silent"}>
            <td>
              <bdi>{name.replaceAll("_", " ")}</bdi>
            </td>
            <td class="number">{grouped(counters[name])}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
