"""The text of each command's ``--help``: what it does, then examples."""

HELP = """Sample the CPU use of Python and everything else on this host, without touching the programs.

Each command has its own --help, with more examples.

    sudo pyflame-ebpf record --all --duration 60  the whole host, for a minute
    sudo pyflame-ebpf record --pid 1234           one process, until Ctrl-C
    sudo pyflame-ebpf record -- python3 app.py    a program from start to end
    sudo pyflame-ebpf top                         what runs now, once a second
    pyflame-ebpf report DIR --format table        what a recording showed
    pyflame-ebpf diff BEFORE AFTER                what changed between two recordings
    sudo pyflame-ebpf doctor                      can this host be recorded?
"""

RECORD_HELP = """Record, and write folded stacks, a flame graph and a table of processes into a new directory.

Say what to record with one of --all, --pid (more than once, if you like) and -- COMMAND. The command runs as the user
who called sudo; it and all that it starts are recorded until it ends. Without --duration a recording lasts until
Ctrl-C (or SIGTERM), which writes everything; Ctrl-C while it writes leaves only the saved profile.

    sudo pyflame-ebpf record --all --duration 60
    sudo pyflame-ebpf record --pid 1234 --pid 1235 --lines --output workers
    sudo pyflame-ebpf record --all --python --duration 5m --frequency 49
    sudo pyflame-ebpf record --pid 1234 --output - | flamegraph.pl >graph.svg
    sudo pyflame-ebpf record -- python3 app.py --its-own-option

The directory holds report.html (everything, to explore in any browser), flamegraph.svg, stacks.folded (for
flamegraph.pl, inferno, speedscope), processes.csv, and profile.json.gz, from which 'pyflame-ebpf report' makes all of
them again.
"""

REPORT_HELP = """Make outputs again from a saved recording; needs no root.

Folded stacks that perf, py-spy, Austin or FlameGraph's collapse scripts wrote do as well as a recording.

Without --format and --output it prints the table of processes. With --output alone it writes all outputs into a new
directory.

    pyflame-ebpf report DIR
    pyflame-ebpf report DIR --format svg --lines --output lines.svg
    pyflame-ebpf report DIR --format folded --python | flamegraph.pl >graph.svg
    pyflame-ebpf report DIR/profile.json.gz --threads --output OTHER-DIR
    pyflame-ebpf report DIR --from 0:40 --to 1:10 --process gunicorn --group-by command,thread
    pyflame-ebpf report perf.folded --format svg --output perf.svg
"""

DIFF_HELP = """Tell what changed between two recordings, or two times of one; needs no root.

Recordings are directories, saved profiles, or folded stacks of any tool. CPU is compared as cores used, so durations
and frequencies may differ; processes are matched by command. Without --format and --output it prints tables of
functions, lines and processes by change; grey rows marked ~ changed no more than chance would have it.

    pyflame-ebpf diff BEFORE AFTER
    pyflame-ebpf diff BEFORE AFTER --process gunicorn --core-hour-price 0.04
    pyflame-ebpf diff DIR --from 0 --to 0:30 --from 0:30 --to 1:00
    pyflame-ebpf diff BEFORE AFTER --format svg --output difference.svg
    pyflame-ebpf diff old.folded new.folded --duration 30 --frequency 99
"""

TOP_HELP = """Show what uses the CPU now: processes, and the hottest functions or lines, once a second.

CPU%, Self% and Total% are of one core in the last interval; the columns in s are seconds of CPU since the start.

    sudo pyflame-ebpf top
    sudo pyflame-ebpf top --pid 1234 --interval 5

Keys: q quit, space pause, / filter by a regular expression, s sort, l functions or lines, arrows and p one process
only, k and n kernel and native frames, PgUp and PgDn more functions, c count anew, w save a recording, ? help.

'w' writes the same directory as 'record', of what was sampled so far, while the view goes on. Of a long view only the
last minutes are kept to be saved. It needs a terminal; without one, use 'record'.
"""

DOCTOR_HELP = """Tell what this host can record, and of a process what will be seen and why not.

Checks that need root are named when it runs without. The exit code is 0 when 'record' will work here.

    sudo pyflame-ebpf doctor
    sudo pyflame-ebpf doctor 1234
"""
