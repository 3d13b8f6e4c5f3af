// The page: facts and switches, the timeline, what is filtered, and below it the chosen view.

import { batch } from "@preact/signals";
import { knowsCores } from "./comparison";
import type { Recording } from "./data";
import { Graph } from "./graph";
import { Help, switchTheme } from "./keys";
import { isDark, sampledProcesses, shownColour, type Model } from "./model";
import { Processes, toggled } from "./processes";
import type { Tab } from "./state";
import { Table } from "./table";
import { Panel, Tabs } from "./tabs";
import { Timeline } from "./timeline";
import { Trust } from "./trust";
import { clock, grouped, plural, utc } from "./words";

const TABS: [Tab, string][] = [
  ["functions", "Functions"],
  ["processes", "Processes"],
  ["trust", "Trust"],
];

export function App({ model }: { model: Model }) {
  const { state } = model;
  const tab = state.tab.value;
  return (
    <div class="app">
      <Head model={model} />
      <Timeline model={model} />
      <Filters model={model} />
      <main>
        <Panel id="view" chosen={tab}>
          {tab === "functions" ? <Functions model={model} /> : tab === "processes" ? <Processes model={model} /> : <Trust model={model} />}
        </Panel>
      </main>
      <Foot model={model} />
      <Help model={model} />
    </div>
  );
}

function Head({ model }: { model: Model }) {
  const { state, report } = model;
  const recording = model.recording.value;
  const facts = [
    `${grouped(recording.total)} samples of ${plural(sampledProcesses(model).length, "process")}`,
    knowsCores(recording) ? `${clock(recording.duration)} at ${grouped(recording.frequency)} Hz` : "",
    recording.cpus ? plural(recording.cpus, "CPU") : "",
    utc(recording.started),
    recording.kernel,
  ];
  return (
    <header class="head">
      <h1>
        CPU{recording.host ? " of " : ""}
        <bdi>{recording.host}</bdi>
      </h1>
      {report.compared ? <p class="changed">{report.compared.words.join(" ")}</p> : null}
      <p class="facts">{facts.filter(Boolean).join(" · ")}</p>
      {report.compared ? <Sides model={model} /> : null}
      <Tabs
        id="view"
        label="Views"
        tabs={TABS.map(([name, text]) => ({
          name,
          text,
          mark: name === "trust" ? <TrustMark missing={missingShare(report, recording)} /> : null,
        }))}
        chosen={state.tab.value}
        choose={(name) => (state.tab.value = name)}
      />
      <span class="tools">
        {state.tab.value === "functions" && !(state.showTable.value && state.showGraph.value) ? (
          <button type="button" onClick={() => openBoth(model)}>
            {state.showTable.value ? "Show graph" : "Show table"}
          </button>
        ) : null}
        <button type="button" class="icon" aria-label="Light or dark" title="Light or dark (d)" onClick={() => switchTheme(model)}>
          {isDark(state, model.systemDark) ? "☀" : "☾"}
        </button>
        <button type="button" class="icon" aria-label="Keyboard" title="Keyboard (?)" onClick={() => (state.help.value = true)}>
          ?
        </button>
      </span>
    </header>
  );
}

// Which of two recordings is shown (boxes are as wide as they are in that), and in what they are compared.
function Sides({ model }: { model: Model }) {
  const { state, report } = model;
  const show = (side: number) =>
    batch(() => {
      state.range.value = null;
      state.recording.value = side;
    });
  return (
    <span class="tools">
      <span class="switch" role="group" aria-label="Recording">
        {["Before", "After"].map((name, side) => (
          <button key={name} type="button" aria-pressed={state.recording.value === side} onClick={() => show(side)}>
            {name}
          </button>
        ))}
      </span>
      <span class="set">
        <button
          type="button"
          class="toggle"
          disabled={!report.recordings.every(knowsCores)}
          aria-pressed={state.shares.value}
          title="Compare shares of all samples, not cores"
          onClick={() => (state.shares.value = !state.shares.value)}
        >
          Normalised
        </button>
      </span>
    </span>
  );
}

