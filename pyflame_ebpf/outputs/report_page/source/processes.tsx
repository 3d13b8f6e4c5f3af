// The CPU table of the terminal, for the chosen range; each process and thread in it is a filter.

import { batch, computed, useSignal } from "@preact/signals";
import { Fragment } from "preact";
import { useMemo } from "preact/hooks";
import { patternOf, processColour, type Model } from "./model";
import { processFigures, type ProcessFigures, type ThreadFigures } from "./process_figures";
import { lengthOf } from "./weights";
import { grouped, plural, share, shortCommand } from "./words";

const SHOWN = 300;

export function Processes({ model }: { model: Model }) {
  const { state, report } = model;
  const figures = useMemo(() => computed(() => processFigures(model)), []);
  const opened = useSignal<ReadonlySet<number>>(new Set());
  const pattern = patternOf(state.commands.value);
  const { pid, command, interpreter } = report.processes;
  const every = figures.value;
  const wanted = pattern
    ? every.filter(({ process }) => pattern.test(`${pid[process]} ${command[process]} ${interpreter[process]}`))
    : every;
  const shown = wanted.slice(0, state.printing.value ? 60 : SHOWN);
  const chosen = state.processes.value.size + state.threads.value.size;
  return (
    <section class="pane sheet" aria-label="Processes">
      <header>
        <label class="seek">
          <input
            id="process-filter"
            type="text"
            placeholder="Filter: PID, command or interpreter  ( f )"
            aria-label="Filter the processes"
            autocomplete="off"
            spellcheck={false}
            value={state.commands.value}
            onInput={(event) => {
              state.commands.value = event.currentTarget.value;
            }}
          />
          <output>{pattern ? `${grouped(wanted.length)} of ${grouped(every.length)}` : grouped(every.length)}</output>
        </label>
        <span class="hint">Check processes or threads to see only them, here and in the graph.</span>
        <button type="button" disabled={!chosen} onClick={() => showAll(model)}>
          Show all
        </button>
      </header>
      <div class="scroll" tabIndex={0}>
        <table class="figures" aria-label="Processes by CPU">
          <thead>
            <tr>
              <th scope="col" aria-label="Chosen" />
              <th scope="col" class="number">PID</th>
              <th scope="col">Command</th>
              <th scope="col">Python</th>
              <th scope="col" class="number">Samples</th>
              <th scope="col" class="number" title="CPU time in per cent of one core">CPU %</th>
              <th scope="col" class="number" title="Share of the samples in user code">User %</th>
              <th scope="col" class="number" title="Share of the samples in the kernel">Kernel %</th>
              <th scope="col" class="number" title="Share of the samples that can tell in which the thread held the GIL">GIL %</th>
              <th scope="col" class="number" title="CPU time that the scheduler charged, in seconds, of the whole recording">Sched. s</th>
              <th scope="col">Hottest Python line</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((each) => (
              <Fragment key={each.process}>
                <ProcessRow
                  model={model}
                  figures={each}
                  isOpen={opened.value.has(each.process)}
                  turn={() => {
                    opened.value = toggled(opened.value, each.process);
                  }}
                />
                {opened.value.has(each.process)
                  ? each.threads.map((thread) => <ThreadRow key={thread.thread} model={model} process={each.process} figures={thread} />)
                  : null}
              </Fragment>
            ))}
          </tbody>
          <tfoot>
            {wanted.length > shown.length ? (
              <tr>
                <td colSpan={11}>and {plural(wanted.length - shown.length, "more process")}; filter to see them</td>
              </tr>
            ) : null}
            <Total model={model} figures={wanted} />
          </tfoot>
        </table>
        {every.length === 0 ? <p class="empty">Nothing was sampled in this range.</p> : null}
      </div>
    </section>
  );
}

function showAll({ state }: Model): void {
  batch(() => {
    state.processes.value = new Set();
    state.threads.value = new Set();
  });
}

export function toggled(set: ReadonlySet<number>, member: number): ReadonlySet<number> {
  const made = new Set(set);
  if (!made.delete(member)) {
    made.add(member);
  }
  return made;
}

// A process is shown whole, or by the threads of it that are checked.
function without(set: ReadonlySet<number>, members: number[]): ReadonlySet<number> {
  return new Set([...set].filter((each) => !members.includes(each)));
}

function ofOneCore(model: Model, samples: number): string {
  const recording = model.recording.value;
  const ticks = recording.frequency * lengthOf(recording, model.part.value);
  return ticks > 0 ? share((100 * samples) / ticks) : "–";
}

function part(of: number, all: number): string {
  return all ? share((100 * of) / all) : "";
}

