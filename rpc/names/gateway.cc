// SPDX-License-Identifier: Apache-2.0
#include "rpc/names/gateway.h"

#include <curl/curl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/util/json_util.h"
#include "proto/etcd.pb.h"

namespace verbena::rpc {
namespace {

constexpr long kConnectMs = 2000;
constexpr size_t kMostBytes = 64 << 20;  // of an answer, or a line
constexpr long kOk = 200;

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(message, &json, options);
  return json;
}

bool FromJson(const std::string& json, google::protobuf::Message* message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  return google::protobuf::util::JsonStringToMessage(json, message, options).ok();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseEndpoints(absl::string_view list) {
  std::vector<std::string> endpoints = absl::StrSplit(list, ',');
  for (const std::string& endpoint : endpoints) {
    const size_t colon = endpoint.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == endpoint.size() ||
        endpoint.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("etcd: \"", endpoint, "\" is no endpoint; write HOST:PORT,HOST:PORT"));
    }
  }
  return endpoints;
}

absl::StatusOr<EtcdName> ParseEtcdName(absl::string_view name) {
  const absl::string_view rest = absl::StripPrefix(name, "etcd:");
  const size_t slash = rest.find('/');
  if (rest.size() == name.size() || slash == absl::string_view::npos || slash + 1 == rest.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("etcd: \"", name, "\" is no name; write etcd:HOST:PORT/SERVICE"));
  }
  auto endpoints = ParseEndpoints(rest.substr(0, slash));
  if (!endpoints.ok()) return endpoints.status();
  return EtcdName{*std::move(endpoints), absl::StrCat(rest.substr(slash + 1), "/")};
}

// One POST and what has come of its answer.
struct Gateway::Transfer {
  Transfer(const std::string& endpoint, const char* path, std::string json)
      : url(absl::StrCat("http://", endpoint, path)),
        body(std::move(json)),
        easy(curl_easy_init()) {
    headers = curl_slist_append(nullptr, "Content-Type: application/json");
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    // A cluster's own machines, whatever the environment says of the world outside.
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.data());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
    // A watch may be quiet for hours, and its endpoint gone without a word.
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 10L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnData);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
  }
  ~Transfer() {
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  static size_t OnData(char* data, size_t, size_t bytes, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    if (transfer.answer.size() + bytes > kMostBytes) return 0;
    transfer.answer.append(data, bytes);
    if (transfer.line != nullptr && transfer.http() == kOk && !transfer.TakeLines()) return 0;
    return bytes;
  }
  bool TakeLines() {
    size_t begin = 0;
    for (size_t end = 0; !over && (end = answer.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      over = !(*line)(absl::string_view(answer).substr(begin, end - begin));
    }
    answer.erase(0, begin);
    return !over;
  }
  long http() const {
    long code = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    return code;
  }
  // OK for an answer that is one.
  absl::Status Judge() const {
    if (http() == kOk) return absl::OkStatus();
    etcd::Failure failure;
    if (!FromJson(answer, &failure) || failure.code() <= 0 || failure.code() > 16) {
      return absl::UnavailableError(absl::StrCat("etcd: ", url, ": HTTP status ", http()));
    }
    return absl::Status(static_cast<absl::StatusCode>(failure.code()),
                        absl::StrCat("etcd: ", url, ": ", failure.message()));
  }

  const std::string url;
  const std::string body;
  CURL* const easy;
  curl_slist* headers = nullptr;
  std::string answer;
  absl::FunctionRef<bool(absl::string_view)>* line = nullptr;  // of an answer that does not end
  bool over = false;                                           // it has said false
};

Gateway::Gateway(std::vector<std::string> endpoints)
    : endpoints_(std::move(endpoints)), multi_(curl_multi_init()) {}

Gateway::~Gateway() { curl_multi_cleanup(static_cast<CURLM*>(multi_)); }

void Gateway::Stop() {
  stopped_.store(true);
  curl_multi_wakeup(static_cast<CURLM*>(multi_));
}

void Gateway::Pause(absl::Duration pause) {
  const absl::Time until = absl::Now() + pause;
  for (absl::Duration left = pause; left > absl::ZeroDuration() && !stopped();
       left = until - absl::Now()) {
    curl_multi_poll(static_cast<CURLM*>(multi_), nullptr, 0,
                    static_cast<int>(absl::ToInt64Milliseconds(left)) + 1, nullptr);
  }
}

// OK: the endpoint has answered, or `line` has enough.
absl::Status Gateway::Run(Transfer& transfer, absl::Time deadline) {
  auto* multi = static_cast<CURLM*>(multi_);
  curl_multi_add_handle(multi, transfer.easy);
  absl::Status status;
  for (;;) {
    int running = 0;
    curl_multi_perform(multi, &running);
    int left = 0;
    if (const CURLMsg* message = curl_multi_info_read(multi, &left); message != nullptr) {
      const CURLcode how = message->data.result;
      if (how != CURLE_OK && !transfer.over) {
        status = absl::UnavailableError(
            absl::StrCat("etcd: ", transfer.url, ": ", curl_easy_strerror(how)));
      }
      break;
    }
    if (stopped()) {
      status = absl::CancelledError("etcd: stopped");
      break;
    }
    const absl::Duration rest = deadline - absl::Now();
    if (rest <= absl::ZeroDuration()) {
      status = absl::DeadlineExceededError(
          absl::StrCat("etcd: ", transfer.url, " did not answer in time"));
      break;
    }
    const auto most = absl::ToInt64Milliseconds(std::min(rest, absl::Minutes(1))) + 1;
    curl_multi_poll(multi, nullptr, 0, static_cast<int>(most), nullptr);
  }
  curl_multi_remove_handle(multi, transfer.easy);
  return status;
}

absl::Status Gateway::Call(const char* path, const google::protobuf::Message& request,
                           google::protobuf::Message* response, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::Status status = absl::CancelledError("etcd: stopped");
  for (size_t tries = 0; tries < endpoints_.size() && !stopped(); ++tries) {
    // Each gets its share of what is left: one that is silent does not use up the others' time.
    const absl::Duration share =
        (deadline - absl::Now()) / static_cast<int64_t>(endpoints_.size() - tries);
    Transfer transfer(endpoints_[current_], path, ToJson(request));
    status = Run(transfer, absl::Now() + share);
    if (absl::IsCancelled(status)) return status;
    if (status.ok()) status = transfer.Judge();
    if (status.ok()) {
      if (FromJson(transfer.answer, response)) return status;
      status = absl::UnavailableError(absl::StrCat("etcd: ", transfer.url, ": no JSON of etcd's"));
    }
    if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) return status;
    current_ = (current_ + 1) % endpoints_.size();
  }
  if (absl::IsDeadlineExceeded(status)) status = absl::UnavailableError(status.message());
  return status;
}

absl::Status Gateway::Stream(const char* path, const google::protobuf::Message& request,
                             absl::FunctionRef<bool(absl::string_view)> line, absl::Time deadline) {
  Transfer transfer(endpoints_[current_], path, ToJson(request));
  transfer.line = &line;
  absl::Status status = Run(transfer, deadline);
  if (transfer.over) return absl::OkStatus();
  if (status.ok()) status = transfer.Judge();
  if (status.ok()) status = absl::UnavailableError(absl::StrCat("etcd: ", transfer.url, " ended"));
  if (!absl::IsDeadlineExceeded(status)) current_ = (current_ + 1) % endpoints_.size();
  return status;
}

}  // namespace verbena::rpc
