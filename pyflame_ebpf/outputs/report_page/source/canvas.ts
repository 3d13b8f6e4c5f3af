// A flame graph on a canvas: draws the rows in view, knows what is where, and moves the focus from box to box.

import { boxAt, layOut, type Boxes } from "./boxes";
import type { Palette } from "./palette";
import type { Tree, TreeWeights } from "./tree";

export const ROW = 18;
const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Ubuntu, 'Noto Sans', sans-serif";
const LEAST_WORDS = 24; // pixels

export interface Scene {
  tree: Tree;
  weights: TreeWeights;
  zoom: number;
  rootAtTop: boolean;
  colour: (node: number) => string;
  palette: Palette;
  label: (label: number) => string;
  isMark: (label: number) => boolean;
  matches: ((label: number) => boolean) | null;
  lit: Uint8Array | null;
}

// A box in the graph's own pixels, counted from the top of all its rows.
export interface Place {
  node: number; // -1: callees merged into one box
  depth: number;
  at: number;
  left: number;
  top: number;
  width: number;
  samples: number;
  merged: number;
}

export class FlameCanvas {
  scene: Scene | null = null;
  boxes: Boxes | null = null;
  focused: Place | null = null;
  pointed: Place | null = null;
  width = 0;
  private height = 0;
  private readonly pen: CanvasRenderingContext2D;
  private readonly widths = new Map<string, number>();

  constructor(
    private readonly scroller: HTMLElement,
    private readonly spacer: HTMLElement,
    private readonly canvas: HTMLCanvasElement,
  ) {
    this.pen = canvas.getContext("2d")!;
  }

  show(scene: Scene): void {
    const before = this.scene;
    const width = Math.max(this.scroller.clientWidth, 50);
    const moved =
      !before ||
      !this.boxes ||
      before.tree !== scene.tree ||
      before.weights !== scene.weights ||
      before.zoom !== scene.zoom ||
      width !== this.width;
    const turned = before?.rootAtTop !== scene.rootAtTop;
    this.scene = scene;
    this.width = width;
    if (moved) {
      this.boxes = layOut(scene.tree, scene.weights, scene.zoom, width);
      this.focused = this.find(before?.tree === scene.tree ? (this.focused?.node ?? -1) : -1);
      this.pointed = null;
    }
    const height = this.boxes!.rows.length * ROW;
    this.spacer.style.height = `${height}px`;
    if (moved || turned) {
      this.scroller.scrollTop = scene.rootAtTop ? 0 : height;
      this.focused = this.find(this.focused?.node ?? -1);
    } else if (!scene.rootAtTop) {
      this.scroller.scrollTop += this.height - this.scroller.clientHeight; // what was at the bottom stays there
    }
    this.height = this.scroller.clientHeight;
    this.draw();
  }

  draw(): void {
    const { scene, boxes, pen } = this;
    if (!scene || !boxes) {
      return;
    }
    const height = Math.min(this.scroller.clientHeight, Math.max(boxes.rows.length * ROW, 1));
    this.resize(this.width, height);
    const scrolled = this.scroller.scrollTop;
    pen.clearRect(0, 0, this.width, height);
    pen.font = FONT;
    pen.textBaseline = "middle";
    for (let line = Math.floor(scrolled / ROW); line * ROW < scrolled + height; line += 1) {
      const depth = this.depthOf(line);
      if (depth >= 0 && depth < boxes.rows.length) {
        this.drawRow(scene, boxes, depth, line * ROW - scrolled);
      }
    }
    this.outline(this.pointed, scene.palette.ink, 1.5, scrolled);
    this.outline(this.focused, scene.palette.accent, 2.5, scrolled);
  }

  private resize(width: number, height: number): void {
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  private drawRow(scene: Scene, boxes: Boxes, depth: number, top: number): void {
    const { pen } = this;
    const row = boxes.rows[depth];
    const { palette, tree } = scene;
    const isAbove = depth < this.zoomDepth();
    for (let at = 0; at < row.node.length; at += 1) {
      const node = row.node[at];
      const width = Math.max(row.width[at] - (row.width[at] > 3 ? 1 : 0.2), 0.5);
      if (node < 0) {
        pen.globalAlpha = 1;
        pen.fillStyle = palette.rest;
        pen.fillRect(row.left[at], top, width, ROW - 1);
        continue;
      }
      const found = scene.matches !== null && scene.matches(tree.label[node]);
      const lit = scene.lit !== null && scene.lit[node] === 1;
      pen.globalAlpha = !found && !lit && (scene.matches !== null || isAbove) ? 0.42 : 1;
      pen.fillStyle = found ? palette.found : lit ? palette.lit : scene.colour(node);
      pen.fillRect(row.left[at], top, width, ROW - 1);
      if (found && lit) {
        pen.fillStyle = palette.lit;
        pen.fillRect(row.left[at], top + ROW - 4, width, 3);
      }
      if (scene.isMark(tree.label[node]) && width > 3) {
        pen.strokeStyle = palette.markLine;
        pen.lineWidth = 1;
        pen.setLineDash([3, 2]);
        pen.strokeRect(row.left[at] + 0.5, top + 0.5, width - 1, ROW - 2);
        pen.setLineDash([]);
      }
      if (width >= LEAST_WORDS) {
        pen.globalAlpha = pen.globalAlpha < 1 ? 0.7 : 1;
        pen.fillStyle = found ? palette.foundInk : lit ? palette.litInk : palette.ink;
        const words = this.fitted(scene.label(tree.label[node]), width - 8);
        if (words) {
          pen.fillText(words, row.left[at] + 4, top + ROW / 2);
        }
      }
    }
    pen.globalAlpha = 1;
  }

  private fitted(text: string, room: number): string {
    if (this.measured(text) <= room) {
      return text;
    }
    let low = 0;
    let high = Math.min(text.length, Math.ceil(room / 3));
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.pen.measureText(`${text.slice(0, middle)}…`).width <= room) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low > 1 ? `${text.slice(0, low)}…` : "";
  }

