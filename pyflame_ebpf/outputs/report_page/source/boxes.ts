// Where the boxes of a flame graph lie: rows of boxes wide enough to be seen, the busiest callee first.

import type { Tree, TreeWeights } from "./tree";

const NARROWEST = 1; // pixels; all narrower callees of a box are drawn as one
const NARROWEST_REST = 0.4;

export interface Boxes {
  rows: Row[];
  zoom: number;
}

// The boxes of one depth from left to right.  A node of -1 stands for `merged` callees too narrow to be shown.
export interface Row {
  node: number[];
  left: number[];
  width: number[];
  samples: number[];
  merged: number[];
}

export function layOut(tree: Tree, weights: TreeWeights, zoom: number, width: number): Boxes {
  const rows = pathTo(tree, weights, zoom, width);
  const scale = weights.total[zoom] > 0 ? width / weights.total[zoom] : 0;
  for (let row = rows[rows.length - 1]; row.node.length; row = rows[rows.length - 1]) {
    rows.push(calleesOf(row, tree, weights, scale));
  }
  rows.pop();
  return { rows, zoom };
}

// The zoomed box and its callers, each as wide as the graph.
function pathTo(tree: Tree, weights: TreeWeights, zoom: number, width: number): Row[] {
  const rows: Row[] = [];
  for (let node = zoom; node >= 0; node = tree.parent[node]) {
    rows.unshift({ node: [node], left: [0], width: [width], samples: [weights.total[node]], merged: [0] });
  }
  return rows;
}

function calleesOf(callers: Row, tree: Tree, weights: TreeWeights, scale: number): Row {
  const row: Row = { node: [], left: [], width: [], samples: [], merged: [] };
  const add = (node: number, left: number, samples: number, merged: number) => {
    row.node.push(node);
    row.left.push(left);
    row.width.push(samples * scale);
    row.samples.push(samples);
    row.merged.push(merged);
  };
  for (let at = 0; at < callers.node.length; at += 1) {
    const caller = callers.node[at];
    if (caller < 0) {
      continue;
    }
    const callees = sampledCallees(tree, weights, caller);
    let left = callers.left[at];
    for (let next = 0; next < callees.length; next += 1) {
      const samples = weights.total[callees[next]];
      if (samples * scale < NARROWEST && callees.length - next > 1) {
        const rest = sum(callees, weights, next);
        if (rest * scale >= NARROWEST_REST) {
          add(-1, left, rest, callees.length - next);
        }
        break;
      }
      if (samples * scale >= NARROWEST_REST) {
        add(callees[next], left, samples, 0);
      }
      left += samples * scale;
    }
  }
  return row;
}

function sampledCallees(tree: Tree, weights: TreeWeights, caller: number): number[] {
  const made: number[] = [];
  for (let at = tree.firstChild[caller]; at < tree.firstChild[caller + 1]; at += 1) {
    if (weights.total[tree.children[at]] > 0) {
      made.push(tree.children[at]);
    }
  }
  return made.length > 1 ? made.sort((one, other) => weights.total[other] - weights.total[one] || one - other) : made;
}

function sum(callees: number[], weights: TreeWeights, from: number): number {
  let all = 0;
  for (let at = from; at < callees.length; at += 1) {
    all += weights.total[callees[at]];
  }
  return all;
}

// The place in the row of the box at this x, -1 for none.
export function boxAt(row: Row, x: number): number {
  let low = 0;
  let high = row.node.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (row.left[middle] + row.width[middle] <= x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < row.node.length && row.left[low] <= x ? low : -1;
}
