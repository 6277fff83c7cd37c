#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants each violation in a small tree and expects it, and only it, to be found."""

import os
import tempfile
import unittest

import tidy

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"


def rules(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        return [finding.split(": ")[1] for finding in tidy.Tidy(root).run()]


class TidyTest(unittest.TestCase):
    def assert_rules(self, path, text, *expected):
        self.assertEqual(rules({path: text}), list(expected), text)

    def test_clean_file(self):
        self.assert_rules("transport/a.cc", SPDX + "int F() {\n  return 1;\n}\n")

    def test_licence_and_newline(self):
        self.assert_rules("transport/a.h", "int a;\n", "licence")
        self.assert_rules("transport/a.h", SPDX + "int a;", "newline")

    def test_lengths(self):
        self.assert_rules("tools/a.cc", SPDX + "int a;\n" * 500, "file-length")
        self.assert_rules("tests/a.cc", SPDX + "int a;\n" * 500)
        self.assert_rules("tests/a.cc", SPDX + "int a;\n" * 800, "file-length")
        self.assert_rules("tools/a.cc", SPDX + "int " + "a" * 100 + ";\n", "line-length")
        self.assert_rules("tools/a.cc", SPDX + "// see https://example.org/" + "a" * 100 + "\n")

    def test_function_length(self):
        body = "  Step();\n" * 80
        self.assert_rules("tools/a.cc", SPDX + "int F(int a) {\n" + body + "}\n", "function-length")
        self.assert_rules("tools/a.cc", SPDX + "int F(int a,\n      int b) {\n" + body + "}\n",
                          "function-length")
        self.assert_rules("tools/a.cc", SPDX + "class C {\n  int F() const {\n  " +
                          body.replace("  ", "    ") + "  }\n};\n", "function-length")
        self.assert_rules("tools/a.cc", SPDX + "namespace a {\n" + "int F() {\n}\n" * 50 + "}\n")
        self.assert_rules("tools/a.cc", SPDX + "int F(int a) {\n" + "  Step();\n" * 78 + "}\n")

    def test_banned_calls(self):
        for call, rule in (("exit(1)", "exit"), ("std::exit(1)", "exit"), ("_exit(1)", "exit"),
                           ("std::abort()", "abort")):
            text = SPDX + f"void F() {{ {call}; }}\n"
            self.assert_rules("fallback/a.cc", text, rule)
            self.assert_rules("tools/a.cc", text)
        self.assert_rules("tools/a.cc", SPDX + "void F() { strcpy(a, b); }\n", "strcpy")
        self.assert_rules("fallback/a.cc", SPDX + "// never exit()\nint on_exit(1);\n")
        self.assert_rules("fallback/a.cc", SPDX + 'auto a = "exit(1)";\n')

    def test_shared_ptr_needs_a_reason(self):
        files = {"rpc/a.cc": SPDX + "std::shared_ptr<int> a;\n"}
        self.assertEqual(rules(files), ["shared_ptr"])
        self.assertEqual(rules({**files, tidy.ALLOW_FILE: "shared_ptr rpc/a.cc because\n"}), [])
        self.assertEqual(rules({**files, tidy.ALLOW_FILE: "shared_ptr rpc/a.cc\n"}),
                         ["allow", "shared_ptr"])

    def test_an_exception_that_allows_nothing_is_found(self):
        self.assertEqual(rules({tidy.ALLOW_FILE: "shared_ptr rpc/a.cc because\n"}), ["allow"])

    def test_notes_need_a_number(self):
        for word in ("TODO", "FIXME", "XXX"):
            self.assert_rules("tools/a.py", f"# {word}: later\n", "todo")
            self.assert_rules("tools/a.py", f"# {word}(#12): later\n")

    def test_tests_do_not_sleep(self):
        sleeps = {"tests/a.sh": "sleep 1\n", "tests/b.sh": "true; sleep 0.1\n",
                  "tools/c_test.py": "time.sleep(1)\n"}
        self.assertEqual(rules(sleeps), ["sleep"] * 3)
        self.assert_rules("tests/a_test.cc", SPDX + "void F() { std::this_thread::sleep_for(d); }\n",
                          "sleep")
        self.assert_rules("tools/a.cc", SPDX + "void F() { usleep(1); }\n")

    def test_shell_syntax(self):
        self.assert_rules("tools/a", "#!/bin/bash\nif true; then\n", "shell")
        self.assert_rules("tools/a", "#!/bin/bash\nif true; then :; fi\n")

    def test_folders_that_are_not_ours(self):
        self.assertEqual(rules({"bazel-out/a.cc": "x", ".git/a.cc": "x", "a.bin": "x"}), [])


if __name__ == "__main__":
    unittest.main()
