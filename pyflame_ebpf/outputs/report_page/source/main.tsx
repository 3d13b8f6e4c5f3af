// Unpacks the recording, and brings the page to life.

import { effect, signal } from "@preact/signals";
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import { App } from "./app";
import { unpack } from "./data";
import { listenToKeys } from "./keys";
import { isDark, modelOf } from "./model";
import "./page.css";
import { keepInFragment, stateOf } from "./state";

async function open(place: HTMLElement): Promise<void> {
  const report = await unpack(document.getElementById("report-data")!);
  const state = stateOf(report);
  const systemDark = followed("(prefers-color-scheme: dark)");
  const printing = followed("print");
  keepInFragment(report, state);
  const model = modelOf(report, state, systemDark);
  effect(() => {
    state.printing.value = printing.value;
  });
  effect(() => {
    document.documentElement.dataset.theme = isDark(state, systemDark) ? "dark" : "light";
  });
  place.textContent = "";
  render(<App model={model} />, place);
  listenToKeys(model);
  performance.mark("report-shown");
}

function followed(query: string): { value: boolean } {
  const media = matchMedia(query);
  const value = signal(media.matches);
  media.addEventListener("change", () => {
    value.value = media.matches;
  });
  return value;
}

const place = document.getElementById("page")!;
open(place).catch((error: unknown) => {
  const said = document.createElement("p");
  said.className = "unopened";
  said.textContent = `This report cannot be shown: ${String(error)}. It needs Chromium 80, Firefox 113 or Safari 16.4, or later; if yours is, the file is damaged.`;
  place.replaceChildren(said);
});
