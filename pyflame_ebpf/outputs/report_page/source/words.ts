// What things are called, and how figures are written.

import type { Recording, Report } from "./data";
import { labelsOf, ROOT, type TopLevel } from "./tree";
import type { Grouping } from "./stacks";

export function labelText(report: Report, label: number): string {
  const { threadsAt, functionsAt, framesAt } = labelsOf(report);
  if (label === ROOT) {
    return "all";
  }
  if (label < threadsAt) {
    return report.processes.label[label];
  }
  if (label < functionsAt) {
    return report.threads.label[label - threadsAt];
  }
  return label < framesAt ? report.functions.label[label - functionsAt] : lineText(report, label - framesAt);
}

// What the processes at the root have in common, of which this is one.
export function ownersText({ processes }: Report, top: TopLevel, process: number): string {
  return top === "interpreter" ? processes.interpreter[process] || "not Python" : processes.command[process] || "?";
}

// A function as labels.py writes it, with the executing line in place of the first one.
export function lineText(report: Report, frame: number): string {
  const func = report.frameFunction[frame];
  const { name, file, label, kind } = report.functions;
  const line = report.frameLine[frame];
  return kind[func] === 0 && line > 0 ? `${name[func]} (${file[func]}:${line})` : label[func];
}

export function rowText(report: Report, grouping: Grouping, key: number): string {
  switch (grouping) {
    case "function":
      return report.functions.label[key];
    case "line":
      return lineText(report, key);
    case "module":
      return report.functions.modules[key];
    case "process":
      return report.processes.label[key];
    case "thread":
      return report.threads.label[key];
  }
}

// The command line without the directory of its program, as on the terminal.
export function shortCommand(command: string): string {
  const blank = command.indexOf(" ");
  const program = blank < 0 ? command : command.slice(0, blank);
  return /^\.{0,2}\//.test(program) ? command.slice(program.lastIndexOf("/") + 1) : command;
}

export function percent(part: number, whole: number): string {
  return whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : "–";
}

export function share(value: number): string {
  return value < 99.95 ? value.toFixed(1) : grouped(Math.round(value));
}

export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

export function plural(count: number, noun: string): string {
  return `${grouped(count)} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;
}

// CPU time, where it is known how often was sampled.
export function seconds(samples: number, recording: Recording): string {
  if (!recording.frequency) {
    return "–";
  }
  const value = samples / recording.frequency;
  return `${value >= 100 ? grouped(Math.round(value * 10) / 10) : value.toFixed(2)} s`;
}

export function clock(second: number): string {
  const whole = Math.floor(second);
  const rest = second - whole;
  const tail = `${String(whole % 60).padStart(2, "0")}${rest > 0.05 && rest < 0.95 ? rest.toFixed(1).slice(1) : ""}`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${tail}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}`;
}

// Seconds in "90", "1:30" or "1:01:30"; NaN for anything else.
export function parseClock(text: string): number {
  if (!/^\s*(\d+:){0,2}\d+(\.\d*)?\s*$/.test(text)) {
    return NaN;
  }
  return text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

// A moment since the epoch, "" for none.
export function utc(seconds: number): string {
  const moment = new Date(seconds * 1000);
  return !seconds || Number.isNaN(moment.getTime()) ? "" : `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}
