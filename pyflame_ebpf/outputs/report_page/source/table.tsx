// The table: self and total of functions, lines, modules, processes or threads.

import { batch } from "@preact/signals";
import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useLayoutEffect, useReducer, useRef } from "preact/hooks";
import { changeInWords, figure, signedFigure, type Change } from "./comparison";
import { functionOf, isBeyondNoise, rowChange, type Model, type TableRow } from "./model";
import { GROUPINGS, type Grouping } from "./stacks";
import type { Row, Sort } from "./state";
import { grouped, percent, plural, rowText, seconds } from "./words";

const ROW = 24;
const PRINTED = 40;
const NAMES: Record<Grouping, string> = {
  function: "Function",
  line: "Line",
  module: "Module",
  process: "Process",
  thread: "Thread",
};

export function Table({ model }: { model: Model }) {
  const { state } = model;
  const rows = model.shownRows.value;
  const grouping = state.grouping.value;
  return (
    <section class="pane table" aria-label="Table">
      <header>
        <label class="choice">
          <span>By</span>
          <select
            value={grouping}
            onChange={(event) => {
              state.grouping.value = event.currentTarget.value as Grouping;
            }}
          >
            {GROUPINGS.map((each) => (
              <option key={each} value={each}>
                {NAMES[each].toLowerCase()}
              </option>
            ))}
          </select>
        </label>
        <label class="seek">
          <input
            id="filter"
            type="text"
            placeholder="Filter rows  ( f )"
            aria-label="Filter the rows of the table"
            autocomplete="off"
            spellcheck={false}
            value={state.filter.value}
            onInput={(event) => {
              state.filter.value = event.currentTarget.value;
            }}
          />
          <output>{state.filter.value ? `${grouped(rows.length)} of ${grouped(model.rows.value.length)}` : grouped(rows.length)}</output>
        </label>
        {model.report.compared ? (
          <span class="set">
            <button
              type="button"
              class="toggle"
              aria-pressed={state.withCallees.value}
              title="What each used itself, or with what it called"
              onClick={() => (state.withCallees.value = !state.withCallees.value)}
            >
              With callees
            </button>
          </span>
        ) : null}
        <button type="button" class="icon" title="Close the table (t)" aria-label="Close the table" onClick={() => closeTable(model)}>
          ✕
        </button>
      </header>
      <div class={model.report.compared ? "grid compared" : "grid"} role="table" aria-rowcount={rows.length + 1} aria-label={`${NAMES[grouping]}s by CPU`}>
        <div role="rowgroup">
          <div class="line head" role="row" aria-rowindex={1}>
            <Head model={model} sort="name" text={NAMES[grouping]} />
            {model.report.compared ? <ChangeHeads model={model} /> : <SampleHeads model={model} />}
          </div>
        </div>
        {rows.length === 0 ? <Nothing model={model} /> : <Body model={model} rows={rows} />}
      </div>
    </section>
  );
}

function SampleHeads({ model }: { model: Model }) {
  return (
    <>
      <Head model={model} sort="self" text="Self" unit="%" />
      <Head model={model} sort="self" text="s" unit="" quiet />
      <Head model={model} sort="total" text="Total" unit="%" />
      <Head model={model} sort="total" text="s" unit="" quiet />
    </>
  );
}

function ChangeHeads({ model }: { model: Model }) {
  const unit = model.state.shares.value ? "%" : "cores";
  return (
    <>
      <Head model={model} sort="before" text="Before" />
      <Head model={model} sort="after" text="After" />
      <Head model={model} sort="change" text="Change" />
      <Head model={model} sort="change" text={`± ${unit}`} quiet />
    </>
  );
}

function closeTable({ state }: Model): void {
  state.showTable.value = false;
  state.showGraph.value = true;
}

function Nothing({ model }: { model: Model }) {
  const { state } = model;
  if (model.rows.value.length) {
    return (
      <p class="empty">
        No {NAMES[state.grouping.value].toLowerCase()} is called like that.{" "}
        <button type="button" class="quiet" onClick={() => (state.filter.value = "")}>
          Show all {grouped(model.rows.value.length)}
        </button>
      </p>
    );
  }
  return <p class="empty">{model.weights.value.all ? "All of these frames are hidden." : "Nothing was sampled in this range."}</p>;
}

