// SPDX-License-Identifier: Apache-2.0
// All interleavings of a few small programs over shared memory: sequentially consistent, or with a
// store buffer for each thread, as on x86 (TSO). A program is a list of instructions with labels.
// Every state that can be reached is visited once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace verbena::sim {

enum class Memory : uint8_t { kSequential, kStoreBuffers };

using Value = int8_t;
inline constexpr int kVars = 8;
inline constexpr int kRegisters = 4;
inline constexpr int kThreads = 3;
inline constexpr int kBuffer = 4;  // stores that a thread's buffer holds; a full one blocks

class Program {
 public:
  // Memory. Ghosts are seen by everybody at once: they are the proof's, not the program's.
  void Load(int reg, int var) { Add({Op::kLoad, reg, var}); }
  void Store(int var, Value value) { Add({Op::kStore, 0, var, value}); }
  void StoreFrom(int var, int reg) { Add({Op::kStoreFrom, reg, var}); }
  void Fence() { Add({Op::kFence}); }
  void Or(int reg, int var, Value bits) { Add({Op::kOr, reg, var, bits}); }  // reg: former value
  void And(int reg, int var, Value bits) { Add({Op::kAnd, reg, var, bits}); }
  void Increment(int var) { Add({Op::kIncrement, 0, var}); }
  // reg: 1 if var was `expected` and is `desired` now, else 0.
  void CompareExchange(int reg, int var, Value expected, Value desired) {
    Add({Op::kCas, reg, var, expected, desired});
  }
  void Ghost(int var, Value change) { Add({Op::kGhost, 0, var, change}); }
  void Require(int var, Value value, const char* what) {  // of a ghost
    Add({Op::kRequire, 0, var, value, 0, what});
  }

  // Control
  int NewLabel();
  void Here(int label) { labels_[static_cast<size_t>(label)] = static_cast<int>(code_.size()); }
  void Goto(int label) { Add({Op::kGoto, 0, label}); }
  void Maybe(int label) { Add({Op::kMaybe, 0, label}); }  // goes there, or not
  void IfBits(int reg, Value bits, int label) { Add({Op::kIfBits, reg, label, bits}); }
  void IfNoBits(int reg, Value bits, int label) { Add({Op::kIfNoBits, reg, label, bits}); }
  void IfSame(int reg, int other, int label) {
    Add({Op::kIfSame, reg, label, static_cast<Value>(other)});
  }

 private:
  friend class Explorer;
  enum class Op : uint8_t {
    kLoad,
    kStore,
    kStoreFrom,
    kFence,
    kOr,
    kAnd,
    kIncrement,
    kCas,
    kGhost,
    kRequire,
    kGoto,
    kMaybe,
    kIfBits,
    kIfNoBits,
    kIfSame
  };
  struct Instruction {
    Op op;
    int reg = 0;
    int var = 0;  // or label
    Value a = 0;
    Value b = 0;
    const char* what = nullptr;
  };
  void Add(const Instruction& i) { code_.push_back(i); }

  std::vector<Instruction> code_;
  std::vector<int> labels_;
};

struct Exploration {
  bool ok = true;
  std::string why;    // what was violated
  std::string trace;  // the steps that lead there
  uint64_t states = 0;
};

// `at_end` says what is wrong with memory when all programs have ended, or "".
Exploration Explore(const std::vector<Program>& programs, Memory memory,
                    const std::array<Value, kVars>& start,
                    const std::function<std::string(const std::array<Value, kVars>&)>& at_end);

}  // namespace verbena::sim
