// The colours of boxes and curves: those of the SVG flame graph, in light and in dark.

export interface Palette {
  ink: string;
  soft: string;
  line: string;
  paper: string;
  accent: string;
  found: string;
  foundInk: string;
  lit: string;
  litInk: string;
  owner: string; // "all" and processes
  thread: string;
  mark: string;
  markLine: string;
  rest: string;
  python: string[];
  native: string[];
  kernel: string[];
  curves: string[]; // processes
  others: string;
  same: string; // no change beyond noise
  more: string[]; // the larger, the deeper
  less: string[];
}

export const LIGHT: Palette = {
  ink: "#1f1c17",
  soft: "#6a645a",
  line: "#e3ded4",
  paper: "#fbfaf7",
  accent: "#2563c9",
  found: "#d3157f",
  foundInk: "#ffffff",
  lit: "#2563c9",
  litInk: "#ffffff",
  owner: "#ccd4de",
  thread: "#dfe4ea",
  mark: "#f6d9dc",
  markLine: "#b23a48",
  rest: "#e4e0d8",
  python: ["#fbbb5b", "#faae6b", "#f8c84f", "#f9a467", "#f5d65c", "#f7c382"],
  native: ["#86cbbb", "#99d1bb", "#80c6c1", "#a3d2b7", "#95ccd0", "#7abda7"],
  kernel: ["#bcb1f1", "#aaadee", "#ccb8ef", "#b1bfed", "#d9c3ef", "#c9c7f0"],
  curves: ["#6b9bd8", "#f0a35a", "#78bd93", "#d98bb0", "#a996dd", "#d8bd55", "#63bfc6", "#de8275"],
  others: "#c3beb4",
  same: "#dedad1",
  more: ["#f6d3cb", "#f4b5a6", "#f0927f", "#ec7664"],
  less: ["#cfdff2", "#afccee", "#8db7e8", "#6fa5e3"],
};

export const DARK: Palette = {
  ink: "#f4f1ea",
  soft: "#a39d92",
  line: "#34312c",
  paper: "#171614",
  accent: "#7fb0ff",
  found: "#c2186f",
  foundInk: "#ffffff",
  lit: "#7fb0ff",
  litInk: "#10131a",
  owner: "#3d4652",
  thread: "#313944",
  mark: "#4a2328",
  markLine: "#e08a95",
  rest: "#2d2a26",
  python: ["#935b12", "#9b5017", "#855e0f", "#8d491b", "#7e6311", "#925b22"],
  native: ["#1e574c", "#265e4a", "#205b59", "#2c6347", "#245b61", "#2e6b5a"],
  kernel: ["#514592", "#3f3f8d", "#614893", "#3e4d89", "#704e97", "#5b549c"],
  curves: ["#3f6aa5", "#a4682a", "#3d7a57", "#96527a", "#6a579f", "#86712a", "#2f7a80", "#9c4f43"],
  others: "#57534b",
  same: "#3a3732",
  more: ["#5c3530", "#7a362e", "#98352b", "#b3332a"],
  less: ["#2f4258", "#2a4a73", "#25528e", "#215aa9"],
};

// A number for a text that is the same everywhere.
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  }
  return (hash ^ (hash >>> 13)) >>> 0;
}

// Twenty-four hues that dark words (in the dark: light ones) can be read on.
export function moduleColour(module: string, dark: boolean): string {
  const hash = hashOf(module);
  const hue = (hash % 24) * 15;
  return dark ? `hsl(${hue} 38% ${28 + ((hash >>> 8) % 3) * 3}%)` : `hsl(${hue} 58% ${74 + ((hash >>> 8) % 3) * 4}%)`;
}