function Head({ model, sort, text, quiet }: { model: Model; sort: Sort; text: string; unit?: string; quiet?: boolean }) {
  const { state } = model;
  const isSorted = state.sort.value === sort;
  const direction = isSorted ? (state.ascending.value ? "ascending" : "descending") : "none";
  return (
    <span role="columnheader" aria-sort={quiet ? undefined : direction} class={sort === "name" ? "name" : "figure"}>
      <button type="button" class="bare" onClick={() => sortBy(model, sort)}>
        {text}
        {isSorted && !quiet ? (state.ascending.value ? " ↑" : " ↓") : ""}
      </button>
    </span>
  );
}

export function sortBy({ state }: Model, sort: Sort): void {
  batch(() => {
    state.ascending.value = state.sort.value === sort ? !state.ascending.value : sort === "name";
    state.sort.value = sort;
  });
}

function Body({ model, rows }: { model: Model; rows: TableRow[] }) {
  const scroller = useRef<HTMLDivElement>(null);
  const list = useVirtual(scroller, rows.length);
  const { state } = model;
  const printing = state.printing.value;
  const selected = state.selected.value;

  // A row that is chosen elsewhere is brought into view.
  useEffect(() => {
    const at = selected ? rows.findIndex((row) => isRow(model, row, selected)) : -1;
    if (at >= 0 && !scroller.current?.contains(document.activeElement)) {
      list.scrollToIndex(at, { align: "auto" });
    }
  }, [selected, rows]);

  const shown = printing
    ? rows.slice(0, PRINTED).map((_, index) => ({ index, start: index * ROW }))
    : list.getVirtualItems();
  return (
    <div
      class="body"
      role="rowgroup"
      aria-label="Rows. Up and down arrows choose one, Enter opens it."
      ref={scroller}
      tabIndex={0}
      onKeyDown={(event) => moveRow(model, rows, event, (at) => list.scrollToIndex(at, { align: "auto" }))}
      onMouseLeave={() => {
        state.pointedRow.value = null;
      }}
    >
      <div class="rows" role="presentation" style={{ height: `${printing ? shown.length * ROW : list.getTotalSize()}px` }}>
        {shown.map(({ index, start }) => (
          <Line key={rows[index].key} model={model} row={rows[index]} index={index} top={start} />
        ))}
      </div>
      {printing && rows.length > PRINTED ? <p class="empty">and {grouped(rows.length - PRINTED)} more</p> : null}
    </div>
  );
}

function Line({ model, row, index, top }: { model: Model; row: TableRow; index: number; top: number }) {
  const { state } = model;
  const sides = model.sides.value;
  const own = { grouping: state.grouping.value, key: row.key };
  const selected = state.selected.value;
  const pointed = state.pointedBox.value;
  const classes = ["line"];
  if (selected && isRow(model, row, selected)) {
    classes.push("selected");
  }
  if (pointed && isRow(model, row, pointed)) {
    classes.push("pointed");
  }
  return (
    <div
      class={classes.join(" ")}
      role="row"
      aria-rowindex={index + 2}
      aria-current={classes.includes("selected") ? "true" : undefined}
      style={{ transform: `translateY(${top}px)` }}
      onMouseEnter={() => {
        state.pointedRow.value = own;
        state.details.value = detailsOf(model, row);
      }}
      onClick={() => {
        state.selected.value = selected && isRow(model, row, selected) ? null : own;
      }}
      onDblClick={() => open(model, own)}
    >
      <span role="cell" class="name" title={row.text}>
        <Mark model={model} row={own} />
        <bdi>{row.text}</bdi>
      </span>
      {sides ? <ChangeFigures model={model} change={rowChange(model, sides, row)} /> : <SampleFigures model={model} row={row} />}
    </div>
  );
}

function SampleFigures({ model, row }: { model: Model; row: TableRow }) {
  const all = model.weights.value.all;
  const recording = model.recording.value;
  return (
    <>
      <Figure samples={row.self} all={all}>{percent(row.self, all).replace(" %", "")}</Figure>
      <span role="cell" class="figure">{row.self ? seconds(row.self, recording).replace(" s", "") : "–"}</span>
      <Figure samples={row.total} all={all}>{percent(row.total, all).replace(" %", "")}</Figure>
      <span role="cell" class="figure">{seconds(row.total, recording).replace(" s", "")}</span>
    </>
  );
}

function ChangeFigures({ model, change }: { model: Model; change: Change }) {
  const shares = model.state.shares.value;
  const kind = !isBeyondNoise(model, change) ? "noise" : change.change > 0 ? "grew" : "shrank";
  return (
    <>
      <span role="cell" class={`figure ${kind}`}>{figure(change.before, shares)}</span>
      <span role="cell" class={`figure ${kind}`}>{figure(change.after, shares)}</span>
      <span role="cell" class={`figure ${kind}`}>
        {kind === "noise" ? "~ " : ""}
        <b>{signedFigure(change.change, shares)}</b>
      </span>
      <span role="cell" class={`figure ${kind}`}>±{figure(change.error, shares)}</span>
    </>
  );
}

