/*! With parts of others, each under the MIT licence below: Preact (c) 2015-present Jason Miller; Preact Signals (c) 2022-present
Preact Team; TanStack Virtual (c) 2021-present Tanner Linsley; uPlot (c) 2022 Leon Sorokin.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files
(the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge,
publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions: The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING
FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
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
  // When it was on the screen, for the tests and for scripts/bench_report.py.
  requestAnimationFrame(() =>
    setTimeout(() => {
      place.dataset.drawn = performance.now().toFixed(0);
    }),
  );
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
