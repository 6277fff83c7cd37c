#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks arrows.txt against every #include and every BUILD dependency: `arrows.py [ROOT]`.

Bazel's visibility enforces the same at build time; this also sees files that no target
names, and says which arrow is wrong. Beside the arrows, each package must declare its
default visibility, and those of the fallback's inside must not be public.
"""

import ast
import os
import re
import sys

TABLE = "tests/visibility/arrows.txt"
EVERYBODYS = ("third_party/system", "bazel", "")
PRIVATE = ("fallback/engine", "fallback/io", "fallback/wire")
SKIPPED = re.compile(r"bazel-.*|\.git|\.verbena-cache|shims|__pycache__")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
DEPENDENCY_ATTRIBUTES = ("deps", "implementation_deps", "srcs", "hdrs", "textual_hdrs", "dep")


def parse_table(text):
    """{folder or file: set of folders it may see}."""
    arrows = {}
    for number, line in enumerate(text.replace("\\\n", "").splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        source, arrow, targets = line.partition("->")
        if not arrow or source.strip() in arrows:
            raise ValueError(f"{TABLE}:{number}: needs `folder -> folder, folder`, once for each "
                             f"folder: {line}")
        arrows[source.strip()] = {t.strip() for t in targets.split(",") if t.strip()}
    return arrows


def owner(path, arrows):
    """The longest row that is the path or a folder above it; None if there is none."""
    fits = [row for row in arrows if path == row or path.startswith(row + "/")]
    return max(fits, key=len, default=None)


def allowed(source, target, path, arrows):
    """`path` is a file, or a package: of a package whose files are listed one by one, its
    targets may be depended upon, and the includes decide."""
    rule = arrows[source]
    return ("*" in rule or target == source or target in rule or path in rule
            or ("." not in path and any(os.path.dirname(listed) == path for listed in rule
                                        if listed not in arrows)))


def package_of(label, package):
    """//a/b:c -> a/b, :c and c -> the package itself, @other -> None."""
    if label.startswith("@"):
        return None
    return label[2:].split(":")[0] if label.startswith("//") else package


class Checker:
    def __init__(self, root):
        self.root = root
        self.findings = []
        self.seen = 0
        with open(os.path.join(root, TABLE), encoding="utf-8") as file:
            self.arrows = parse_table(file.read())

    def run(self):
        for folder, subfolders, names in os.walk(self.root):
            subfolders[:] = sorted(s for s in subfolders if not SKIPPED.fullmatch(s))
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), self.root)
                if name.endswith((".cc", ".h")):
                    self.check_includes(path)
                elif name == "BUILD.bazel":
                    self.check_build(path)
        return self.findings

    def read(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            return file.read()

    def check_arrow(self, where, source_path, target_path, what):
        self.seen += 1
        source, target = owner(source_path, self.arrows), owner(target_path, self.arrows)
        if source is None:
            self.findings.append(f"{where}: {source_path} is in no folder of {TABLE}; add its row")
        elif target is None:
            self.findings.append(f"{where}: {what} is in no folder of {TABLE}; add its row")
        elif target == "tests" and source_path.endswith("_test.cc"):
            return
        elif not allowed(source, target, target_path, self.arrows):
            self.findings.append(f"{where}: {source} may not see {target} ({what}); see {TABLE}")

    def check_includes(self, path):
        for number, line in enumerate(self.read(path).splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            # "absl/…" and the like are not in the tree; generated headers are, by folder.
            top = match.group(1).split("/")[0]
            if "/" in match.group(1) and os.path.isdir(os.path.join(self.root, top)):
                folder = os.path.dirname(match.group(1))
                if folder not in EVERYBODYS:
                    self.check_arrow(f"{path}:{number}", path, match.group(1), match.group(0))

    def check_build(self, path):
        package = os.path.dirname(path)
        try:
            calls = [node.value for node in ast.walk(ast.parse(self.read(path)))
                     if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
        except SyntaxError as error:
            self.findings.append(f"{path}:{error.lineno}: cannot be read: {error.msg}")
            return
        if package not in EVERYBODYS:
            self.check_visibility(path, package, calls)
            for call in calls:
                self.check_target(path, package, call)

    def check_visibility(self, path, package, calls):
        declared = False
        for call in calls:
            attributes = {k.arg: k.value for k in call.keywords}
            if getattr(call.func, "id", "") == "package" and "default_visibility" in attributes:
                declared = True
            for name in ("default_visibility", "visibility"):
                if "//visibility:public" in strings(attributes.get(name)) and package in PRIVATE:
                    self.findings.append(f"{path}:{call.lineno}: {package} must not be public; "
                                         "name the packages that may see it")
        if not declared:
            self.findings.append(f"{path}:1: declares no visibility; begin with "
                                 "package(default_visibility = [...])")

    def check_target(self, path, package, call):
        # A file's row is narrower than its package's: a target is what its sources are.
        attributes = {k.arg: k.value for k in call.keywords}
        files = [s for s in strings(attributes.get("srcs")) if ":" not in s]
        rows = {owner(os.path.join(package, f), self.arrows) for f in files}
        special = [r for r in rows if r in {os.path.join(package, f) for f in files}]
        source = special[0] if special else package
        if bool_of(attributes.get("testonly")) or "test" in getattr(call.func, "id", ""):
            return  # a test may see whatever it tests; its includes are checked by folder
        for name in DEPENDENCY_ATTRIBUTES:
            for label in strings(attributes.get(name)):
                target = package_of(label, package)
                if target is not None and target not in EVERYBODYS and target != package:
                    self.check_arrow(f"{path}:{call.lineno}", source, target, label)


def strings(node):
    """Every string constant below a node: lists, sums and select()s alike."""
    if node is None:
        return []
    return [n.value for n in ast.walk(node)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def bool_of(node):
    return isinstance(node, ast.Constant) and node.value is True


def workspace():
    """The checkout: this file's real place, also when Bazel runs a link to it."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def main(argv):
    checker = Checker(os.path.abspath(argv[0]) if argv else workspace())
    findings = checker.run()
    for finding in findings:
        print(finding)
    print(f"arrows: {checker.seen} includes and dependencies, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
