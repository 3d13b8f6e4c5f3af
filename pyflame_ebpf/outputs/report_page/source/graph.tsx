// The pane beside the table: flame graph, callers and callees, or the lines of one function, with what steers them.

import { batch, computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Flame } from "./flame";
import { Lines } from "./lines";
import { functionOf, matchedSamples, rowOf, type Model } from "./model";
import type { Colour, Mode } from "./state";
import { Panel, Tabs } from "./tabs";
import { treeWeights, type TopLevel, type Tree } from "./tree";
import { percent, rowText, seconds } from "./words";

const MODES: [Mode, string, string][] = [
  ["flame", "Flame graph", "Everything from the process inwards (1)"],
  ["sandwich", "Callers & callees", "Of the selected function (2)"],
  ["lines", "Lines", "Of the selected Python function (3)"],
];

export function Graph({ model }: { model: Model }) {
  const { state } = model;
  const mode = state.mode.value;
  return (
    <section class="pane flame" aria-label="Graph">
      <header>
        <Tabs
          id="mode"
          label="What the pane shows"
          tabs={MODES.map(([name, text, title]) => ({ name, text, title }))}
          chosen={mode}
          choose={(name) => (state.mode.value = name)}
        />
        {mode === "lines" ? <span class="gap" /> : <Search model={model} />}
        <button type="button" class="icon" title="Close the graph (g)" aria-label="Close the graph" onClick={() => closeGraph(model)}>
          ✕
        </button>
      </header>
      <Panel id="mode" chosen={mode}>
        {mode === "lines" ? null : <Choices model={model} />}
        <Selected model={model} />
        {mode === "flame" ? <Whole model={model} /> : mode === "sandwich" ? <Sandwich model={model} /> : <Lines model={model} />}
      </Panel>
    </section>
  );
}

function closeGraph({ state }: Model): void {
  state.showGraph.value = false;
  state.showTable.value = true;
}

function Search({ model }: { model: Model }) {
  const { state } = model;
  return (
    <label class="seek">
      <input
        id="search"
        type="text"
        placeholder="Search: regular expression  ( / )"
        aria-label="Search by regular expression"
        autocomplete="off"
        spellcheck={false}
        value={state.search.value}
        onInput={(event) => {
          state.search.value = event.currentTarget.value;
        }}
      />
      <Matched model={model} />
    </label>
  );
}

function Matched({ model }: { model: Model }) {
  const { wrong, matches } = model.search.value;
  if (wrong) {
    return <output class="share wrong">not a regular expression</output>;
  }
  if (!matches) {
    return <output class="share" />;
  }
  const tree = model.tree.value;
  const weights = model.treeWeights.value;
  const zoom = zoomedNode(model, tree);
  const all = percent(matchedSamples(tree, weights, matches), model.weights.value.all);
  const here = zoom > 0 ? percent(matchedSamples(tree, weights, matches, zoom), weights.total[zoom]) : "";
  return <output class="share">{here ? `${here} here, ${all} of all` : `${all} matched`}</output>;
}

// The node of the tree that the state's zoom stands for; everything where that is not to be seen.
export function zoomedNode(model: Model, tree: Tree): number {
  const zoom = model.state.zoom.value;
  const node = zoom < 0 ? 0 : tree.nodeOf[zoom];
  return node > 0 && model.treeWeights.value.total[node] > 0 ? node : 0;
}

function Choices({ model }: { model: Model }) {
  const { state } = model;
  return (
    <div class="choices">
      <span class="set" role="group" aria-label="Frames shown">
        <Toggle value={state.native} text="Native" title="Frames of C functions (n)" />
        <Toggle value={state.kernel} text="Kernel" title="Frames of the kernel (k)" />
        <Toggle value={state.library} text="Library" title="Python frames of the standard library and of installed packages (l)" />
        <Toggle value={state.plumbing} text="Plumbing" title="The interpreter's own call plumbing (p)" />
      </span>
      <span class="set" role="group" aria-label="Shape">
        <Toggle value={state.fold} text="Fold recursion" title="A function that calls itself as one box (r)" />
        <Toggle value={state.lineFrames} text="By line" title="A box for each executing line instead of each function" />
        <Toggle value={state.threadFrames} text="Threads" title="A box for each thread" />
        {state.mode.value === "flame" ? <Toggle value={state.icicle} text="Icicle" title="Root at the top (i)" /> : null}
      </span>
      <label class="choice">
        <span>Root</span>
        <select value={state.top.value} onChange={(event) => (state.top.value = event.currentTarget.value as TopLevel)}>
          <option value="process">process</option>
          <option value="command">command</option>
          <option value="interpreter">interpreter</option>
          <option value="none">none</option>
        </select>
      </label>
      <label class="choice">
        <span>Colour</span>
        <select value={state.colour.value} onChange={(event) => (state.colour.value = event.currentTarget.value as Colour)}>
          {model.report.compared ? <option value="change">by change</option> : null}
          <option value="kind">by kind</option>
          <option value="module">by module</option>
          <option value="process">by process</option>
        </select>
      </label>
      {state.zoom.value >= 0 && state.mode.value === "flame" ? (
        <button type="button" class="quiet" title="Show everything again (Esc)" onClick={() => (state.zoom.value = -1)}>
          Reset zoom
        </button>
      ) : null}
    </div>
  );
}

