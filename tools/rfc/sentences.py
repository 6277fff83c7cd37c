#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The sentences of an RFC that hold a key word of RFC 2119, by section.

    tools/rfc/sentences.py rfc5044.txt          a line a section: M for each MUST, S for each SHOULD
    tools/rfc/sentences.py --text rfc5044.txt   the sentences, numbered as the rows of docs/rfc

The first is what docs/rfc/sentences.txt holds. The texts of the RFCs are not in this tree; Debian's
package doc-rfc-std-proposed has them.
"""

import argparse
import re
import sys

MUST = re.compile(r"\b(?:MUST|SHALL|(?<!not )(?<!NOT )REQUIRED)\b")
SHOULD = re.compile(r"\b(?:SHOULD|(?<!not )(?<!NOT )RECOMMENDED)\b")
HEADING = re.compile(r"^((?:\d+|Appendix [A-Z]|[A-Z])(?:\.\d+)*)\.? {1,2}(?=[A-Z])")
CONTENTS = re.compile(r"(?:\. ?){4}")
ITEM = r"(?:[*o-]|\d+\.|\(?[a-z\d]\)) "
PAGE = re.compile(r"\s*\n[^\n]*\[Page \d+\]\n\f?\n?(?:RFC \d+ [^\n]*)?\s*\n")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|Inc|[A-Z])\.$")


def without_pages(text):
    """The text with page feet and heads gone, and a sentence that a page broke in one piece."""
    pieces = PAGE.split(text)
    whole = pieces[0]
    for piece in pieces[1:]:
        ended = whole.endswith((".", ":", ";")) or re.match(rf"\s*{ITEM}|\d|\s*[+|]", piece)
        whole += ("\n\n" if ended else "\n") + piece
    return whole


def paragraphs(text):
    """(section, paragraph), in order. An item of a list is a paragraph."""
    section, current = "0", []
    for line in without_pages(text).splitlines():
        heading = HEADING.match(line)
        heading = heading if heading and not CONTENTS.search(line) else None
        if current and (heading or not line.strip() or re.match(rf"\s*{ITEM}", line)):
            yield section, " ".join(current)
            current = []
        if heading:
            section = heading.group(1).replace("Appendix ", "")
        elif line.strip():
            current.append(line.strip())
    yield section, " ".join(current)


def split(paragraph):
    """Its sentences."""
    sentence = ""
    for piece in re.split(r"(?<=[.;:?])\s+(?=[A-Z\"(*\d])", paragraph):
        sentence = f"{sentence} {piece}".strip()
        if not ABBREVIATION.search(sentence):
            yield sentence
            sentence = ""
    if sentence:
        yield sentence


def sentences(text):
    """{section: [(level, sentence)]} of those that hold a key word."""
    found = {}
    for section, paragraph in paragraphs(text):
        for sentence in split(paragraph):
            level = "M" if MUST.search(sentence) else "S" if SHOULD.search(sentence) else ""
            if level and not re.search(r"RFC ?2119", sentence):
                found.setdefault(section, []).append((level, sentence))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", action="store_true", help="print the sentences")
    parser.add_argument("file", help="the RFC as plain text")
    arguments = parser.parse_args()
    with open(arguments.file, encoding="utf-8", errors="replace") as file:
        text = file.read()
    number = re.search(r"Request for Comments: (\d+)", text).group(1)
    for section, found in sentences(text).items():
        if arguments.text:
            for index, (level, sentence) in enumerate(found, 1):
                print(f"{section} #{index} {level}  {sentence}")
        else:
            print(number, section, "".join(level for level, _ in found))


if __name__ == "__main__":
    sys.exit(main())