function ProcessRow({ model, figures, isOpen, turn }: { model: Model; figures: ProcessFigures; isOpen: boolean; turn: () => void }) {
  const { report, state } = model;
  const { process, samples } = figures;
  const { pid, command, interpreter, scheduler, label } = report.processes;
  const charged = state.range.value ? null : scheduler[process];
  const checked = state.processes.value.has(process);
  return (
    <tr class={checked ? "selected" : ""}>
      <td class="check">
        <input
          type="checkbox"
          aria-label={`Only ${label[process]}`}
          checked={checked}
          onChange={() =>
            batch(() => {
              state.processes.value = toggled(state.processes.value, process);
              state.threads.value = without(state.threads.value, figures.threads.map((each) => each.thread));
            })
          }
        />
        <i class="dot" style={{ background: processColour(model, process) }} />
      </td>
      <td class="number soft">{pid[process] || ""}</td>
      <td class="words" title={command[process]}>
        <button
          type="button"
          class="bare turn"
          aria-expanded={isOpen}
          title={`${plural(figures.threads.length, "thread")}`}
          onClick={turn}
        >
          {isOpen ? "▾" : "▸"} <bdi>{shortCommand(command[process])}</bdi>
        </button>
      </td>
      <td>{interpreter[process].replace(/^CPython /, "")}</td>
      <td class="number">{grouped(samples)}</td>
      <td class="number">{ofOneCore(model, samples)}</td>
      <td class="number">{part(samples - figures.kernel, samples)}</td>
      <td class="number">{part(figures.kernel, samples)}</td>
      <td class="number">{part(figures.gilHeld, figures.gilKnown)}</td>
      <td class="number">{charged === null ? "" : charged.toFixed(2)}</td>
      <td class="words">{figures.hottest < 0 ? "" : <Place model={model} frame={figures.hottest} />}</td>
    </tr>
  );
}

function Place({ model, frame }: { model: Model; frame: number }) {
  const { report, state } = model;
  const func = report.frameFunction[frame];
  const { file, name, line } = report.functions;
  return (
    <button
      type="button"
      class="bare"
      title="Show the lines of this function"
      onClick={() =>
        batch(() => {
          state.selected.value = { grouping: "function", key: func };
          state.tab.value = "functions";
          state.mode.value = "lines";
          state.showGraph.value = true;
        })
      }
    >
      <bdi>{`${file[func]}:${report.frameLine[frame] || line[func]} ${name[func]}`}</bdi>
    </button>
  );
}

function ThreadRow({ model, process, figures }: { model: Model; process: number; figures: ThreadFigures }) {
  const { report, state } = model;
  const { thread, samples } = figures;
  const checked = state.threads.value.has(thread);
  return (
    <tr class={`thread${checked ? " selected" : ""}`}>
      <td class="check">
        <input
          type="checkbox"
          aria-label={`Only thread ${report.threads.label[thread]}`}
          checked={checked}
          onChange={() =>
            batch(() => {
              state.threads.value = toggled(state.threads.value, thread);
              state.processes.value = without(state.processes.value, [process]);
            })
          }
        />
      </td>
      <td class="number soft">{report.threads.tid[thread] || ""}</td>
      <td class="words">
        <bdi>{report.threads.name[thread]}</bdi>
      </td>
      <td />
      <td class="number">{grouped(samples)}</td>
      <td class="number">{ofOneCore(model, samples)}</td>
      <td class="number">{part(samples - figures.kernel, samples)}</td>
      <td class="number">{part(figures.kernel, samples)}</td>
      <td class="number">{part(figures.gilHeld, figures.gilKnown)}</td>
      <td />
      <td />
    </tr>
  );
}

function Total({ model, figures }: { model: Model; figures: ProcessFigures[] }) {
  const sum = (of: (each: ProcessFigures) => number) => figures.reduce((all, each) => all + of(each), 0);
  const samples = sum((each) => each.samples);
  const kernel = sum((each) => each.kernel);
  const charged = model.state.range.value ? [] : figures.map((each) => model.report.processes.scheduler[each.process]);
  const known = charged.filter((each) => each !== null);
  return (
    <tr class="total">
      <td />
      <td />
      <td>total</td>
      <td />
      <td class="number">{grouped(samples)}</td>
      <td class="number">{ofOneCore(model, samples)}</td>
      <td class="number">{part(samples - kernel, samples)}</td>
      <td class="number">{part(kernel, samples)}</td>
      <td class="number">{part(sum((each) => each.gilHeld), sum((each) => each.gilKnown))}</td>
      <td class="number">{known.length ? known.reduce((all, each) => all + each, 0).toFixed(2) : ""}</td>
      <td />
    </tr>
  );
}
