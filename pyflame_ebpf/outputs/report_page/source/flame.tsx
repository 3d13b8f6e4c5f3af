// The flame graph's place in the page: a canvas that follows the model, with mouse and keyboard.

import { computed, effect, type ReadonlySignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { FlameCanvas, ROW, type Place } from "./canvas";
import { changeInWords } from "./comparison";
import { Kind } from "./data";
import { boxChange, colouring, litNodes, rowOf, type Model } from "./model";
import type { Row } from "./state";
import { labelsOf, type Tree, type TreeWeights } from "./tree";
import { grouped, percent, seconds } from "./words";

interface Props {
  model: Model;
  name: string; // for those who do not see it
  tree: ReadonlySignal<Tree | null>;
  weights: ReadonlySignal<TreeWeights | null>;
  rootAtTop: ReadonlySignal<boolean>;
  zoom: ReadonlySignal<number>; // node of the tree
  chosen: (node: number) => void; // a box was clicked
  main?: boolean;
}

// What is drawn, for tests: the canvas itself tells nothing.
export interface DrawnBox {
  text: string;
  left: number;
  top: number;
  width: number;
  samples: number;
  colour: string;
  lit: boolean;
  found: boolean;
}

export function Flame({ model, name, tree, weights, rootAtTop, zoom, chosen, main }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const spacer = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const drawn = useRef<FlameCanvas | null>(null);

  useEffect(() => {
    const flame = new FlameCanvas(scroller.current!, spacer.current!, canvas.current!);
    drawn.current = flame;
    Object.assign(scroller.current!, {
      boxes: () => drawnBoxes(flame, scroller.current!),
      focusWidest: () => focusWidestMatch(model, flame),
    });
    // Looked for in all stacks: not anew for every row that the mouse passes.
    const litBySelection = computed(() => (tree.value ? litNodes(model, tree.value, model.state.selected.value) : null));
    const show = () => showIn(model, flame, tree.value, weights.value, rootAtTop.value, zoom.value, litBySelection.value);
    const stop = effect(show);
    const resized = new ResizeObserver(show);
    resized.observe(scroller.current!);
    return () => {
      stop();
      resized.disconnect();
    };
  }, []);

  const point = (place: Place | null) => {
    const flame = drawn.current!;
    if (place?.node === flame.pointed?.node && place?.left === flame.pointed?.left) {
      return;
    }
    flame.pointed = place;
    model.state.pointedBox.value = place && place.node >= 0 ? rowOf(model, flame.scene!.tree, place.node) : null;
    describe(model, flame, place ?? flame.focused);
    flame.draw();
  };

  const keyed = (event: KeyboardEvent) => {
    const flame = drawn.current!;
    const inwards = rootAtTop.value ? "ArrowDown" : "ArrowUp";
    const direction = (
      { ArrowLeft: "left", ArrowRight: "right", [inwards]: "inwards", [inwards === "ArrowUp" ? "ArrowDown" : "ArrowUp"]: "outwards" } as const
    )[event.key];
    if (direction && !event.ctrlKey && !event.altKey && !event.metaKey) {
      describe(model, flame, flame.move(direction as "left"));
    } else if (event.key === "Enter" && flame.focused && flame.focused.node >= 0) {
      chosen(flame.focused.node);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <div
      ref={scroller}
      class={`graph${main ? " main" : ""}`}
      tabIndex={0}
      role="application"
      aria-label={`${name}. Arrow keys move between boxes, Enter chooses one.`}
      onScroll={() => drawn.current?.draw()}
      onKeyDown={keyed}
    >
      <div ref={spacer} class="rows">
        <canvas
          ref={canvas}
          onMouseMove={(event) => point(drawn.current!.under(event))}
          onMouseLeave={() => point(null)}
          onClick={(event) => {
            const place = drawn.current!.under(event);
            if (place && place.node >= 0) {
              drawn.current!.focused = place;
              chosen(place.node);
            }
          }}
        />
      </div>
    </div>
  );
}

function showIn(
  model: Model,
  flame: FlameCanvas,
  tree: Tree | null,
  weights: TreeWeights | null,
  rootAtTop: boolean,
  zoom: number,
  litBySelection: Uint8Array | null,
): void {
  const { state, report } = model;
  const selected = state.selected.value;
  const pointed = state.pointedRow.value;
  const palette = model.palette.value;
  const { matches } = model.search.value;
  if (!tree || !weights) {
    return;
  }
  const { functionsAt, framesAt } = labelsOf(report);
  const isMark = (label: number) => {
    const func = label >= framesAt ? report.frameFunction[label - framesAt] : label - functionsAt;
    return report.functions.kind[func] === Kind.Mark;
  };
  flame.show({
    tree,
    weights,
    zoom,
    rootAtTop,
    colour: colouring(model, tree),
    palette,
    label: model.label,
    isMark,
    matches,
    lit: both(litBySelection, same(selected, pointed) ? null : litNodes(model, tree, pointed)),
  });
}

function same(one: Row | null, other: Row | null): boolean {
  return one?.grouping === other?.grouping && one?.key === other?.key;
}

function both(one: Uint8Array | null, other: Uint8Array | null): Uint8Array | null {
  return one && other ? one.map((each, index) => each | other[index]) : (one ?? other);
}

function describe(model: Model, flame: FlameCanvas, place: Place | null): void {
  if (!place) {
    model.state.details.value = ["", ""];
    return;
  }
  const { tree, weights } = flame.scene!;
  const recording = model.recording.value;
  const all = model.weights.value.all;
  if (place.node < 0) {
    const words = `${grouped(place.samples)} samples  ·  ${percent(place.samples, all)} of all`;
    model.state.details.value = [`${grouped(place.merged)} functions too narrow to show; zoom in to see them`, words];
    return;
  }
  const sides = model.sides.value;
  if (sides) {
    const change = boxChange(model, sides, tree, place.node);
    model.state.details.value = [model.label(tree.label[place.node]), changeInWords(change, model.state.shares.value)];
    return;
  }
  const parent = tree.parent[place.node];
  const parts = [
    `${grouped(place.samples)} sample${place.samples === 1 ? "" : "s"}`,
    `${percent(place.samples, all)} of all`,
    parent >= 0 ? `${percent(place.samples, weights.total[parent])} of its parent` : "",
    `${percent(weights.self[place.node], all)} itself`,
    recording.frequency ? `${seconds(place.samples, recording)} of CPU` : "",
  ];
  model.state.details.value = [model.label(tree.label[place.node]), parts.filter(Boolean).join("  ·  ")];
}

function focusWidestMatch(model: Model, flame: FlameCanvas): void {
  const { matches } = model.search.value;
  const found = matches && flame.widest((node) => matches(flame.scene!.tree.label[node]));
  if (found) {
    flame.focus(found);
    describe(model, flame, found);
  }
}

function drawnBoxes(flame: FlameCanvas, scroller: HTMLElement): DrawnBox[] {
  const { scene, boxes } = flame;
  const corner = scroller.querySelector("canvas")!.getBoundingClientRect();
  if (!scene || !boxes) {
    return [];
  }
  return boxes.rows.flatMap((row, depth) =>
    row.node.flatMap((node, at) => {
      const place = flame.place(depth, at);
      const top = corner.top + place.top - scroller.scrollTop;
      const label = node < 0 ? 0 : scene.tree.label[node];
      return node < 0 || top + ROW <= corner.top || top >= corner.bottom
        ? []
        : [
            {
              text: scene.label(label),
              left: corner.left + place.left,
              top,
              width: place.width,
              samples: place.samples,
              colour: scene.colour(node),
              lit: scene.lit?.[node] === 1,
              found: scene.matches?.(label) ?? false,
            },
          ];
    }),
  );
}
