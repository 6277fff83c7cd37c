# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Instructions of single functions of a program, counted by callgrind: the same on every run,
# whatever else the machine does. For tests/bench/overhead and tests/bench/instructions.

# shellcheck disable=SC2034
built=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/bazel-bin/tests/bench
around=() # the command in which the program runs, if any

begin_counting() { # NAME FILE...: what has to be there. $work is there until the end
  local name=$1 file
  for file in "${@:2}"; do
    [ -r "$file" ] || {
      echo "$name: first bazel build -c opt //tests/bench/..." >&2
      exit 2
    }
  done
  command -v valgrind >/dev/null || {
    echo "skipped: $name: valgrind is missing; tools/setup --full installs it"
    exit 77
  }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
}

profile() { # PROGRAM...: once, for all counts
  "${around[@]}" valgrind --tool=callgrind --callgrind-out-file="$work/profile" \
    "$@" >"$work/said" 2>&1 || {
    cat "$work/said" >&2
    exit 1
  }
  callgrind_annotate --inclusive=yes --threshold=100 "$work/profile" >"$work/counts"
}

count() { # FUNCTION CALLS: instructions of a call, with what it calls
  awk -v name="$1" -v calls="$2" '
    match($0, ":" name "( |$)") { gsub(",", "", $1); printf "%.1f", $1 / calls; found = 1; exit }
    END { exit !found }' "$work/counts" || {
    echo "no call of $1 was counted" >&2
    exit 1
  }
}
