#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants wrong arrows in a small copy of the house and expects each to be named."""

import os
import shutil
import tempfile
import unittest

import arrows

PRIVATE_BUILD = 'package(default_visibility = ["//visibility:private"])\n'


class ArrowsTest(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        with open(os.path.join(arrows.workspace(), arrows.TABLE), encoding="utf-8") as file:
            self.put(arrows.TABLE, file.read())
        for folder in ("transport", "fallback/wire", "fallback/engine", "fallback/io", "rpc"):
            self.put(folder + "/BUILD.bazel", PRIVATE_BUILD)

    def put(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def findings(self):
        return arrows.Checker(self.root).run()

    def assert_include(self, path, header, right):
        self.put(path, f'#include "{header}"\n')
        findings = self.findings()
        os.unlink(os.path.join(self.root, path))
        self.assertEqual(not findings, right, f"{path} -> {header}: {findings}")

    def test_the_empty_house_is_right(self):
        self.assertEqual(self.findings(), [])

    def test_includes(self):
        for path, header, right in (
                ("fallback/engine/a.cc", "fallback/wire/mpa.h", True),
                ("fallback/engine/a.cc", "transport/work_request.h", True),
                ("fallback/engine/a.cc", "transport/device.h", False),
                ("fallback/engine/a.cc", "fallback/io/io.h", False),
                ("fallback/io/a.cc", "fallback/engine/engine.h", False),
                ("fallback/wire/a.h", "transport/work_request.h", False),
                ("fallback/provider.cc", "fallback/engine/engine.h", True),
                ("fallback/provider.cc", "rpc/server.h", False),
                ("transport/queue_pair.cc", "fallback/provider.h", False),
                ("transport/providers.cc", "fallback/provider.h", True),
                ("rpc/server.cc", "transport/device.h", True),
                ("rpc/server.cc", "fallback/provider.h", False),
                ("tools/ping.cc", "fallback/provider.h", False),
                ("examples/copy.cc", "fallback/engine/engine.h", False),
                ("tests/sim/a.cc", "fallback/engine/engine.h", True),
                ("transport/a_test.cc", "tests/sim/clock.h", True),
                ("transport/a.cc", "tests/sim/clock.h", False),
                ("transport/a.cc", "absl/status/status.h", True),
                ("elsewhere/a.cc", "transport/device.h", False)):
            with self.subTest(path=path, header=header):
                os.makedirs(os.path.join(self.root, "tests/sim"), exist_ok=True)
                self.assert_include(path, header, right)

    def test_dependencies(self):
        for package, call, right in (
                ("rpc", 'cc_library(name = "a", deps = ["//transport:verbena"])', True),
                ("rpc", 'cc_library(name = "a", deps = ["//fallback:provider"])', False),
                ("rpc", 'cc_library(name = "a", deps = [":b"] + select({"//:x": ["//fallback"]}))',
                 False),
                ("rpc", 'cc_library(name = "a", deps = ["//third_party/system:absl_time"])', True),
                ("transport", 'cc_library(name = "a", srcs = ["providers.cc"], '
                 'deps = ["//fallback:provider"])', True),
                ("transport", 'cc_library(name = "a", srcs = ["device.cc"], '
                 'deps = ["//fallback:provider"])', False),
                ("fallback/engine", 'cc_library(name = "a", deps = ["//transport:values"])', True),
                ("fallback/engine", 'cc_library(name = "a", deps = ["//fallback/io:io"])', False),
                ("fallback/engine", 'cc_test(name = "a", deps = ["//tests/sim:clock"])', True)):
            with self.subTest(package=package, call=call):
                self.put(package + "/BUILD.bazel", PRIVATE_BUILD + call + "\n")
                self.assertEqual(not self.findings(), right, self.findings())
                self.put(package + "/BUILD.bazel", PRIVATE_BUILD)

    def test_visibility_must_be_declared_and_not_public(self):
        self.put("rpc/BUILD.bazel", "")
        self.assertIn("declares no visibility", self.findings()[0])
        self.put("rpc/BUILD.bazel", 'package(default_visibility = ["//visibility:public"])\n')
        self.assertEqual(self.findings(), [])
        self.put("fallback/io/BUILD.bazel", PRIVATE_BUILD +
                 'cc_library(name = "a", visibility = ["//visibility:public"])\n')
        self.assertIn("must not be public", self.findings()[0])

    def test_a_broken_build_file_is_found(self):
        self.put("rpc/BUILD.bazel", "package(\n")
        self.assertEqual(len(self.findings()), 1)


if __name__ == "__main__":
    unittest.main()
