#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Scenario: `//:install` into an empty folder, the folder moved elsewhere, and a
# CMake project outside the tree built against it, then the same by pkg-config.
# Expect: both programs run and list the tcp device; verbena.h has every header.
set -euo pipefail
case $1 in /*) install=$1 ;; *) install=$PWD/$1 ;; esac
work=${TEST_TMPDIR:?set by bazel test}

fail() {
  echo "install_test: $1" >&2
  exit 1
}

"$install" "$work/first"
mv "$work/first" "$work/prefix" # what is installed must not name its place
prefix=$work/prefix
for file in lib/libverbena.a bin/verbena include/verbena/verbena.h lib/pkgconfig/verbena.pc \
  lib/cmake/verbena/verbena-config.cmake; do
  [ -s "$prefix/$file" ] || fail "$file: not installed; see //:install in BUILD.bazel"
done
[ -x "$prefix/bin/verbena" ] || fail "bin/verbena: not executable"

for header in "$prefix"/include/verbena/transport/*.h; do
  # Needed by the others, but the providers' side of the seam is not for callers.
  [ "$(basename "$header")" != provider.h ] || continue
  grep -q "#include \"transport/$(basename "$header")\"" "$prefix/include/verbena/verbena.h" ||
    fail "$(basename "$header"): public, but packaging/verbena.h does not include it; add it there"
done

source=$PWD/tests/install/outside
[ -f "$source/main.cc" ] || fail "outside/main.cc: not among the test's data"
cp -rL "$source" "$work/outside" # as a user has it: no Bazel around it

cmake -S "$work/outside" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log" >&2; fail "cmake does not configure"; }
cmake --build "$work/cmake" >"$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; fail "the CMake project does not build"; }
"$work/cmake/outside" | tee "$work/cmake.out"
grep -q '^tcp' "$work/cmake.out" || fail "the CMake program lists no tcp device"

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
[ "$(pkg-config --modversion verbena)" != "" ] || fail "verbena.pc: has no version"
read -ra flags < <(pkg-config --cflags --libs verbena)
"${CXX:-g++}" -std=c++20 "$work/outside/main.cc" -o "$work/outside_pc" "${flags[@]}" ||
  fail "the program does not build with pkg-config's flags: ${flags[*]}"
"$work/outside_pc" >"$work/pc.out"
grep -q '^tcp' "$work/pc.out" || fail "the pkg-config program lists no tcp device"
echo "installed, moved, and built against by CMake and by pkg-config"
