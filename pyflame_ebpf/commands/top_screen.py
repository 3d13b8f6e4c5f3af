"""The lines of ``top`` on a screen of a given size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.style import Style
from rich.text import Text

from pyflame_ebpf.live.rows import FunctionList, FunctionRow, ProcessRow, Sort, functions, process_rows
from pyflame_ebpf.live.totals import LiveTotals
from pyflame_ebpf.live.view import Action, Shown, ViewState
from pyflame_ebpf.profile.labels import visible
from pyflame_ebpf.profile.model import FrameKind
from pyflame_ebpf.recording.recorder import Progress

HEADER = 3  # lines above the panes
PROCESSES_SHARE = 0.35  # of the lines of both panes
PROCESSES_MIN = 2
COMMAND_MIN, COMMAND_SHARE = 12, 0.45
WIDE_FOR_GIL, WIDE_FOR_PYTHON, WIDE_FOR_HOTTEST = 50, 64, 60
WIDE_FOR_SECONDS = 56
ELLIPSIS = "…"
HELP_KEYS = (
    ("q, Ctrl-C", "quit"),
    ("space", "pause what is shown; samples are still taken"),
    ("l", "functions, or lines"),
    ("s", "sort by: self or total of the last interval, self or total since the start"),
    ("/", "filter by a regular expression: functions that it matches, processes that it matches"),
    ("", "or that ran such a function; nothing shows all again"),
    ("up, down", "choose a process"),
    ("p, Enter", "only the functions of the chosen process; p or Escape shows those of all again"),
    ("PgUp, PgDn", "more functions; also Home, End"),
    ("k, n", "frames of the kernel, of native code: on, off"),
    ("w", "save what was recorded into a new directory, as 'record' does, and go on"),
    ("c", "count anew what is shown 'since the start'"),
)
HELP_TEXT = (
    "CPU%, Self% and Total% are of one core in the last interval; the columns in s are",
    "seconds of CPU since the start. Self is what a function used itself, Total with all",
    "that it called. GIL% is the share of samples that held the interpreter lock.",
)
FOOTER = "? help  q quit  space pause  / filter  s sort  l lines  p process  w save  k kernel  n native  c reset"

HEADING, COLUMNS, CURSOR, ALARM, DIM = (
    Style.parse(style) for style in ("bold", "black on green", "reverse", "bold red", "dim")
)
KINDS = {FrameKind.NATIVE: Style(color="cyan"), FrameKind.KERNEL: Style(color="magenta"), FrameKind.MARK: DIM}


@dataclass(frozen=True, slots=True)
class Situation:
    """The facts in the header; ``target`` describes what is sampled."""

    target: str
    host: str
    frequency: int
    cpus: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Screen:
    """Lines from top to bottom, none wider than the screen, and the rows that keys will refer to."""

    lines: list[Text]
    shown: Shown


def screen(state: ViewState, totals: LiveTotals, situation: Situation, width: int, height: int) -> Screen:
    """Draw the whole screen of ``width`` columns and ``height`` lines."""
    found = functions(totals, state.wanted)
    processes = process_rows(totals, state.wanted, situation.frequency)
    room = max(height - HEADER - 3, 2)  # two lines of column names and the last line
    upper = min(max(int(room * PROCESSES_SHARE), PROCESSES_MIN), max(len(processes), PROCESSES_MIN), room - 1)
    lower = room - upper
    first = min(state.first, max(len(found.numbers) - lower, 0))
    lines = [
        *header_lines(state, totals, situation),
        *process_lines(state, processes, width, upper),
        *function_lines(state, found, found.rows(first, lower, situation.frequency), width, lower),
    ]
    if state.help:
        lines = [*lines[:HEADER], *help_lines()]
    lines = [*lines, *[Text("")] * height][: max(height - 1, 0)]
    shown = Shown([row.pid for row in processes], len(found.numbers), lower)
    return Screen([_fitted(line, width) for line in [*lines, _last_line(state, width)]], shown)


def _fitted(line: Text, width: int) -> Text:
    if line.cell_len > width:
        line = line.copy()
        line.truncate(width, overflow="crop")
    return line


def header_lines(state: ViewState, totals: LiveTotals, situation: Situation) -> list[Text]:
    """Draw the header: what is sampled, its CPU, how complete the samples are, and the choices of the view."""
    progress, since = situation.progress, totals.since.all
    minutes, seconds = divmod(int(progress.elapsed), 60)
    title = Text.assemble(
        ("pyflame-ebpf top", HEADING),
        f"  {minutes}:{seconds:02}  {situation.target} on {visible(situation.host)}, {situation.frequency} Hz",
    )
    if state.paused:
        title = Text.assemble(("PAUSED ", ALARM), title)
    samples = totals.latest.all.samples
    cores = samples / situation.frequency / totals.latest.seconds if totals.latest.seconds else 0.0
    complete = 100 * since.complete / since.samples if since.samples else 100.0
    load = Text.assemble(
        "CPU ",
        (f"{cores:.2f}", HEADING),
        f" of {situation.cpus} cores  {progress.samples:,} samples, {_rounded_down(complete)} % complete, ",
        (f"{progress.lost:,} lost", ALARM if progress.lost else ""),
        f"  {progress.processes:,} processes, {progress.python_processes:,} Python",
    )
    return [title, load, Text("  ".join(_shown_parts(state)))]


def _rounded_down(percent: float) -> str:
    """Round down to one decimal, so that only a complete count shows 100."""
    return f"{int(percent * 10) / 10:g}"


def _shown_parts(state: ViewState) -> Iterator[str]:
    wanted = state.wanted
    yield f"{'lines' if wanted.lines else 'functions'} by {wanted.sort.value}"
    yield f"kernel {_on(wanted.frames.kernel)}"
    yield f"native {_on(wanted.frames.native)}"
    if wanted.pid is not None:
        yield f"process {wanted.pid}"
    if wanted.pattern:
        yield f"filter /{wanted.pattern.pattern}/"


def _on(value: bool) -> str:
    return "on" if value else "off"


# ---- processes ----


def process_lines(state: ViewState, rows: list[ProcessRow], width: int, height: int) -> list[Text]:
    """Draw the pane of processes: column names, and ``height`` rows that scroll with the cursor."""
    pids = [row.pid for row in rows]
    at = pids.index(state.cursor) if state.cursor in pids else 0
    first = max(0, at - height + 1)
    lines = [_process_header(state.wanted.sort, width)]
    for row in rows[first : first + height]:
        line = Text(_process_text(row, width), style=DIM if not row.cpu_percent else "")
        if row.pid == state.cursor:
            line = Text(set_cell_size(line.plain, width), style=CURSOR)
        elif row.pid == state.wanted.pid:
            line.stylize(HEADING)
        lines.append(line)
    return [*lines, *[Text("")] * (height + 1 - len(lines))]


def _process_header(sort: Sort, width: int) -> Text:
    texts = _process_cells(width, "PID", "CPU%", "GIL%", "CPU s", "Python", "Command", "Hottest line")
    return _column_names(texts, "CPU s" if sort.since else "CPU%", width)


def _process_text(row: ProcessRow, width: int) -> str:
    cells = _process_cells(
        width,
        str(row.pid),
        _figure(row.cpu_percent),
        "" if row.gil_percent is None else _figure(row.gil_percent),
        f"{row.seconds:,.1f}",
        row.interpreter,
        row.command,
        row.hottest,
    )
    return " ".join(cells)


def _process_cells(  # noqa: PLR0913, PLR0917 - one for each column
    width: int, pid: str, cpu: str, gil: str, seconds: str, interpreter: str, command: str, hottest: str
) -> list[str]:
    cells = [f"{pid:>7}", f"{cpu:>6}"]
    if width >= WIDE_FOR_GIL:
        cells.append(f"{gil:>5}")
    cells.append(f"{seconds:>8}")
    if width >= WIDE_FOR_PYTHON:
        cells.append(set_cell_size(interpreter, 7))
    left = max(width - sum(len(cell) + 1 for cell in cells), 1)
    if width < WIDE_FOR_HOTTEST:
        return [*cells, _cut(command, left)]
    share = max(COMMAND_MIN, int(left * COMMAND_SHARE))
    return [*cells, set_cell_size(_cut(command, share), share), _cut_middle(hottest, left - share - 1)]


# ---- functions ----


def function_lines(
    state: ViewState, found: FunctionList, rows: list[FunctionRow], width: int, height: int
) -> list[Text]:
    """Draw the pane of functions or lines: column names, and ``height`` rows."""
    name = "Line" if state.wanted.lines else "Function"
    more = f" ({len(found.numbers):,})"
    header = _function_cells(width, "Self%", "Total%", "Self s", "Total s", name + more)
    lines = [_column_names(header, state.wanted.sort.value, width)]
    for row in rows:
        figures = (_figure(row.own_percent), _figure(row.total_percent))
        cells = _function_cells(width, *figures, f"{row.own_seconds:,.1f}", f"{row.total_seconds:,.1f}", row.label)
        line = Text(" ".join(cells), style=DIM if not row.total_percent else "")
        if row.kind in KINDS and row.total_percent:
            line.stylize(KINDS[row.kind], len(line.plain) - len(cells[-1]))
        lines.append(line)
    return [*lines, *[Text("")] * (height + 1 - len(lines))]


def _function_cells(  # noqa: PLR0913, PLR0917 - one for each column
    width: int, own: str, total: str, own_seconds: str, total_seconds: str, label: str
) -> list[str]:
    cells = [f"{own:>6}", f"{total:>6}"]
    if width >= WIDE_FOR_SECONDS:
        cells += [f"{own_seconds:>8}", f"{total_seconds:>8}"]
    return [*cells, _cut_middle(label, max(width - sum(len(cell) + 1 for cell in cells), 1))]


def _column_names(cells: list[str], sorted_by: str, width: int) -> Text:
    line = Text(set_cell_size(" ".join(cells), width), style=COLUMNS)
    at = line.plain.find(sorted_by)
    if at >= 0:
        line.stylize(Style(bold=True, reverse=True), at, at + len(sorted_by))
    return line


def _figure(percent: float) -> str:
    return f"{percent:.1f}" if percent < 999.95 else f"{percent:.0f}"  # noqa: PLR2004 - six characters


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + ELLIPSIS


def _cut_middle(text: str, width: int) -> str:
    """Shorten a text in its middle: a label begins with the function and ends with the line."""
    if cell_len(text) <= width:
        return text
    tail = max((width - 1) // 2, 0)
    ending = chop_cells(text[::-1], tail)[0][::-1] if tail > 1 else ""
    return set_cell_size(text, max(width - 1 - cell_len(ending), 0)) + ELLIPSIS + ending


# ---- the rest ----


def help_lines() -> list[Text]:
    """Draw the list of keys."""
    keys = [Text.assemble((f"{key:>11}  ", HEADING), text) for key, text in HELP_KEYS]
    return [Text(""), *keys, Text(""), *map(Text, HELP_TEXT)]


def _last_line(state: ViewState, width: int) -> Text:
    """Draw the text being typed (printable as it is, see ``pressed``), else the message, else the keys that fit."""
    if state.typed is not None:
        asked = "save to: " if state.asks is Action.SAVE else "filter: /"
        room = max(width - len(asked) - 1, 1)
        return Text.assemble((asked, HEADING), state.typed[-room:], ("_", "blink"))
    if state.message:
        return Text(visible(state.message), style=HEADING)
    return Text(_as_many(FOOTER.split("  "), width), style=DIM)


def _as_many(parts: Iterable[str], width: int) -> str:
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line
