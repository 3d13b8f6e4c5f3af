// Makes the flame graph interactive: takes the place of the picture and draws what is in view from the list of boxes.
(function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const XHTML = "http://www.w3.org/1999/xhtml";
  const ROW = 19;
  const NARROW = 2; // pixels; narrower neighbours are drawn together
  const ROWS_BEYOND = 20; // rows drawn above and below the window, so that most scrolling draws nothing
  const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Ubuntu, 'Noto Sans', sans-serif";

  const page = document.getElementById("pyflame");
  const data = JSON.parse(document.getElementById("pyflame-data").textContent);
  const boxes = unpacked(data);
  const pen = document.createElementNS(XHTML, "canvas").getContext("2d");
  pen.font = FONT;
  const widths = new Float64Array(data.labels.length);

  const view = { zoomed: 0, focused: -1, pointed: -1, icicle: false, found: null, rows: 0, drawn: null };
  const parts = build();

  // The boxes

  function unpacked(from) {
    const count = from.rise.length;
    const made = {
      count: count,
      depth: new Uint32Array(count),
      parent: new Int32Array(count),
      label: Uint32Array.from(from.label),
      samples: Float64Array.from(from.samples),
      start: new Float64Array(count),
      end: new Uint32Array(count), // index after the last box above this one
      rows: [], // boxes by depth, left to right
    };
    const open = [];
    const next = [0];
    for (let box = 0, depth = -1; box < count; box += 1) {
      depth = depth + 1 - from.rise[box];
      made.depth[box] = depth;
      made.parent[box] = depth ? open[depth - 1] : -1;
      made.start[box] = next[depth];
      next[depth] += made.samples[box];
      next[depth + 1] = made.start[box];
      open[depth] = box;
      if (depth === made.rows.length) { made.rows.push([]); }
      made.rows[depth].push(box);
    }
    for (let box = count - 1; box >= 0; box -= 1) {
      made.end[box] = Math.max(made.end[box], box + 1);
      const parent = made.parent[box];
      if (parent >= 0) { made.end[parent] = Math.max(made.end[parent], made.end[box]); }
    }
    return made;
  }

  function encloses(outer, inner) {
    return outer <= inner && inner < boxes.end[outer];
  }

  function left(box) {
    if (encloses(box, view.zoomed)) { return 0; }
    return (boxes.start[box] - boxes.start[view.zoomed]) / boxes.samples[view.zoomed] * parts.width;
  }

  function width(box) {
    if (encloses(box, view.zoomed)) { return parts.width; }
    return boxes.samples[box] / boxes.samples[view.zoomed] * parts.width;
  }

  function top(depth) {
    return (view.icicle ? depth : view.rows - 1 - depth) * ROW;
  }

  // Boxes of one depth that are in view, as first and last + 1 in that depth's row.
  function inView(depth) {
    const row = boxes.rows[depth];
    const zoomed = view.zoomed;
    if (depth <= boxes.depth[zoomed]) {
      const at = firstFrom(row, ancestor(zoomed, depth));
      return [at, at + 1];
    }
    return [firstFrom(row, zoomed), firstFrom(row, boxes.end[zoomed])];
  }

  // Boxes are numbered before their callees, so a row is in the order of the numbers too.
  function firstFrom(row, box) {
    let low = 0;
    let high = row.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (row[middle] < box) { low = middle + 1; } else { high = middle; }
    }
    return low;
  }

  function ancestor(box, depth) {
    while (boxes.depth[box] > depth) { box = boxes.parent[box]; }
    return box;
  }

  function boxAt(x, y) {
    const index = Math.floor(y / ROW);
    const depth = view.icicle ? index : view.rows - 1 - index;
    if (depth < 0 || depth >= view.rows) { return -1; }
    const row = boxes.rows[depth];
    let [low, high] = inView(depth);
    while (low < high) {
      const middle = (low + high) >> 1;
      if (left(row[middle]) + width(row[middle]) <= x) { low = middle + 1; } else { high = middle; }
    }
    const box = low < inView(depth)[1] ? row[low] : -1;
    return box >= 0 && left(box) <= x ? box : -1;
  }

  // Drawing

  function make(space, name, attributes, ...children) {
    const made = document.createElementNS(space, name);
    for (const key of Object.keys(attributes || {})) { made.setAttribute(key, attributes[key]); }
    made.append(...children);
    return made;
  }

  function html(name, attributes, ...children) { return make(XHTML, name, attributes, ...children); }

  function svg(name, attributes, ...children) { return make(SVG, name, attributes, ...children); }

  function build() {
    const made = { width: 0 };
    made.seek = html("input", { type: "text", placeholder: "Search: regular expression  ( / )", spellcheck: "false",
      autocomplete: "off", "aria-label": "Search by regular expression" });
    made.share = html("output", { class: "share", "aria-live": "polite" });
    made.turn = html("button", { type: "button", title: "Root at the top or at the bottom (i)" }, "Icicle");
    made.reset = html("button", { type: "button", title: "Show everything again (Esc)" }, "Reset zoom");
    made.path = html("nav", { class: "path", "aria-label": "Zoomed path" });
    made.boxes = svg("g", {});
    made.pointed = svg("rect", { class: "pointed", rx: 2, height: ROW - 1, visibility: "hidden" });
    made.ring = svg("rect", { class: "ring", rx: 2, height: ROW - 1, visibility: "hidden" });
    made.canvas = svg("svg", { "aria-hidden": "true" }, made.boxes, made.pointed, made.ring);
    made.graph = html("div", { class: "graph", tabindex: "0", role: "application", "aria-label":
      "Flame graph. Arrow keys move between boxes, Enter zooms, Escape resets, i turns it over, slash searches." },
    made.canvas);
    made.name = html("strong", {});
    made.figures = html("span", {});
    const app = html("div", { class: "app" },
      html("header", { class: "head" },
        html("div", { class: "names" }, html("h1", {}, data.title), html("p", {}, data.facts)),
        html("div", { class: "tools" }, html("label", { class: "seek" }, made.seek, made.share), made.turn, made.reset)),
      html("div", { class: "bar" }, made.path,
        html("div", { class: "key", title: data.compared ? "Change against what chance alone would make of it"
          : "Share of the samples whose innermost frame is of this kind" },
          ...data.legend.map(([style, name, share]) =>
            html("span", {}, html("em", { class: style }), (name + " " + share).trim())))),
      made.graph,
      html("footer", { class: "foot" },
        html("div", { class: "details", "aria-live": "polite" }, made.name, made.figures),
        html("p", { class: "outcome" }, data.outcome)));
    document.getElementById("picture").remove();
    page.append(svg("foreignObject", { x: "0", y: "0", width: "100%", height: "100%" }, app));
    page.removeAttribute("viewBox");
    page.setAttribute("width", "100%");
    page.setAttribute("height", "100%");
    page.classList.add("live");
    return made;
  }

  // Takes new measures of window and zoom, and draws.
  function layOut() {
    parts.width = Math.max(parts.graph.clientWidth, 50);
    let deepest = boxes.depth[view.zoomed];
    for (let box = view.zoomed; box < boxes.end[view.zoomed]; box += 1) {
      if (boxes.depth[box] > deepest && width(box) >= 0.5) { deepest = boxes.depth[box]; }
    }
    view.rows = deepest + 1;
    parts.canvas.setAttribute("width", parts.width);
    parts.canvas.setAttribute("height", view.rows * ROW);
    view.drawn = null;
    draw();
  }

  function draw() {
    const first = Math.floor(parts.graph.scrollTop / ROW);
    const last = Math.ceil((parts.graph.scrollTop + parts.graph.clientHeight) / ROW);
    if (view.drawn && first >= view.drawn[0] && last <= view.drawn[1]) { return; }
    view.drawn = [first - ROWS_BEYOND, last + ROWS_BEYOND];
    const made = document.createDocumentFragment();
    for (let index = Math.max(view.drawn[0], 0); index < Math.min(view.drawn[1], view.rows); index += 1) {
      drawRow(view.icicle ? index : view.rows - 1 - index, made);
    }
    parts.boxes.replaceChildren(made);
    frameBox(parts.pointed, view.pointed);
    frameBox(parts.ring, view.focused);
  }

  function drawRow(depth, made) {
    const row = boxes.rows[depth];
    const [first, last] = inView(depth);
    const y = top(depth);
    const crumbs = new Map(); // class → outline of the narrow boxes, neighbours joined
    for (let index = first; index < last; index += 1) {
      const box = row[index];
      const wide = width(box);
      if (wide >= NARROW) {
        drawBox(box, left(box), y, wide, made);
      } else {
        addCrumb(crumbs, "crumbs " + style(box), left(box), wide);
      }
    }
    for (const [name, runs] of crumbs) {
      const outline = runs.map(([from, to]) => "M" + from.toFixed(1) + " " + y + "H" + to.toFixed(1) + "v" + (ROW - 1)
        + "H" + from.toFixed(1) + "z");
      made.append(svg("path", { class: name, d: outline.join("") }));
    }
  }

  function addCrumb(crumbs, name, from, wide) {
    if (!crumbs.has(name)) { crumbs.set(name, []); }
    const runs = crumbs.get(name);
    const to = from + (name.includes("found") ? Math.max(wide, 1) : wide);
    const before = runs[runs.length - 1];
    if (before && from - before[1] < 0.5) { before[1] = Math.max(to, before[1]); } else { runs.push([from, to]); }
  }

  function drawBox(box, x, y, wide, made) {
    const shown = style(box);
    made.append(svg("rect", { class: "box " + shown, x: x.toFixed(1), y: y, rx: 2, height: ROW - 1,
      width: Math.max(wide - 1, 1).toFixed(1) }));
    const [name, where] = fitted(boxes.label[box], wide - 9);
    if (!name) { return; }
    const words = svg("text", { class: "words" + (shown.includes("found") ? " found-words" : "")
      + (shown.includes("faded") ? " faded" : ""), x: (x + 4).toFixed(1), y: y + 13 }, name);
    if (where) { words.append(svg("tspan", { class: "where" }, where)); }
    made.append(words);
  }

  function style(box) {
    let name = data.classes[data.boxClass ? data.boxClass[box] : data.labelClass[boxes.label[box]]];
    if (view.found) { name = view.found[boxes.label[box]] ? "found" : name + " faded"; }
    return box !== view.zoomed && encloses(box, view.zoomed) ? name + " above" : name;
  }

  // A label cut to so many pixels, in two parts: the name, and the place in brackets after it.
  function fitted(label, room) {
    if (room < 12) { return ["", ""]; }
    const text = data.labels[label];
    if (!widths[label]) { widths[label] = pen.measureText(text).width; }
    let shown = text;
    if (widths[label] > room) {
      let end = Math.floor(text.length * room / widths[label]) + 1;
      do {
        end -= 1;
        const unit = text.charCodeAt(end - 1);
        if (unit >= 0xd800 && unit < 0xdc00) { end -= 1; } // never half of a pair
      } while (end > 1 && pen.measureText(text.slice(0, end) + "\u2026").width > room);
      if (end < 2) { return ["", ""]; }
      shown = text.slice(0, end) + "\u2026";
    }
    const place = text.lastIndexOf(" (");
    return place > 0 && place < shown.length - 1 ? [shown.slice(0, place), shown.slice(place)] : [shown, ""];
  }

  function frameBox(rect, box) {
    const shown = box >= 0 && (encloses(view.zoomed, box) || encloses(box, view.zoomed))
      && boxes.depth[box] < view.rows;
    rect.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) { return; }
    rect.setAttribute("x", left(box).toFixed(1));
    rect.setAttribute("y", top(boxes.depth[box]));
    rect.setAttribute("width", Math.max(width(box) - 1, 1).toFixed(1));
  }

  // Words

  function percent(part, whole) {
    const share = 100 * part / whole;
    return (share >= 99.95 || share === 0 ? share.toFixed(0) : share >= 1 ? share.toFixed(1) : share.toPrecision(2)) + " %";
  }

  function number(value) { return value.toLocaleString("en-US"); }

  function describe() {
    const box = view.pointed >= 0 ? view.pointed : view.focused >= 0 ? view.focused : view.zoomed;
    const samples = boxes.samples[box];
    const facts = [number(samples) + (samples === 1 ? " sample" : " samples"), percent(samples, boxes.samples[0]) + " of all"];
    if (boxes.parent[box] > 0) { facts.push(percent(samples, boxes.samples[boxes.parent[box]]) + " of its parent"); }
    if (data.frequency) facts.push(number(Number((samples / data.frequency).toFixed(2))) + " s of CPU");
    parts.name.textContent = data.labels[boxes.label[box]];
    parts.figures.textContent = (data.compared ? comparison(box) : facts).join("  \u00b7  ");
  }

  // What a box was and is, where the graph compares: its width is one of the two.
  function comparison(box) {
    const pair = [data.compared.others[box], boxes.samples[box]];
    if (data.compared.widths === "before") { pair.reverse(); }
    const [before, after] = pair.map((samples, side) => samples * data.compared.scale[side]);
    const digits = data.compared.digits;
    const change = after - before;
    const facts = [before.toFixed(digits) + " \u2192 " + after.toFixed(digits) + " " + data.compared.unit,
      (change > 0 ? "+" : change < 0 ? "\u2212" : "") + Math.abs(change).toFixed(digits) + " \u00b1 " + data.compared.errors[box].toFixed(digits)];
    if (before) { facts.push((change < 0 ? "\u2212" : "+") + percent(Math.abs(change), before)); }
    facts.push(number(pair[0]) + " \u2192 " + number(pair[1]) + " samples");
    return facts;
  }

  function showPath() {
    const chain = [];
    for (let box = view.zoomed; box >= 0; box = boxes.parent[box]) { chain.unshift(box); }
    const shown = chain.length > 6 ? [...chain.slice(0, 2), -1, ...chain.slice(-3)] : chain;
    parts.path.replaceChildren(...shown.flatMap((box, index) => {
      const separator = index ? [html("i", {}, "\u203a")] : [];
      if (box < 0) { return [...separator, html("i", {}, "\u2026")]; }
      const text = data.labels[boxes.label[box]];
      if (box === view.zoomed) { return [...separator, html("b", { title: text }, text)]; }
      const step = html("button", { type: "button", title: text }, text);
      step.addEventListener("click", () => { zoom(box); });
      return [...separator, step];
    }));
    parts.reset.disabled = view.zoomed === 0;
  }

  // What the user does

  function zoom(box) {
    view.zoomed = box;
    view.pointed = -1;
    view.focused = box > 0 ? box : -1;
    showPath();
    layOut();
    reveal(box);
    describe();
    if (view.found) { showShare(); }
  }

  // Scrolls to the box; where there is a choice, its callees come into view with it.
  function reveal(box) {
    const graph = parts.graph;
    const y = top(boxes.depth[box]);
    if (box === view.zoomed) {
      graph.scrollTop = view.icicle ? y - 3 * ROW : y + 4 * ROW - graph.clientHeight;
    } else if (y < graph.scrollTop) {
      graph.scrollTop = y - ROW;
    } else if (y + 2 * ROW > graph.scrollTop + graph.clientHeight) {
      graph.scrollTop = y + 3 * ROW - graph.clientHeight;
    }
    draw();
  }

  function turn() {
    view.icicle = !view.icicle;
    parts.turn.textContent = view.icicle ? "Flame" : "Icicle";
    layOut();
    reveal(view.focused >= 0 ? view.focused : view.zoomed);
  }

  function search() {
    const wanted = parts.seek.value;
    parts.share.classList.remove("wrong");
    view.found = null;
    parts.share.textContent = "";
    if (wanted) {
      try {
        const pattern = new RegExp(wanted, wanted === wanted.toLowerCase() ? "i" : "");
        view.found = Uint8Array.from(data.labels, (label) => (pattern.test(label) ? 1 : 0));
        showShare();
      } catch (error) {
        parts.share.classList.add("wrong");
        parts.share.textContent = "not a regular expression";
      }
    }
    view.drawn = null;
    draw();
  }

  function showShare() {
    const all = percent(matched(0), boxes.samples[0]) + (view.zoomed ? " of all" : "");
    parts.share.textContent = view.zoomed
      ? percent(matched(view.zoomed), boxes.samples[view.zoomed]) + " here, " + all : all + " matched";
  }

  // Samples with at least one matching box, at or above this one.
  function matched(from) {
    let samples = 0;
    for (let box = from; box < boxes.end[from];) {
      if (view.found[boxes.label[box]]) {
        samples += boxes.samples[box];
        box = boxes.end[box];
      } else {
        box += 1;
      }
    }
    return samples;
  }

  function focusWidestMatch() {
    let widest = -1;
    for (let box = view.zoomed; box < boxes.end[view.zoomed]; box += 1) {
      if (view.found && view.found[boxes.label[box]] && (widest < 0 || boxes.samples[box] > boxes.samples[widest])) {
        widest = box;
      }
    }
    parts.graph.focus();
    if (widest >= 0) { focusBox(widest); }
  }

  function focusBox(box) {
    view.focused = box;
    view.pointed = -1;
    frameBox(parts.pointed, -1);
    frameBox(parts.ring, box);
    reveal(box);
    describe();
  }

  function move(key) {
    const from = view.focused >= 0 ? view.focused : view.zoomed;
    if (view.focused < 0) { return from; }
    if (key === "ArrowLeft" || key === "ArrowRight") { return beside(from, key === "ArrowLeft" ? -1 : 1); }
    const inwards = (key === "ArrowUp") !== view.icicle;
    if (!inwards) { return Math.max(boxes.parent[from], 0); }
    if (boxes.depth[from] < boxes.depth[view.zoomed]) { return ancestor(view.zoomed, boxes.depth[from] + 1); }
    const callee = from + 1; // the widest callee comes first
    return callee < boxes.end[from] && boxes.depth[callee] < view.rows ? callee : from;
  }

  function beside(box, step) {
    const row = boxes.rows[boxes.depth[box]];
    const [first, last] = inView(boxes.depth[box]);
    for (let index = firstFrom(row, box) + step; index >= first && index < last; index += step) {
      if (width(row[index]) >= 0.5) { return row[index]; }
    }
    return box;
  }

  function onKey(event) {
    const typing = event.target === parts.seek;
    if (((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f") || (event.key === "/" && !typing)) {
      parts.seek.focus();
      parts.seek.select();
    } else if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    } else if (typing) {
      if (event.key === "Escape") {
        parts.seek.value = "";
        search();
        parts.graph.focus();
      } else if (event.key === "Enter") {
        search();
        focusWidestMatch();
      } else {
        return;
      }
    } else if (!onGraphKey(event)) {
      return;
    }
    event.preventDefault();
  }

  // Whether the key meant something.
  function onGraphKey(event) {
    if (event.key.startsWith("Arrow")) {
      parts.graph.focus({ preventScroll: true });
      focusBox(move(event.key));
    } else if (event.key === "Enter" && event.target === parts.graph && view.focused >= 0) {
      zoom(view.focused);
    } else if (event.key === "Escape") {
      zoom(0);
    } else if (event.key === "i") {
      turn();
    } else {
      return false;
    }
    return true;
  }

  function point(event) {
    const place = parts.canvas.getBoundingClientRect();
    const box = boxAt(event.clientX - place.left, event.clientY - place.top);
    if (box !== view.pointed) {
      view.pointed = box;
      frameBox(parts.pointed, box);
      describe();
    }
    return box;
  }

  let waiting = 0;
  function soon(action) {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(action);
  }

  parts.canvas.addEventListener("mousemove", point);
  parts.canvas.addEventListener("mouseleave", () => {
    view.pointed = -1;
    frameBox(parts.pointed, -1);
    describe();
  });
  parts.canvas.addEventListener("click", (event) => {
    const box = point(event);
    if (box >= 0) { zoom(box); }
  });
  parts.graph.addEventListener("scroll", () => { soon(draw); }, { passive: true });
  parts.turn.addEventListener("click", turn);
  parts.reset.addEventListener("click", () => { zoom(0); });
  parts.seek.addEventListener("input", search);
  window.addEventListener("keydown", onKey);
  window.addEventListener("resize", () => { soon(layOut); });
  zoom(0);
  parts.graph.focus({ preventScroll: true });
}());
