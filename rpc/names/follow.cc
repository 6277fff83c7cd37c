// SPDX-License-Identifier: Apache-2.0
#include "rpc/names/follow.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"
#include "proto/etcd.pb.h"

namespace verbena::rpc {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(3);
constexpr absl::Duration kReadTimeout = absl::Seconds(5);

class Follower {
 public:
  Follower(Gateway& gateway, const std::string& key, Keys which,
           absl::FunctionRef<bool(const KeyValues&)> seen)
      : gateway_(gateway), key_(key), end_(EndOfRange(key, which)), seen_(seen) {}

  bool enough() const { return enough_; }

  // All of it, once; false: that did not work out, or was enough.
  absl::Status ReadAll() {
    etcd::RangeRequest request;
    request.set_key(key_);
    request.set_range_end(end_);
    etcd::RangeResponse response;
    if (auto status = gateway_.Call("/v3/kv/range", request, &response, kReadTimeout);
        !status.ok()) {
      return status;
    }
    values_.clear();
    for (const etcd::KeyValue& kv : response.kvs()) values_[kv.key()] = kv.value();
    cluster_ = response.header().cluster_id();
    next_ = response.header().revision() + 1;
    enough_ = !seen_(values_);
    return absl::OkStatus();
  }

  // Until the connection is lost, or what was read before is worth nothing: next() is 0 then.
  absl::Status Watch(absl::Time deadline) {
    etcd::WatchRequest request;
    auto& create = *request.mutable_create_request();
    create.set_key(key_);
    create.set_range_end(end_);
    create.set_start_revision(next_);
    return gateway_.Stream(
        "/v3/watch", request, [this](absl::string_view line) { return Take(line); }, deadline);
  }

  int64_t next() const { return next_; }
  // Since the last time that this was asked, etcd has said something.
  bool heard() { return std::exchange(heard_, false); }

 private:
  bool Take(absl::string_view line) {
    heard_ = true;
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    etcd::WatchResponse response;
    const bool parsed =
        google::protobuf::util::JsonStringToMessage(std::string(line), &response, options).ok();
    const auto& result = response.result();
    // An etcd that lost its data begins with revision 1, and would be silent until it is here.
    const bool anew = result.created() && (result.header().cluster_id() != cluster_ ||
                                           result.header().revision() < next_ - 1);
    if (!parsed || response.has_error() || result.canceled() || anew) {
      next_ = 0;
      return false;
    }
    for (const etcd::Event& event : result.events()) {
      if (event.type() == etcd::Event::DELETE) {
        values_.erase(event.kv().key());
      } else {
        values_[event.kv().key()] = event.kv().value();
      }
      next_ = std::max(next_, event.kv().mod_revision() + 1);
    }
    if (result.events_size() > 0) enough_ = !seen_(values_);
    return !enough_;
  }

  Gateway& gateway_;
  const std::string& key_;
  const std::string end_;
  const absl::FunctionRef<bool(const KeyValues&)> seen_;
  KeyValues values_;
  uint64_t cluster_ = 0;
  int64_t next_ = 0;  // revision; 0: all is to be read
  bool enough_ = false;
  bool heard_ = false;
};

}  // namespace

// The first string that is greater than all that begin with `key`.
std::string EndOfRange(const std::string& key, Keys which) {
  if (which == Keys::kOne) return "";
  std::string end = key;
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::string(1, '\0');  // etcd: all keys from there on
  ++end.back();
  return end;
}

absl::Status FollowKeys(Gateway& gateway, const std::string& key, Keys which, absl::Time deadline,
                        absl::FunctionRef<bool(const KeyValues&)> seen,
                        absl::FunctionRef<void(const absl::Status&)> failed) {
  Follower follower(gateway, key, which, seen);
  absl::BitGen random;
  absl::Duration pause = kFirstPause;
  for (;;) {
    absl::Status status = follower.next() == 0 ? follower.ReadAll() : absl::OkStatus();
    if (status.ok() && !follower.enough()) status = follower.Watch(deadline);
    if (follower.enough()) return absl::OkStatus();
    if (gateway.stopped()) return absl::CancelledError("etcd: stopped");
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("etcd: nothing came at ", key, " in time",
                                                      status.ok() ? "" : "; ", status.message()));
    }
    if (!status.ok()) failed(status);  // else all is to be read again
    if (follower.heard()) pause = kFirstPause;
    gateway.Pause(std::min(pause * absl::Uniform(random, 0.8, 1.2), deadline - absl::Now()));
    pause = std::min(pause * 1.6, kLongestPause);
  }
}

}  // namespace verbena::rpc
