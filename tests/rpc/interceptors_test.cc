// SPDX-License-Identifier: Apache-2.0
// What sees each call begin and end: a tracer whose spans are linked across the wire, a check of
// tokens.
#include <iomanip>
#include <map>
#include <mutex>
#include <sstream>

#include "tests/rpc/fixture.h"

namespace verbena::testing {
namespace {

using rpc::AtEnd;
using rpc::CallOutcome;
using rpc::ServerContext;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A tracer as programs have one: https://www.w3.org/TR/trace-context/, version 00.
struct Span {
  std::string trace;   // 32 hex digits
  std::string id;      // 16
  std::string parent;  // empty: it is the first of its trace
  std::string name;
  absl::StatusCode code = absl::StatusCode::kUnknown;
  uint64_t sent = 0;
  uint64_t received = 0;
  absl::Duration time = {};
};

class Tracer {
 public:
  Span Begin(absl::string_view name, const std::string& traceparent) {
    const std::lock_guard lock(lock_);
    Span span = {
        .trace = Hex(++last_, 32), .id = Hex(++last_, 16), .parent = "", .name = std::string(name)};
    // "00-TRACE-PARENT-01"
    if (traceparent.size() == 55 && traceparent.starts_with("00-")) {
      span.trace = traceparent.substr(3, 32);
      span.parent = traceparent.substr(36, 16);
    }
    return span;
  }
  AtEnd Ends(Span span) {
    return [this, span](const CallOutcome& end) {
      Span whole = span;
      whole.code = end.status.code();
      whole.sent = end.sent_bytes;
      whole.received = end.received_bytes;
      whole.time = end.time;
      const std::lock_guard lock(lock_);
      ended_.push_back(whole);
    };
  }
  static std::string Traceparent(const Span& span) {
    return "00-" + span.trace + "-" + span.id + "-01";
  }
  std::vector<Span> ended() {
    const std::lock_guard lock(lock_);
    return ended_;
  }

 private:
  static std::string Hex(uint64_t value, int digits) {
    std::ostringstream out;
    out << std::hex << std::setw(digits) << std::setfill('0') << value;
    return out.str();
  }
  std::mutex lock_;
  uint64_t last_ = 0;
  std::vector<Span> ended_;
};

rpc::ClientInterceptor TraceClient(Tracer& tracer) {
  return [&tracer](ClientContext& call) -> absl::StatusOr<AtEnd> {
    const Span span = tracer.Begin(call.method(), "");
    call.AddMetadata("traceparent", Tracer::Traceparent(span));
    return tracer.Ends(span);
  };
}

rpc::ServerInterceptor TraceServer(Tracer& tracer) {
  return [&tracer](ServerContext& call) -> absl::StatusOr<AtEnd> {
    const auto from = call.metadata().find("traceparent");
    return tracer.Ends(
        tracer.Begin(call.method(), from == call.metadata().end() ? "" : from->second));
  };
}

struct Traced {
  Tracer clients, servers;
  Shop shop{{.handler_threads = 0, .interceptors = {TraceServer(servers)}},
            {.interceptors = {TraceClient(clients)}}};

