#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/rfc is complete and true: tools/rfc/table.py finds nothing wrong with it, and would."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import sentences  # noqa: E402
import table  # noqa: E402


class TablesTest(unittest.TestCase):
    def test_nothing_is_wrong(self):
        self.assertEqual(list(table.errors()), [])

    def test_coverage_is_fresh(self):
        text = table.read("docs/rfc/README.md")
        self.assertEqual(text, table.with_coverage(text), "run tools/rfc/table.py --write")

    def test_every_rfc_is_there(self):
        self.assertEqual(table.rfcs(), ["5040", "5041", "5044", "6581", "7306"])
        for rfc in table.rfcs():
            self.assertGreater(len(table.rows(rfc)[0]), 20)


CASES = "`wire/ddp_test.cc` Ddp.PadCompletesToFour"


def row(**changes):
    fields = {"rfc": "5044", "line": 1, "section": "4.1", "first": 2, "last": 2, "level": "MUST",
              "what": "Pad is zero.", "where": "`wire/ddp.h` PadBytes", "proof": CASES}
    return table.Row(**{**fields, **changes})


class RowsTest(unittest.TestCase):
    def wrong(self, **changes):
        return "; ".join(table.row_errors(row(**changes), "MMS"))

    def test_a_good_row(self):
        self.assertEqual(self.wrong(), "")
        self.assertEqual(self.wrong(where="-", proof="n/a: there are no markers"), "")
        self.assertEqual(self.wrong(first=1, last=3, level="MUST/SHOULD"), "")

    def test_what_is_cited_exists(self):
        self.assertIn("no file", self.wrong(where="`wire/dpp.h` PadBytes"))
        self.assertIn("no Pad in", self.wrong(where="`wire/ddp.h` Pad"))
        self.assertIn("no Castagnoli in", self.wrong(where="`wire/crc32c.h` Castagnoli"))
        self.assertIn("no test case Ddp.Pads", self.wrong(proof="`wire/ddp_test.cc` Ddp.Pads"))
        self.assertIn("no test case", self.wrong(proof="`wire/ddp.h` PadBytes"))
        table_case = "`wire/mpa_test.cc` MpaBad.SaysWhichByte"
        self.assertEqual(self.wrong(proof=f"{table_case}/WrongKey"), "")
        self.assertIn("no row Key", self.wrong(proof=f"{table_case}/Key"))
        self.assertIn("no test case", self.wrong(proof="exception: see `wire/ddp_test.cc` Ddp.X"))

    def test_every_row_has_a_proof_or_a_reason(self):
        self.assertIn("neither", self.wrong(proof=""))
        self.assertIn("neither", self.wrong(proof="by design"))
        self.assertIn("neither", self.wrong(proof=CASES + " and more"))
        self.assertIn("reason", self.wrong(proof="exception: no"))
        self.assertIn("where", self.wrong(where="-"))

    def test_levels_and_numbers_are_the_rfcs(self):
        self.assertIn("level", self.wrong(level="SHOULD"))
        self.assertIn("level", self.wrong(last=3))
        self.assertIn("no such sentence", self.wrong(first=4, last=4))
        self.assertIn("no such sentence", self.wrong(first=0))


TEXT = """
1.  Words

   The key word "MUST" is as in RFC 2119.

2.  Rules

2.1.  Of the Pad

   The pad MUST be zero.  It is not REQUIRED to be short.  A sender
   SHOULD send none, e.g. MUST be quiet.  The sum of both

Somebody, et al.            Standards Track                    [Page 1]
\f
RFC 9999                     Title                        October 2007

   MUST fit:

   *  one part SHALL be even
   *  the other part is odd

Appendix A.  More

   A reader SHOULD NOT despair.
"""


class SentencesTest(unittest.TestCase):
    def test_counts(self):
        levels = {section: "".join(level for level, _ in found)
                  for section, found in sentences.sentences(TEXT).items()}
        self.assertEqual(levels, {"2.1": "MMMM", "A": "S"})

    def test_a_page_break_is_no_end(self):
        found = [text for _, text in sentences.sentences(TEXT)["2.1"]]
        self.assertEqual(found[2], "The sum of both MUST fit:")


if __name__ == "__main__":
    unittest.main()