function Toggle({ value, text, title }: { value: Signal<boolean>; text: string; title: string }) {
  return (
    <button type="button" class="toggle" aria-pressed={value.value} title={title} onClick={() => (value.value = !value.value)}>
      {text}
    </button>
  );
}

// The row that is selected, and what can be done with it.
function Selected({ model }: { model: Model }) {
  const { state, report } = model;
  const selected = state.selected.value;
  if (!selected) {
    return null;
  }
  const func = functionOf(report, selected);
  return (
    <div class="chosen-row">
      <i class="lit" />
      <b title={rowText(report, selected.grouping, selected.key)}>
        <bdi>{rowText(report, selected.grouping, selected.key)}</bdi>
      </b>
      {func >= 0 ? (
        <>
          <button type="button" class="quiet" disabled={state.mode.value === "sandwich"} onClick={() => (state.mode.value = "sandwich")}>
            Callers & callees
          </button>
          {report.functions.kind[func] === 0 ? (
            <button type="button" class="quiet" disabled={state.mode.value === "lines"} onClick={() => (state.mode.value = "lines")}>
              Lines
            </button>
          ) : null}
        </>
      ) : null}
      <button type="button" class="icon" aria-label="Select nothing" title="Select nothing (Esc)" onClick={() => (state.selected.value = null)}>
        ✕
      </button>
    </div>
  );
}

function Whole({ model }: { model: Model }) {
  const { state } = model;
  const zoom = useMemo(() => computed(() => zoomedNode(model, model.tree.value)), []);
  const choose = (node: number) => {
    const tree = model.tree.value;
    batch(() => {
      state.zoom.value = node === 0 ? -1 : tree.example[node];
      const row = rowOf(model, tree, node);
      state.selected.value = row && functionOf(model.report, row) >= 0 ? row : null;
    });
  };
  if (model.weights.value.all === 0) {
    return <p class="empty">Nothing was sampled in this range. Choose a longer one, or remove a filter.</p>;
  }
  return (
    <>
      <Flame
        model={model}
        name="Flame graph"
        main
        tree={model.tree}
        weights={model.treeWeights}
        rootAtTop={state.icicle}
        zoom={zoom}
        chosen={choose}
      />
    </>
  );
}

const top = signal(true);
const bottom = signal(false);
const root = signal(0);

function Sandwich({ model }: { model: Model }) {
  const { report, state } = model;
  const func = model.selectedFunction.value;
  const sides = useMemo(() => {
    const weighed = (tree: ReadonlySignal<Tree | null>) =>
      computed(() => (tree.value ? treeWeights(tree.value, model.weights.value) : null));
    return { callers: weighed(model.callers), callees: weighed(model.callees) };
  }, []);
  if (func < 0) {
    return <p class="empty">Choose a function, in the flame graph or in the table, to see who calls it and what it calls.</p>;
  }
  const total = sides.callers.value?.total[0] ?? 0;
  const recentre = (tree: Tree | null) => (node: number) => {
    const row = tree && rowOf(model, tree, node);
    if (row && functionOf(report, row) >= 0) {
      state.selected.value = { grouping: "function", key: functionOf(report, row) };
    }
  };
  if (!total) {
    return <p class="empty">This function was not sampled in this range.</p>;
  }
  return (
    <div class="sandwich">
      <h3>
        Callers <span class="soft">outermost at the top</span>
      </h3>
      <Flame
        model={model}
        name="Callers"
        tree={model.callers}
        weights={sides.callers}
        rootAtTop={bottom}
        zoom={root}
        chosen={(node) => recentre(model.callers.value)(node)}
      />
      <h3>
        Callees{" "}
        <span class="soft">
          of <bdi>{report.functions.label[func]}</bdi>: {percent(total, model.weights.value.all)} of all
          {model.recording.value.frequency ? `, ${seconds(total, model.recording.value)}` : ""}
        </span>
      </h3>
      <Flame
        model={model}
        name="Callees"
        tree={model.callees}
        weights={sides.callees}
        rootAtTop={top}
        zoom={root}
        chosen={(node) => recentre(model.callees.value)(node)}
      />
    </div>
  );
}
