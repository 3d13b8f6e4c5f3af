#!/bin/bash
# Builds the page of report.html from pyflame_ebpf/outputs/report_page/source, with the packages of its lock file.
#
#   scripts/build_report_page.sh           writes page.js and page.css
#   scripts/build_report_page.sh --check   checks the types, and that the committed files are what their source makes
#
# Needs node and npm, which users do not: the built files are in the repository and in the wheel.
set -euo pipefail

# Prints the head of this script: what it does, and its arguments.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p; }' "$0"
}

die() {
    echo "build_report_page.sh: $*" >&2
    exit 1
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { show_help; exit 0; }
mode=${1:-}
[[ $mode == "" || $mode == --check ]] || die "unknown argument $mode; see --help"
command -v npm >/dev/null || die "npm is not installed; on Debian: apt-get install nodejs npm"
page=$(cd "$(dirname "$0")/../pyflame_ebpf/outputs/report_page" && pwd)

# In a copy, so that the checkout gets no node_modules, and may be read-only.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$page/package.json" "$page/package-lock.json" "$page/tsconfig.json" "$page/source" "$work"
cd "$work"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
npm run --silent --loglevel=error check
npm run --silent --loglevel=error build

for file in page.js page.css; do
    if [[ $mode == --check ]]; then
        cmp -s "$file" "$page/$file" || die "$file is not what its source makes: run scripts/build_report_page.sh, and commit it"
    else
        cp "$file" "$page/$file"
    fi
    echo "$file: $(wc -c <"$file") bytes, $(gzip -9 <"$file" | wc -c) compressed"
done
