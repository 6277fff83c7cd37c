// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/interleave.h"

#include <cstring>
#include <unordered_map>

#include "absl/strings/str_cat.h"

namespace verbena::sim {

int Program::NewLabel() {
  labels_.push_back(0);
  return static_cast<int>(labels_.size()) - 1;
}

class Explorer {
 public:
  Explorer(const std::vector<Program>& programs, Memory memory,
           const std::function<std::string(const std::array<Value, kVars>&)>& at_end)
      : programs_(programs), memory_(memory), at_end_(at_end) {}

  Exploration Run(const std::array<Value, kVars>& start) {
    State first{};
    first.memory = start;
    Visit(first, {});
    while (!open_.empty() && result_.ok) {
      const std::string* key = open_.back();
      open_.pop_back();
      State s;
      std::memcpy(&s, key->data(), sizeof(s));
      Expand(s, key);
    }
    result_.states = seen_.size();
    return result_;
  }

 private:
  using Instruction = Program::Instruction;
  using Op = Program::Op;

  struct Thread {
    uint8_t at;
    uint8_t buffered;
    Value registers[kRegisters];
    uint8_t vars[kBuffer];
    Value values[kBuffer];
  };
  struct State {  // bytes only: compared and hashed as such
    std::array<Value, kVars> memory;
    Thread threads[kThreads];
  };
  static_assert(std::has_unique_object_representations_v<State>);
  // How a state was reached first: one step of a thread from another; -1: its oldest store drained.
  struct Origin {
    const std::string* parent = nullptr;
    int thread = 0;
    int at = 0;
  };

  void Visit(const State& s, const Origin& origin) {
    const auto [it, fresh] =
        seen_.try_emplace(std::string(reinterpret_cast<const char*>(&s), sizeof(s)), origin);
    if (fresh) open_.push_back(&it->first);
  }

  void Violated(const std::string* key, const std::string& why) {
    result_.ok = false;
    result_.why = why;
    for (const Origin* o = &seen_.at(*key); o->parent != nullptr; o = &seen_.at(*o->parent)) {
      const std::string what = o->at < 0 ? "its oldest store is seen" : absl::StrCat(o->at);
      result_.trace = absl::StrCat("thread ", o->thread, ": ", what, "\n", result_.trace);
    }
  }

  void Expand(const State& s, const std::string* key) {
    bool ended = true;
    for (size_t t = 0; t < programs_.size() && result_.ok; ++t) {
      const Thread& thread = s.threads[t];
      if (thread.buffered > 0) {
        ended = false;
        State next = s;
        Drain(&next, &next.threads[t]);
        Visit(next, {key, static_cast<int>(t), -1});
      }
      if (thread.at == programs_[t].code_.size()) continue;
      ended = false;
      Step(s, key, t);
    }
    if (!ended || !result_.ok) return;
    if (std::string why = at_end_(s.memory); !why.empty()) Violated(key, why);
  }

  static void Drain(State* s, Thread* t) {
    s->memory[t->vars[0]] = t->values[0];
    --t->buffered;
    for (int i = 0; i < t->buffered; ++i) {
      t->vars[i] = t->vars[i + 1];
      t->values[i] = t->values[i + 1];
    }
    t->vars[t->buffered] = 0;
    t->values[t->buffered] = 0;
  }

  static Value Read(const State& s, const Thread& t, int var) {
    for (int i = t.buffered; i > 0; --i) {
      if (t.vars[i - 1] == var) return t.values[i - 1];
    }
    return s.memory[static_cast<size_t>(var)];
  }

  bool Write(State* s, Thread* t, int var, Value value) const {
    if (memory_ == Memory::kSequential) {
      s->memory[static_cast<size_t>(var)] = value;
      return true;
    }
    if (t->buffered == kBuffer) return false;
    t->vars[t->buffered] = static_cast<uint8_t>(var);
    t->values[t->buffered++] = value;
    return true;
  }

  // Atomic operations wait until the buffer is empty, as locked instructions do.
  static bool NeedsEmptyBuffer(Op op) {
    return op == Op::kFence || op == Op::kOr || op == Op::kAnd || op == Op::kIncrement ||
           op == Op::kCas;
  }

  void Step(const State& s, const std::string* key, size_t number) {
    const Program& program = programs_[number];
    const Instruction& i = program.code_[s.threads[number].at];
    if (NeedsEmptyBuffer(i.op) && s.threads[number].buffered > 0) return;
    State next = s;
    Thread& t = next.threads[number];
    const Origin step{key, static_cast<int>(number), t.at};
    ++t.at;
    const auto go = [&] {
      t.at = static_cast<uint8_t>(program.labels_[static_cast<size_t>(i.var)]);
    };
    const Value before = t.registers[i.reg];
    switch (i.op) {
      case Op::kGoto:
        go();
        break;
      case Op::kMaybe:
        Visit(next, step);
        go();
        break;
      case Op::kIfBits:
        if ((before & i.a) != 0) go();
        break;
      case Op::kIfNoBits:
        if ((before & i.a) == 0) go();
        break;
      case Op::kIfSame:
        if (before == t.registers[i.a]) go();
        break;
      case Op::kRequire:
        if (next.memory[static_cast<size_t>(i.var)] != i.a) return Violated(key, i.what);
        break;
      default:
        if (!Access(&next, &t, i)) return;
    }
    Visit(next, step);
  }

  bool Access(State* s, Thread* t, const Instruction& i) const {
    Value& cell = s->memory[static_cast<size_t>(i.var)];
    Value& reg = t->registers[i.reg];
    switch (i.op) {
      case Op::kLoad:
        reg = Read(*s, *t, i.var);
        return true;
      case Op::kStore:
        return Write(s, t, i.var, i.a);
      case Op::kStoreFrom:
        return Write(s, t, i.var, reg);
      case Op::kOr:
        reg = cell;
        cell = static_cast<Value>(cell | i.a);
        return true;
      case Op::kAnd:
        reg = cell;
        cell = static_cast<Value>(cell & i.a);
        return true;
      case Op::kIncrement:
        cell = static_cast<Value>((cell + 1) & 3);  // a counter only compared with a recent value
        return true;
      case Op::kCas:
        reg = cell == i.a ? 1 : 0;
        if (reg != 0) cell = i.b;
        return true;
      case Op::kGhost:
        cell = static_cast<Value>(cell + i.a);
        return true;
      default:
        return true;
    }
  }

  const std::vector<Program>& programs_;
  const Memory memory_;
  const std::function<std::string(const std::array<Value, kVars>&)>& at_end_;
  std::unordered_map<std::string, Origin> seen_;
  std::vector<const std::string*> open_;
  Exploration result_;
};

Exploration Explore(const std::vector<Program>& programs, Memory memory,
                    const std::array<Value, kVars>& start,
                    const std::function<std::string(const std::array<Value, kVars>&)>& at_end) {
  return Explorer(programs, memory, at_end).Run(start);
}

}  // namespace verbena::sim
