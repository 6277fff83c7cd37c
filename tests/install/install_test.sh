#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Scenario: `//:install` into an empty folder, the folder moved elsewhere, and a
# CMake project outside the tree built against it, then the same by pkg-config; one
# program of verbs, one with a service of its own.
# Expect: the programs run, list the tcp device and have their call answered;
# verbena.h has every header; `verbena run` finds its libraries.
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
  lib/cmake/verbena/verbena-config.cmake lib/libverbena_rpc.a lib/libverbena_rpc_names.a \
  lib/cmake/verbena/verbena-rpc.cmake lib/pkgconfig/verbena_rpc.pc bin/protoc-gen-verbena \
  share/verbena/proto/bulk.proto include/verbena/rpc/channel.h lib/verbena/libibverbs.so.1 \
  lib/verbena/librdmacm.so; do
  [ -s "$prefix/$file" ] || fail "$file: not installed; see //:install in BUILD.bazel"
done
for program in verbena protoc-gen-verbena; do
  [ -x "$prefix/bin/$program" ] || fail "bin/$program: not executable"
done

for header in "$prefix"/include/verbena/transport/*.h; do
  # Needed by the others, but the providers' side of the seam is not for callers.
  [ "$(basename "$header")" != provider.h ] || continue
  grep -q "#include \"transport/$(basename "$header")\"" "$prefix/include/verbena/verbena.h" ||
    fail "$(basename "$header"): public, but packaging/verbena.h does not include it; add it there"
done

if command -v ibv_devices >/dev/null; then
  "$prefix/bin/verbena" run -- ibv_devices >"$work/devices" || fail "verbena run: ibv_devices fails"
  grep -q tcp_lo "$work/devices" || fail "verbena run: ibv_devices shows no device tcp_lo"
else
  echo "skipped: ibv_devices is missing; tools/setup --test installs it"
fi

source=$PWD/tests/install/outside
[ -f "$source/main.cc" ] || fail "outside/main.cc: not among the test's data"
cp -rL "$source" "$work/outside" # as a user has it: no Bazel around it

cmake -S "$work/outside" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug \
  >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log" >&2; fail "cmake does not configure"; }
cmake --build "$work/cmake" >"$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; fail "the CMake project does not build"; }
"$work/cmake/outside" | tee "$work/cmake.out"
grep -q '^tcp' "$work/cmake.out" || fail "the CMake program lists no tcp device"
"$work/cmake/outside_rpc" | tee "$work/rpc.out"
grep -qx 'hello outside' "$work/rpc.out" || fail "the CMake program's call was not answered"
ldd "$work/cmake/outside" | grep -q libcurl && fail "a program without names of etcd has libcurl"

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
[ "$(pkg-config --modversion verbena)" != "" ] || fail "verbena.pc: has no version"
read -ra flags < <(pkg-config --cflags --libs verbena)
"${CXX:-g++}" -std=c++20 "$work/outside/main.cc" -o "$work/outside_pc" "${flags[@]}" ||
  fail "the program does not build with pkg-config's flags: ${flags[*]}"
"$work/outside_pc" >"$work/pc.out"
grep -q '^tcp' "$work/pc.out" || fail "the pkg-config program lists no tcp device"

read -ra flags < <(pkg-config --cflags --libs verbena_rpc_names)
mkdir "$work/pc"
protoc -I"$work/outside" -I"$(pkg-config --variable=protodir verbena_rpc)" --cpp_out="$work/pc" \
  --plugin=protoc-gen-verbena="$(pkg-config --variable=plugin verbena_rpc)" \
  --verbena_out="$work/pc" "$work/outside/greeter/greeter.proto"
"${CXX:-g++}" -std=c++20 -I"$work/pc" "$work/outside/rpc_main.cc" "$work/pc/greeter/greeter.pb.cc" \
  -o "$work/outside_rpc_pc" "${flags[@]}" ||
  fail "the program with a service does not build with pkg-config's flags: ${flags[*]}"
"$work/outside_rpc_pc" | grep -qx 'hello outside' || fail "the pkg-config program got no answer"
echo "installed, moved, and built against by CMake and by pkg-config"