function Mark({ model, row }: { model: Model; row: Row }) {
  const { functions } = model.report;
  const func = functionOf(model.report, row);
  if (func < 0) {
    return null;
  }
  const palette = model.palette.value;
  const colour = [palette.python[0], palette.native[0], palette.kernel[0], palette.markLine][functions.kind[func]];
  const kind = ["Python", "native", "kernel", "gap in the stack"][functions.kind[func]];
  return <i class="kind" title={kind} style={{ background: colour }} />;
}

function Figure({ samples, all, children }: { samples: number; all: number; children: ComponentChildren }) {
  const width = all ? (100 * samples) / all : 0;
  return (
    <span role="cell" class="figure share">
      <i style={{ width: `${width}%` }} />
      <b>{samples ? children : "–"}</b>
    </span>
  );
}

export function detailsOf(model: Model, row: TableRow): readonly [string, string] {
  const all = model.weights.value.all;
  const recording = model.recording.value;
  const sides = model.sides.value;
  if (sides) {
    return [row.text, changeInWords(rowChange(model, sides, row), model.state.shares.value)];
  }
  const time = (samples: number) => (recording.frequency ? `, ${seconds(samples, recording)}` : "");
  return [
    row.text,
    `${percent(row.self, all)} itself${time(row.self)}  ·  ${percent(row.total, all)} with what it calls${time(row.total)}` +
      `  ·  ${plural(row.total, "sample")}`,
  ];
}

// Whether a row of the table stands for what is selected, or for the function of it.
function isRow(model: Model, row: TableRow, wanted: Row): boolean {
  const grouping = model.state.grouping.value;
  if (grouping === wanted.grouping) {
    return row.key === wanted.key;
  }
  const func = functionOf(model.report, wanted);
  if (func < 0) {
    return false;
  }
  if (grouping === "module") {
    return model.report.functions.module[func] === row.key;
  }
  return functionOf(model.report, { grouping, key: row.key }) === func;
}

// What a double click and Enter do: a process or thread becomes a filter, a function shows its callers and callees.
export function open(model: Model, row: Row): void {
  const { state } = model;
  batch(() => {
    state.selected.value = row;
    if (row.grouping === "process") {
      state.processes.value = new Set([row.key]);
      state.threads.value = new Set();
    } else if (row.grouping === "thread") {
      state.threads.value = new Set([row.key]);
      state.processes.value = new Set();
    } else if (row.grouping === "module") {
      state.grouping.value = "function";
      state.filter.value = rowText(model.report, "module", row.key).replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
    } else {
      state.mode.value = "sandwich";
      state.showGraph.value = true;
    }
  });
}

function moveRow(model: Model, rows: TableRow[], event: KeyboardEvent, reveal: (at: number) => void): void {
  const { state } = model;
  const now = state.selected.value;
  const at = now ? rows.findIndex((row) => isRow(model, row, now)) : -1;
  const steps: Record<string, number> = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 15, PageUp: at - 15, Home: 0, End: rows.length - 1 };
  if (event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (event.key in steps) {
    const next = Math.max(0, Math.min(steps[event.key], rows.length - 1));
    state.selected.value = { grouping: state.grouping.value, key: rows[next].key };
    state.details.value = detailsOf(model, rows[next]);
    reveal(next);
  } else if (event.key === "Enter" && at >= 0) {
    open(model, { grouping: state.grouping.value, key: rows[at].key });
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

function useVirtual(scroller: RefObject<HTMLDivElement | null>, count: number): Virtualizer<HTMLDivElement, Element> {
  const [, redraw] = useReducer((turn: number, _: void) => turn + 1, 0);
  const made = useRef<Virtualizer<HTMLDivElement, Element> | null>(null);
  const options = {
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW,
    overscan: 8,
    scrollToFn: elementScroll,
    observeElementRect,
    observeElementOffset,
    onChange: () => redraw(undefined),
  };
  made.current ??= new Virtualizer<HTMLDivElement, Element>(options);
  made.current.setOptions(options);
  useLayoutEffect(() => made.current!._didMount(), []);
  useLayoutEffect(() => made.current!._willUpdate());
  return made.current;
}
