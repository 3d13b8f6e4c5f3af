// What changed between the two recordings of a comparison, and what of it chance alone would make; as comparison.py has it.

import type { Recording } from "./data";

const CONFIDENCE = 2; // standard errors of 95 %
const SAMPLES_MIN = 10; // fewer in both can be nothing but noise
export const STANDARD_ERRORS = 3;
const STEPS = [STANDARD_ERRORS, 6, 12, 24]; // from which on a change has the next deeper shade

// How samples become figures: so many stand for one core, or for one per cent; so many are possible at the most.
export interface Scale {
  exposure: number;
  ticks: number; // 0 where it is not known
}

export interface Change {
  before: number;
  after: number;
  change: number;
  error: number; // half of the 95 % confidence interval
  score: number; // in standard errors
}

// What was counted of one thing; by the scatter of the recording's parts its number has this variance.
export interface Counted {
  samples: number;
  scatter: number;
}

export type Pair = readonly [Counted, Counted]; // before and after
export type Scales = readonly [Scale, Scale];

export function knowsCores(recording: Recording): boolean {
  return recording.frequency * recording.duration >= 1;
}

// Of a part of the recording of so many seconds, in which so many samples were taken.
export function scaleOf(recording: Recording, seconds: number, all: number, shares: boolean): Scale {
  const ticks = recording.frequency * Math.min(seconds, recording.duration);
  return shares ? { exposure: Math.max(1, all) / 100, ticks: Math.max(1, all) } : { exposure: ticks, ticks: ticks * recording.cpus };
}

export function changeOf(counted: Pair, scales: Scales): Change {
  const [before, after] = counted.map(({ samples }, side) => samples / scales[side].exposure);
  const samples = counted[0].samples + counted[1].samples;
  const rate = samples / (scales[0].exposure + scales[1].exposure);
  const variance = varianceOf(counted[0], scales[0]) + varianceOf(counted[1], scales[1]);
  const ifSame = scales.reduce((sum, scale) => sum + spread(rate * scale.exposure, scale) / scale.exposure ** 2, 0);
  const change = after - before;
  const isTold = samples >= SAMPLES_MIN && change !== 0;
  return {
    before,
    after,
    change,
    error: CONFIDENCE * Math.sqrt(variance),
    score: isTold ? change / Math.max(Math.sqrt(Math.max(variance, ifSame)), Number.MIN_VALUE) : 0,
  };
}

// Of the figure of a count.
function varianceOf({ samples, scatter }: Counted, scale: Scale): number {
  return Math.max(spread(samples, scale), scatter) / scale.exposure ** 2;
}

// The variance of a count by the ticks alone.
function spread(samples: number, { ticks }: Scale): number {
  return samples * (ticks ? Math.max(0, 1 - samples / ticks) : 1);
}

// 0 for no change beyond noise, else 1 to 4 for more and -1 to -4 for less.
export function shadeOf({ score }: Change): number {
  return Math.sign(score) * STEPS.filter((step) => Math.abs(score) >= step).length;
}

export function figure(value: number, shares: boolean): string {
  return value.toFixed(shares ? 2 : 3);
}

export function signedFigure(value: number, shares: boolean): string {
  const text = figure(Math.abs(value), shares);
  return Number(text) === 0 ? text : `${value > 0 ? "+" : "−"}${text}`;
}

export function changeInWords(change: Change, shares: boolean): string {
  const { before, after } = change;
  const ratio = before > 0 ? `  ·  ${signedPercent((after - before) / before)}` : "";
  return (
    `${figure(before, shares)} → ${figure(after, shares)} ${shares ? "% of all" : "cores"}  ·  ` +
    `${signedFigure(change.change, shares)} ± ${figure(change.error, shares)}${ratio}`
  );
}

function signedPercent(ratio: number): string {
  return `${ratio > 0 ? "+" : ratio < 0 ? "−" : ""}${(100 * Math.abs(ratio)).toFixed(1)} %`;
}
