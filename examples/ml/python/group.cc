// SPDX-License-Identifier: Apache-2.0
#include "examples/ml/python/group.h"

#include <utility>

#include "examples/ml/python/errors.h"

namespace ml::python {

namespace py = pybind11;

Memory::Memory(PyGroup& group, View view, verbena::MemoryRegion region, bool writable)
    : group_(&group), view_(std::move(view)), region_(std::move(region)), writable_(writable) {}

Memory::~Memory() { (void)Close(); }  // whoever uses it keeps it

absl::Status Memory::Close() {
  if (uses_ > 0) {
    return absl::FailedPreconditionError("the memory is in use: an operation has not ended");
  }
  if (group_ == nullptr) return absl::OkStatus();
  group_->Forget(*this);
  Abandon();
  return absl::OkStatus();
}

void Memory::Abandon() {
  group_ = nullptr;
  region_ = {};
}

absl::Status PyGroup::Left() { return absl::FailedPreconditionError("the group was left"); }

void PyGroup::Leave() {
  if (group_ == nullptr) return;
  Unwatch();
  {
    py::gil_scoped_release others;
    lock_.lock();
  }
  for (Memory* each : memories_) each->Abandon();
  memories_.clear();
  std::unique_ptr<Group> group = std::move(group_);
  lock_.unlock();
  {
    py::gil_scoped_release others;
    group.reset();
  }
  while (!waiting_.empty()) Settle(absl::CancelledError("the group was left"));
}

std::unique_ptr<Memory> PyGroup::Register(const py::object& tensor, bool writable,
                                          const py::object& dtype) {
  View view(tensor, writable, dtype);
  auto region = WithGroup([&](Group& group) { return group.Register(view.bytes(), writable); });
  auto memory =
      std::make_unique<Memory>(*this, std::move(view), Check(std::move(region)), writable);
  memories_.insert(memory.get());
  return memory;
}

std::unique_ptr<PyGroup::Work> PyGroup::Prepare(bool reduces, const py::object& tensor,
                                                const py::object& out, const py::object& dtype) {
  auto work = std::make_unique<Work>();
  work->reduces = reduces;
  work->in_object = tensor;
  const bool in_place = reduces && (out.is_none() || out.is(tensor));
  work->out_object = in_place ? tensor : out;
  const auto find = [&](const py::object& object, bool writable, std::optional<View>* view,
                        const verbena::MemoryRegion** region, Memory::Use* use) -> const View& {
    if (py::isinstance<Memory>(object)) {
      const auto& memory = object.cast<const Memory&>();
      if (!memory.region().is_open() || (writable && !memory.writable())) {
        Raise(absl::InvalidArgumentError("the memory is closed, or registered to be read only"));
      }
      *region = &memory.region();
      *use = Memory::Use(memory);
      return memory.view();
    }
    view->emplace(object, writable, dtype);
    return **view;
  };
  const View& to = find(work->out_object, true, &work->out_view, &work->out.region, &work->out_use);
  const View& from =
      in_place ? to : find(tensor, false, &work->in_view, &work->in.region, &work->in_use);
  if (from.dtype() != to.dtype()) {
    Raise(absl::InvalidArgumentError(std::string("elements of ") + NameOf(from.dtype()) +
                                     " go into a tensor of " + NameOf(to.dtype())));
  }
  work->dtype = to.dtype();
  work->in.bytes = from.bytes();
  if (in_place) work->in.region = work->out.region;
  work->out.bytes = to.bytes();
  return work;
}

py::object PyGroup::Run(std::unique_ptr<Work> work) {
  Check(WithGroup([&](Group& group) {
    return work->reduces ? group.AllReduce(work->dtype, work->in, work->out)
                         : group.AllGather(work->in, work->out);
  }));
  return work->out_object;
}

py::object PyGroup::AllReduce(const py::object& tensor, const py::object& out,
                              const py::object& dtype) {
  return Run(Prepare(true, tensor, out, dtype));
}

py::object PyGroup::AllGather(const py::object& tensor, const py::object& out,
                              const py::object& dtype) {
  return Run(Prepare(false, tensor, out, dtype));
}

void PyGroup::Barrier() {
  Check(WithGroup([](Group& group) { return group.Barrier(); }));
}

GroupCounters PyGroup::Counters() {
  return Check(
      WithGroup([](Group& group) -> absl::StatusOr<GroupCounters> { return group.counters(); }));
}

py::object PyGroup::AllReduceAsync(const py::object& self, const py::object& tensor,
                                   const py::object& out, const py::object& dtype) {
  return Start(self, Prepare(true, tensor, out, dtype));
}

py::object PyGroup::AllGatherAsync(const py::object& self, const py::object& tensor,
                                   const py::object& out, const py::object& dtype) {
  return Start(self, Prepare(false, tensor, out, dtype));
}

// They run in the order in which they were started.
py::object PyGroup::Start(const py::object& self, std::unique_ptr<Work> work) {
  const py::object loop = py::module_::import("asyncio").attr("get_running_loop")();
  if (loop_ && !loop_.is(loop)) {
    Raise(absl::FailedPreconditionError("operations of this group are running in another loop"));
  }
  const py::object future = loop.attr("create_future")();
  work->future = future;
  waiting_.push_back(std::move(work));
  if (waiting_.size() == 1) {
    loop_ = loop;
    Pump(self);
  }
  return future;
}

absl::StatusOr<bool> PyGroup::AdvanceFirst() {
  Work& work = *waiting_.front();
  return WithGroup([&](Group& group) -> absl::StatusOr<bool> {
    if (!begun_) {
      const auto begun = work.reduces ? group.BeginAllReduce(work.dtype, work.in, work.out)
                                      : group.BeginAllGather(work.in, work.out);
      if (!begun.ok()) return begun;
      begun_ = true;
    }
    return group.Advance();
  });
}

// Whenever the completion channel's descriptor is readable, and when the time is up.
void PyGroup::Pump(const py::object& self) {
  while (!waiting_.empty() && group_ != nullptr) {
    const auto over = AdvanceFirst();
    if (group_ == nullptr || waiting_.empty()) return;  // it was left meanwhile
    if (over.ok() && !*over) return Watch(self);
    Settle(over.status());
  }
  Unwatch();
}

void PyGroup::Settle(const absl::Status& status) {
  const std::unique_ptr<Work> work = std::move(waiting_.front());
  waiting_.pop_front();
  begun_ = false;
  if (timeout_) {
    timeout_.attr("cancel")();
    timeout_ = {};
  }
  if (work->future.attr("done")().cast<bool>()) return;  // cancelled: it was carried through
  if (status.ok()) {
    work->future.attr("set_result")(work->out_object);
  } else {
    work->future.attr("set_exception")(ErrorOf(status));
  }
}

void PyGroup::Watch(const py::object& self) {
  if (timeout_) timeout_.attr("cancel")();
  const py::cpp_function pump([self] { self.cast<PyGroup&>().Pump(self); });
  loop_.attr("add_reader")(group_->fd(), pump);
  // A little later, so that it is up by then.
  const double seconds = absl::ToDoubleSeconds(group_->time_left()) + 1e-3;
  timeout_ = loop_.attr("call_later")(seconds, pump);
}

void PyGroup::Unwatch() {
  if (timeout_) timeout_.attr("cancel")();
  timeout_ = {};
  if (loop_ && group_ != nullptr) loop_.attr("remove_reader")(group_->fd());
  loop_ = {};
}

}  // namespace ml::python
