// SPDX-License-Identifier: Apache-2.0
// Of a function that had another ABI under version IBVERBS_1.0 (stubs.cc): this one is the usual
// one. Where it is defined.
#pragma once

#define USUAL_1_1(name) asm(".symver " #name ", " #name "@@@IBVERBS_1.1")