  // The only call's, of both.
  std::pair<Span, Span> Spans() {
    EXPECT_THAT(clients.ended(), SizeIs(1));
    EXPECT_THAT(servers.ended(), SizeIs(1));
    return {clients.ended().at(0), servers.ended().at(0)};
  }
};

TEST(Interceptors, SpansOfACallAreLinked) {
  Traced traced;
  ASSERT_THAT(traced.shop.client.Echo(Say(std::string(1000, 'x'))), IsOk());
  const auto [client, server] = traced.Spans();
  EXPECT_EQ(server.trace, client.trace);
  EXPECT_EQ(server.parent, client.id);
  EXPECT_EQ(client.parent, "");
  for (const Span& span : {client, server}) {
    EXPECT_EQ(span.name, "/verbena.testing.Shelf/Echo");
    EXPECT_EQ(span.code, absl::StatusCode::kOk);
    EXPECT_EQ(span.sent, Say(std::string(1000, 'x')).ByteSizeLong());
    EXPECT_EQ(span.received, span.sent);
  }
  EXPECT_GT(server.time, absl::ZeroDuration());
  EXPECT_GE(client.time, server.time);
}

TEST(Interceptors, OfAStream) {
  Traced traced;
  {
    ClientContext context;
    auto stream = traced.shop.client.Chat(context);
    Text text;
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(stream->Write(Say("0123456789")));
      ASSERT_TRUE(stream->Read(&text));
    }
    EXPECT_THAT(traced.clients.ended(), IsEmpty());
    stream->WritesDone();
    ASSERT_THAT(stream->Finish(), IsOk());
  }
  const auto [client, server] = traced.Spans();
  EXPECT_EQ(server.trace, client.trace);
  EXPECT_EQ(client.code, absl::StatusCode::kOk);
  for (const Span& span : {client, server}) {
    EXPECT_EQ(span.sent, 10 * Say("0123456789").ByteSizeLong());
    EXPECT_EQ(span.received, span.sent);
  }
}

// Both see how it failed: by the handler, by the deadline, by a request that is none.
TEST(Interceptors, OfCallsThatFail) {
  Traced traced;
  Order order;
  order.set_code(static_cast<uint32_t>(absl::StatusCode::kDataLoss));
  ASSERT_THAT(traced.shop.client.Do(order), StatusIs(absl::StatusCode::kDataLoss));
  ClientContext context(absl::Milliseconds(20));
  ASSERT_THAT(traced.shop.client.Hold(Say(""), context),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  traced.shop.shelf.NextHeld().Finish(Say("late"));
  ClientContext other;
  Parcel parcel;
  parcel.mutable_bulk()->set_key(0xffffffff);
  Text answer;
  ASSERT_THAT(traced.shop.channel->Call(Shelf::kEcho, parcel, &answer, other),
              StatusIs(absl::StatusCode::kInvalidArgument));
  std::vector<absl::StatusCode> clients, servers;
  for (const Span& span : traced.clients.ended()) clients.push_back(span.code);
  for (const Span& span : traced.servers.ended()) servers.push_back(span.code);
  EXPECT_THAT(clients, ElementsAre(absl::StatusCode::kDataLoss, absl::StatusCode::kDeadlineExceeded,
                                   absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(servers.size(), 3u);
  EXPECT_EQ(servers.front(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(servers.back(), absl::StatusCode::kInvalidArgument);
}

// A token goes with each call, and the handler learns whose it is. Without: UNAUTHENTICATED, and no
// handler runs.
TEST(Interceptors, ATokenCheck) {
  const std::map<std::string, std::string> users = {{"s3cret", "alice"}};
  const rpc::ServerInterceptor check = [&](ServerContext& call) -> absl::StatusOr<AtEnd> {
    const auto token = call.metadata().find("token");
    const auto user = token == call.metadata().end() ? users.end() : users.find(token->second);
    if (user == users.end()) return absl::UnauthenticatedError("who are you?");
    call.SetMetadata("user", user->second);
    call.AddMetadata("seen", call.peer());
    return nullptr;
  };
  TestShelf shelf;
  for (const int threads : {0, 2}) {
    auto server = Serve(shelf, {.handler_threads = threads, .interceptors = {check}});
    auto stranger = ChannelTo(server->address());
    const size_t before = shelf.echoes();
    EXPECT_THAT(Shelf::Client(*stranger).Echo(Say("x")),
                StatusIs(absl::StatusCode::kUnauthenticated, "who are you?"));
    ClientContext liar_context;
    liar_context.AddMetadata("user", "alice");
    EXPECT_THAT(Shelf::Client(*stranger).Echo(Say("x"), liar_context),
                StatusIs(absl::StatusCode::kUnauthenticated));
    ClientContext chat_context;
    auto chat = Shelf::Client(*stranger).Chat(chat_context);
    EXPECT_THAT(chat->Finish(), StatusIs(absl::StatusCode::kUnauthenticated));
    EXPECT_EQ(shelf.echoes(), before);

    auto known = ChannelTo(server->address(),
                           {.interceptors = {[](ClientContext& call) -> absl::StatusOr<AtEnd> {
                              call.AddMetadata("token", "s3cret");
                              return nullptr;
                            }}});
    ClientContext context;
    context.AddMetadata("user", "mallory");
    ASSERT_THAT(Shelf::Client(*known).Echo(Say("x"), context), IsOk());
    EXPECT_EQ(context.server_metadata().at("re-user"), "alice");
    EXPECT_THAT(context.server_metadata().at("seen"), HasSubstr(":"));
  }
}

// A channel's own may refuse, too; those before it hear of the end, those behind it of nothing.
TEST(Interceptors, InTheirOrderAndRefused) {
  std::string log;
  const auto logging = [&](const std::string& name) -> rpc::ClientInterceptor {
    return [&log, name](ClientContext& call) -> absl::StatusOr<AtEnd> {
      log += "+" + name;
      if (call.metadata().contains("refused by " + name)) {
        return absl::PermissionDeniedError("refused");
      }
      return [&log, name](const CallOutcome& end) {
        log += "-" + name + (end.status.ok() ? "" : "!");
      };
    };
  };
  Shop shop({}, {.interceptors = {logging("a"), logging("b"), logging("c")}});
  ASSERT_THAT(shop.client.Echo(Say("x")), IsOk());
  EXPECT_EQ(log, "+a+b+c-c-b-a");
  log.clear();
  ClientContext context;
  context.AddMetadata("refused by b", "");
  EXPECT_THAT(shop.client.Echo(Say("x"), context), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(log, "+a+b-a!");
  log.clear();
  ClientContext streamed;
  streamed.AddMetadata("refused by a", "");
  auto stream = shop.client.Chat(streamed);
  EXPECT_THAT(stream->Finish(), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(log, "+a");
  EXPECT_EQ(shop.server->counters().calls, 1u);
}

// It sees the deadline and the peer at both ends.
TEST(Interceptors, DeadlineAndPeer) {
  std::string channel_name, peer;
  absl::Duration timeout, left;
  TestShelf shelf;
  auto server = Serve(shelf, {.handler_threads = 0,
                              .interceptors = {[&](ServerContext& call) -> absl::StatusOr<AtEnd> {
                                peer = call.peer();
                                left = call.time_left();
                                return nullptr;
                              }}});
  auto channel = ChannelTo(server->address(),
                           {.interceptors = {[&](ClientContext& call) -> absl::StatusOr<AtEnd> {
                              channel_name = call.peer();
                              timeout = call.timeout();
                              return nullptr;
                            }}});
  ClientContext context(absl::Seconds(100));
  ASSERT_THAT(Shelf::Client(*channel).Echo(Say("x"), context), IsOk());
  EXPECT_EQ(channel_name, server->address());
  EXPECT_EQ(timeout, absl::Seconds(100));
  EXPECT_NE(peer, "");
  EXPECT_LE(left, absl::Seconds(100));
  EXPECT_GT(left, absl::Seconds(40));
}

// The caller is gone: the server's side ends all the same, once.
TEST(Interceptors, OfACallerThatIsGone) {
  Traced traced;
  ClientContext context;
  traced.shop.client.Hold(Say(""), context, [](const absl::StatusOr<Text>&) {});
  auto held = traced.shop.shelf.NextHeld();
  traced.shop.channel.reset();
  held.Finish(Say("to nobody"));
  const absl::Time deadline = absl::Now() + kLongEnough;
  while (traced.servers.ended().empty() && absl::Now() < deadline) {
  }
  const auto [client, server] = traced.Spans();
  EXPECT_EQ(client.code, absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace verbena::testing
