// The executing lines of one Python function with their shares, beside the source text where the report holds it.

import { computed } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Kind } from "./data";
import type { Model } from "./model";
import { groupsOf } from "./stacks";
import { groupWeights } from "./weights";
import { grouped, percent, seconds } from "./words";

const AROUND = 3; // lines shown beyond the last one that was sampled
const SUGGESTED = 12;

interface LineFigures {
  line: number;
  self: number;
  total: number;
}

export function Lines({ model }: { model: Model }) {
  const { report } = model;
  const func = model.selectedFunction.value;
  const figures = useMemo(() => computed(() => lineFigures(model)), []);
  if (func < 0 || report.functions.kind[func] !== Kind.Python) {
    return <Suggestions model={model} func={func} />;
  }
  const all = model.weights.value.all;
  const recording = model.recording.value;
  const sampled = figures.value;
  const source = sourceOf(model, func);
  const rows = source ? withSource(sampled, source, report.functions.line[func]) : sampled;
  const most = Math.max(...sampled.map((each) => each.total), 1);
  return (
    <div class="lines scroll" tabIndex={0} aria-label={`Lines of ${report.functions.label[func]}`}>
      <table class="figures">
        <caption>
          <bdi>{report.functions.name[func]}</bdi> <span class="soft">in <bdi>{report.functions.file[func]}</bdi></span>
        </caption>
        <thead>
          <tr>
            <th scope="col" class="number">Line</th>
            <th scope="col" class="number" title="While this line itself ran">Self %</th>
            <th scope="col" class="number" title="While this line ran, or what it called">Total %</th>
            <th scope="col" class="number">Total s</th>
            <th scope="col" class="number">Samples</th>
            <th scope="col">{source ? "Source" : ""}</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.line} class={row.total ? "" : "silent"}>
              <td class="number soft">{row.line || "?"}</td>
              <td class="number">{row.self ? percent(row.self, all).replace(" %", "") : ""}</td>
              <td class="number share">
                <i style={{ width: `${(100 * row.total) / most}%` }} />
                <b>{row.total ? percent(row.total, all).replace(" %", "") : ""}</b>
              </td>
              <td class="number">{row.total ? seconds(row.total, recording).replace(" s", "") : ""}</td>
              <td class="number">{row.total ? grouped(row.total) : ""}</td>
              <td class="code">{source ? <code>{source[row.line] ?? ""}</code> : null}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {sampled.length === 0 ? <p class="empty">This function was not sampled in this range.</p> : null}
      {source ? null : (
        <p class="empty">The text of these lines is not in this report; a recording made with --source embeds it.</p>
      )}
    </div>
  );
}

function lineFigures(model: Model): LineFigures[] {
  const { report, stacks } = model;
  const func = model.selectedFunction.value;
  const nothingHidden = new Uint8Array(report.functions.kind.length);
  const groups = groupsOf(report, stacks, "line", nothingHidden);
  const shown = groupsOf(report, stacks, "line", without(model.hidden.value, func));
  const { total } = groupWeights(stacks, groups, model.weights.value);
  const { self } = groupWeights(stacks, shown, model.weights.value);
  const rows: LineFigures[] = [];
  for (let frame = 0; frame < groups.count; frame += 1) {
    if (report.frameFunction[frame] === func && total[frame] > 0) {
      rows.push({ line: report.frameLine[frame], self: self[frame], total: total[frame] });
    }
  }
  return rows.sort((one, other) => one.line - other.line);
}

function without(hidden: Uint8Array, func: number): Uint8Array {
  const made = hidden.slice();
  if (func >= 0) {
    made[func] = 0;
  }
  return made;
}

function sourceOf({ report }: Model, func: number): Record<string, string> | null {
  const place = report.sources.ofFunction[func];
  return place === undefined ? null : report.sources.texts[place];
}

// From the line of "def" to a little after the last sampled one, as far as the text is there.
function withSource(sampled: LineFigures[], source: Record<string, string>, first: number): LineFigures[] {
  const figures = new Map(sampled.map((each) => [each.line, each]));
  const lines = sampled.map((each) => each.line).filter((line) => line > 0);
  const last = Math.max(first, ...lines) + AROUND;
  for (let line = Math.max(1, Math.min(first || 1, ...lines)); line <= last; line += 1) {
    if (!figures.has(line) && source[line] !== undefined) {
      figures.set(line, { line, self: 0, total: 0 });
    }
  }
  return [...figures.values()].sort((one, other) => one.line - other.line);
}

function Suggestions({ model, func }: { model: Model; func: number }) {
  const { report, stacks, state } = model;
  const groups = groupsOf(report, stacks, "function", model.hidden.value);
  const { self } = groupWeights(stacks, groups, model.weights.value);
  const hottest = [...self.keys()]
    .filter((each) => self[each] > 0 && report.functions.kind[each] === Kind.Python)
    .sort((one, other) => self[other] - self[one])
    .slice(0, SUGGESTED);
  return (
    <div class="lines scroll" tabIndex={0}>
      <p class="empty">
        {func < 0
          ? "Choose a Python function, in the graph or in the table, to see its lines."
          : "Lines are known of Python functions only; this one is not."}{" "}
        {hottest.length ? "The busiest by themselves:" : ""}
      </p>
      <ol class="suggested">
        {hottest.map((each) => (
          <li key={each}>
            <button
              type="button"
              class="bare"
              onClick={() => {
                state.selected.value = { grouping: "function", key: each };
              }}
            >
              <bdi>{report.functions.label[each]}</bdi>
            </button>{" "}
            <span class="soft">{percent(self[each], model.weights.value.all)}</span>
          </li>
        ))}
      </ol>
    </div>
  );
}
