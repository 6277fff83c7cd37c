// SPDX-License-Identifier: Apache-2.0
// The owner that every API object is: move-only, one provider object, released by the destructor.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"

namespace verbena {

// A destructor cannot refuse: an object that still has children is kept alive for them (leaked)
// and an error is logged, so that a wrong order is loud but never a use after free.
void ReportUnclosable(const absl::Status& why);

template <typename Impl>
class Handle {
 public:
  Handle() = default;
  explicit Handle(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
  Handle(Handle&&) noexcept = default;
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      Release();
      impl_ = std::move(other.impl_);
    }
    return *this;
  }
  ~Handle() { Release(); }

  // FailedPrecondition, and nothing changes, while objects that were made from this one are open.
  // Closing twice is fine.
  absl::Status Close() {
    if (impl_ == nullptr) return absl::OkStatus();
    absl::Status status = impl_->Close();
    if (status.ok()) impl_.reset();
    return status;
  }
  bool is_open() const { return impl_ != nullptr; }

  Impl* impl() const { return impl_.get(); }  // for providers and this folder

 protected:
  std::unique_ptr<Impl> impl_;

 private:
  void Release() {
    if (absl::Status status = Close(); !status.ok()) {
      ReportUnclosable(status);
      (void)impl_.release();
    }
  }
};

}  // namespace verbena