  private measured(text: string): number {
    let width = this.widths.get(text);
    if (width === undefined) {
      width = this.pen.measureText(text).width;
      this.widths.set(text, width);
    }
    return width;
  }

  private outline(place: Place | null, colour: string, thickness: number, scrolled: number): void {
    if (place) {
      this.pen.strokeStyle = colour;
      this.pen.lineWidth = thickness;
      const inset = thickness / 2;
      const width = Math.max(place.width - 1 - thickness, 1);
      this.pen.strokeRect(place.left + inset, place.top - scrolled + inset, width, ROW - 1 - thickness);
    }
  }

  private zoomDepth(): number {
    let depth = 0;
    for (let node = this.boxes!.zoom; this.scene!.tree.parent[node] >= 0; node = this.scene!.tree.parent[node]) {
      depth += 1;
    }
    return depth;
  }

  private depthOf(line: number): number {
    return this.scene!.rootAtTop ? line : this.boxes!.rows.length - 1 - line;
  }

  place(depth: number, at: number): Place {
    const row = this.boxes!.rows[depth];
    const line = this.scene!.rootAtTop ? depth : this.boxes!.rows.length - 1 - depth;
    return {
      node: row.node[at],
      depth,
      at,
      left: row.left[at],
      top: line * ROW,
      width: row.width[at],
      samples: row.samples[at],
      merged: row.merged[at],
    };
  }

  under(event: MouseEvent): Place | null {
    if (!this.boxes) {
      return null;
    }
    const corner = this.canvas.getBoundingClientRect();
    const depth = this.depthOf(Math.floor((event.clientY - corner.top + this.scroller.scrollTop) / ROW));
    if (depth < 0 || depth >= this.boxes.rows.length) {
      return null;
    }
    const at = boxAt(this.boxes.rows[depth], event.clientX - corner.left);
    return at < 0 ? null : this.place(depth, at);
  }

  find(node: number): Place | null {
    if (node < 0 || !this.boxes) {
      return null;
    }
    for (let depth = 0; depth < this.boxes.rows.length; depth += 1) {
      const at = this.boxes.rows[depth].node.indexOf(node);
      if (at >= 0) {
        return this.place(depth, at);
      }
    }
    return null;
  }

  // Moves the focus one box: inwards and outwards by depth, or to the next box of the same depth.
  move(direction: "inwards" | "outwards" | "left" | "right"): Place | null {
    const rows = this.boxes?.rows ?? [];
    const now = this.focused;
    if (!now) {
      this.focus(rows.length ? this.place(this.zoomDepth(), 0) : null);
      return this.focused;
    }
    if (direction === "left" || direction === "right") {
      const at = now.at + (direction === "left" ? -1 : 1);
      if (at >= 0 && at < rows[now.depth].node.length) {
        this.focus(this.place(now.depth, at));
      }
      return this.focused;
    }
    const depth = now.depth + (direction === "inwards" ? 1 : -1);
    if (depth >= 0 && depth < rows.length) {
      const at = boxAt(rows[depth], now.left + (direction === "inwards" ? 0.01 : now.width / 2));
      if (at >= 0) {
        this.focus(this.place(depth, at));
      }
    }
    return this.focused;
  }

  focus(place: Place | null): void {
    this.focused = place;
    if (place) {
      const { scrollTop, clientHeight } = this.scroller;
      if (place.top < scrollTop) {
        this.scroller.scrollTop = place.top;
      } else if (place.top + ROW > scrollTop + clientHeight) {
        this.scroller.scrollTop = place.top + ROW - clientHeight;
      }
    }
    this.draw();
  }

  // The widest box for which this holds.
  widest(wanted: (node: number) => boolean): Place | null {
    let best: Place | null = null;
    this.boxes?.rows.forEach((row, depth) =>
      row.node.forEach((node, at) => {
        if (node >= 0 && row.width[at] > (best?.width ?? 0) && wanted(node)) {
          best = this.place(depth, at);
        }
      }),
    );
    return best;
  }
}