function openBoth({ state }: Model): void {
  state.showTable.value = true;
  state.showGraph.value = true;
}

// What was lost is known of the whole recording only.
function missingShare({ outcomes }: Model["report"], recording: Recording): number {
  const { total, lost } = recording;
  const missing = outcomes.reduce((all, each, index) => all + (each.missing ? recording.outcomes[index] : 0), 0);
  const lostShare = lost / Math.max(1, (recording.partOf || total) + lost);
  return total ? lostShare + ((1 - lostShare) * missing) / total : 0;
}

// A dot where more than one sample in a hundred is not whole.
function TrustMark({ missing }: { missing: number }) {
  return missing > 0.01 ? <i class="alarm" title={`${(100 * missing).toFixed(1)} % of the samples miss Python frames or are lost`} /> : null;
}

function Filters({ model }: { model: Model }) {
  const { state, report } = model;
  const processes = [...state.processes.value];
  const threads = [...state.threads.value];
  if (!processes.length && !threads.length) {
    return null;
  }
  return (
    <div class="filters" aria-label="Filters">
      Only
      {processes.map((process) => (
        <button key={process} type="button" class="chip" title="Remove" onClick={() => (state.processes.value = toggled(state.processes.value, process))}>
          <bdi>{report.processes.label[process]}</bdi> ✕
        </button>
      ))}
      {threads.map((thread) => (
        <button key={`t${thread}`} type="button" class="chip" title="Remove" onClick={() => (state.threads.value = toggled(state.threads.value, thread))}>
          thread <bdi>{report.threads.label[thread]}</bdi> ✕
        </button>
      ))}
      <button
        type="button"
        class="quiet"
        onClick={() =>
          batch(() => {
            state.processes.value = new Set();
            state.threads.value = new Set();
          })
        }
      >
        Show all
      </button>
    </div>
  );
}

function Functions({ model }: { model: Model }) {
  const { showTable, showGraph } = model.state;
  const both = showTable.value && showGraph.value;
  return (
    <div class={both ? "panes both" : "panes"}>
      {showTable.value ? <Table model={model} /> : null}
      {showGraph.value ? <Graph model={model} /> : null}
    </div>
  );
}

function Foot({ model }: { model: Model }) {
  const [name, figures] = model.state.details.value;
  return (
    <footer class="foot">
      <div class="details" aria-live="polite">
        <strong>
          <bdi>{name}</bdi>
        </strong>
        <span>{figures}</span>
      </div>
      <Legend model={model} />
    </footer>
  );
}

function Legend({ model }: { model: Model }) {
  const { palette } = model;
  const colour = shownColour(model.state);
  if (colour === "change") {
    return <ChangeLegend model={model} />;
  }
  if (colour !== "kind") {
    return <div class="key">{colour === "module" ? "One colour for each module" : "Colours of the timeline"}</div>;
  }
  const { python, native, kernel, mark } = palette.value;
  const kinds: [string, string][] = [
    ["Python", python[0]],
    ["Native", native[0]],
    ["Kernel", kernel[0]],
    ["Gap in the stack", mark],
  ];
  return (
    <ul class="key" aria-label="Colours">
      {kinds.map(([name, background]) => (
        <li key={name}>
          <i style={{ background }} />
          {name}
        </li>
      ))}
    </ul>
  );
}

function ChangeLegend({ model }: { model: Model }) {
  const { less, more, same } = model.palette.value;
  const shades: [string, string][] = [
    ["Much less CPU", less[3]],
    ["Less", less[1]],
    ["No change beyond noise", same],
    ["More", more[1]],
    ["Much more", more[3]],
  ];
  return (
    <ul class="key" aria-label="Colours">
      {shades.map(([name, background]) => (
        <li key={name}>
          <i style={{ background }} />
          {name}
        </li>
      ))}
    </ul>
  );
}
