// SPDX-License-Identifier: Apache-2.0
// Context over a list of providers of its own: this file defines AllProviders().
#include "transport/context.h"

#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "transport/fake_provider.h"
#include "transport/providers.h"

namespace verbena {
namespace {

using absl::StatusCode;

// UBSan's vptr check itself opens a pipe, and takes its failure for a bad object.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitizerNeedsDescriptors = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kSanitizerNeedsDescriptors = true;
#else
constexpr bool kSanitizerNeedsDescriptors = false;
#endif
#else
constexpr bool kSanitizerNeedsDescriptors = false;
#endif

// What the providers were opened with, in turn.
std::string opened;
// What the second one leaves closed when nobody names a device; then it opens none.
std::vector<Candidate> left_closed;

absl::StatusOr<std::unique_ptr<provider::Context>> OpenFirst(const std::string& argument,
                                                             std::vector<Candidate>*) {
  opened += "tcp(" + argument + ")";
  if (argument == "bad") return absl::InvalidArgumentError("tcp:bad: not an address");
  return std::make_unique<fake::Context>();
}

absl::StatusOr<std::unique_ptr<provider::Context>> OpenSecond(const std::string& argument,
                                                              std::vector<Candidate>* passed_over) {
  opened += "second(" + argument + (passed_over != nullptr ? "unasked)" : ")");
  if (argument == "bad") return absl::NotFoundError("second:bad: no such device");
  if (passed_over != nullptr && !left_closed.empty()) {
    passed_over->insert(passed_over->end(), left_closed.begin(), left_closed.end());
    return absl::NotFoundError("second: none is usable");
  }
  return std::make_unique<fake::Context>();
}

std::vector<DeviceInfo> ListFirst() { return {{.name = "tcp", .provider = "tcp", .usable = true}}; }

std::vector<DeviceInfo> ListSecond() {
  return {{.name = "s0", .provider = "second", .usable = true},
          {.name = "s1", .provider = "second", .reason = "its port is down"}};
}

constexpr ProviderEntry kEntries[] = {{"tcp", &OpenFirst, &ListFirst},
                                      {"second", &OpenSecond, &ListSecond}};

}  // namespace

std::span<const ProviderEntry> AllProviders() { return kEntries; }

namespace {

struct Row {
  const char* name;
  const char* option;
  const char* environment;  // null: not set
  std::string opened;
  StatusCode code = StatusCode::kOk;
  std::optional<Rdma> rdma = {};
  const char* rdma_environment = nullptr;
};

class Selection : public testing::TestWithParam<Row> {
 protected:
  void SetUp() override {
    opened.clear();
    Set("VERBENA_DEVICE", GetParam().environment);
    Set("VERBENA_RDMA", GetParam().rdma_environment);
  }
  void TearDown() override {
    unsetenv("VERBENA_DEVICE");
    unsetenv("VERBENA_RDMA");
  }

 private:
  static void Set(const char* name, const char* value) {
    unsetenv(name);
    if (value != nullptr) setenv(name, value, 1);
  }
};

TEST_P(Selection, Opens) {
  const auto context = Context::Open({.device = GetParam().option, .rdma = GetParam().rdma});
  EXPECT_EQ(context.status().code(), GetParam().code) << context.status();
  EXPECT_EQ(opened, GetParam().opened);
}

INSTANTIATE_TEST_SUITE_P(
    All, Selection,
    testing::Values(
        Row{"Default", "", nullptr, "second(unasked)tcp()"},
        Row{"EmptyEnvironment", "", "", "second(unasked)tcp()"},
        Row{"Auto", "auto", nullptr, "second(unasked)tcp()"}, Row{"Tcp", "tcp", nullptr, "tcp()"},
        Row{"TcpAddress", "tcp:127.0.0.1", nullptr, "tcp(127.0.0.1)"},
        Row{"TcpAddressWithColons", "tcp:[::1]", nullptr, "tcp([::1])"},
        Row{"Environment", "", "second:s0", "second(s0)tcp()"},
        Row{"ProviderAlone", "second", nullptr, "second()tcp()"},
        Row{"OptionBeforeEnvironment", "tcp", "second", "tcp()"},
        Row{"ProviderRefuses", "tcp:bad", nullptr, "tcp(bad)", StatusCode::kInvalidArgument},
        // Which device is one choice, whether RDMA at all is another.
        Row{"NamedProviderRefuses", "second:bad", nullptr, "second(bad)tcp()"},
        Row{"NamedProviderRefusesAndIsRequired", "second:bad", nullptr, "second(bad)",
            StatusCode::kNotFound, Rdma::kRequired},
        Row{"NothingAfterColon", "tcp:", nullptr, "", StatusCode::kInvalidArgument},
        Row{"AutoTakesNothing", "auto:x", nullptr, "", StatusCode::kInvalidArgument},
        Row{"NotAName", "mlx5_0", nullptr, "", StatusCode::kInvalidArgument},
        Row{"Verbs", "verbs", nullptr, "", StatusCode::kNotFound},
        Row{"VerbsDevice", "verbs:rxe0", nullptr, "", StatusCode::kNotFound},
        Row{"Off", "", nullptr, "tcp()", StatusCode::kOk, Rdma::kOff},
        Row{"OffByEnvironment", "second:s0", nullptr, "tcp()", StatusCode::kOk, {}, "off"},
        Row{"OptionBeforeRdmaEnvironment", "", nullptr, "second(unasked)tcp()", StatusCode::kOk,
            Rdma::kAuto, "off"},
        Row{"Required", "", nullptr, "second(unasked)tcp()", StatusCode::kOk, Rdma::kRequired},
        // TCP carries the question which way to take, and no connection.
        Row{"RequiredAndNamed", "second:s0", nullptr, "second(s0)tcp()", StatusCode::kOk,
            Rdma::kRequired},
        Row{"RdmaEnvironmentNonsense", "", nullptr, "", StatusCode::kInvalidArgument, {}, "on"}),
    [](const auto& info) { return std::string(info.param.name); });

// Expect: what stays closed is told, device by device, wherever candidates are.
TEST(ContextTest, DevicesThatStayClosedAreCandidates) {
  left_closed = {{"s0", false, "its port is down"}, {"s1", false, "only if named"}};
  auto context = Context::Open({.device = "auto", .rdma = Rdma::kRequired});
  left_closed.clear();
  ASSERT_TRUE(context.ok()) << context.status();
  EXPECT_TRUE(context->devices().empty());
  auto listener = context->Listen(":7471");
  EXPECT_EQ(listener.status().message(),
            "listen :7471: RDMA is required, and not over s0: its port is down; not over s1: only "
            "if named. `verbena devices` shows what there is.");
}

// Expect: the device that was named is a candidate, with the reason.
TEST(ContextTest, ANamedDeviceThatCannotBeOpenedIsACandidate) {
  auto context = Context::Open({.device = "second:bad"});
  ASSERT_TRUE(context.ok()) << context.status();
  auto listener = context->Listen(":7471", {.rdma = Rdma::kRequired});
  EXPECT_EQ(listener.status().message(),
            "listen :7471: RDMA is required, and not over bad: second:bad: no such device. "
            "`verbena devices` shows what there is.");
}

TEST(ContextTest, NotFoundListsWhatThereIs) {
  setenv("VERBENA_DEVICE", "verbs:rxe0", 1);
  const absl::Status status = Context::Open().status();
  unsetenv("VERBENA_DEVICE");
  EXPECT_EQ(status.message(),
            "device `verbs:rxe0` (VERBENA_DEVICE): there is no such device; usable here: tcp, s0.");
}

TEST(ContextTest, ListDevicesAsksEveryProvider) {
  std::vector<std::string> names;
  for (const DeviceInfo& device : Context::ListDevices()) names.push_back(device.name);
  EXPECT_EQ(names, (std::vector<std::string>{"tcp", "s0", "s1"}));
}

class OpenContext : public testing::Test {
 protected:
  OpenContext() : impl(new fake::Context) { impl->journal = &journal; }
  Context Open() { return *Context::OpenOn(std::unique_ptr<fake::Context>(impl)); }

  fake::Journal journal;
  fake::Context* impl;
};

TEST_F(OpenContext, WiresDevicesAndEvents) {
  const Context context = Open();
  ASSERT_EQ(context.devices().size(), 1u);
  EXPECT_EQ(context.devices()[0]->name(), "fake");
  EXPECT_EQ(impl->host, &context.events());
  EXPECT_GE(context.events().fd(), 0);
}

// Everything made on a context keeps pointing at the same heap state.
TEST_F(OpenContext, MovingKeepsDevicesAndEventsInPlace) {
  Context first = Open();
  const Device* device = first.devices()[0].get();
  const EventQueue* events = &first.events();
  Context second = std::move(first);
  EXPECT_EQ(second.devices()[0].get(), device);
  EXPECT_EQ(&second.events(), events);
  EXPECT_EQ(journal.closed, 0);
}

TEST_F(OpenContext, AssignmentClosesTheFormer) {
  Context context = Open();
  context = *Context::OpenOn(std::make_unique<fake::Context>());
  EXPECT_EQ(journal.closed, 1);
  EXPECT_EQ(journal.destroyed, 1);
  EXPECT_EQ(context.devices().size(), 1u);
}

TEST_F(OpenContext, RefusedCloseChangesNothing) {
  Context context = Open();
  impl->refusal = absl::FailedPreconditionError("context: a device has open objects.");
  EXPECT_EQ(context.Close(), impl->refusal);
  EXPECT_EQ(context.devices().size(), 1u);
  impl->refusal = absl::OkStatus();
  EXPECT_TRUE(context.Close().ok());
  EXPECT_TRUE(context.Close().ok());
  EXPECT_EQ(journal.closed, 1);
  EXPECT_EQ(journal.destroyed, 1);
}

// In a process of its own, which may open nothing more.
TEST(ContextTest, OutOfDescriptorsNamesTheLimit) {
  if (kSanitizerNeedsDescriptors) GTEST_SKIP() << "the sanitizer needs descriptors of its own";
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        rlimit limit{};
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 0;
        setrlimit(RLIMIT_NOFILE, &limit);
        const absl::Status status = Context::OpenOn(std::make_unique<fake::Context>()).status();
        std::fprintf(stderr, "%s\n", status.ToString().c_str());
        std::exit(0);
      },
      testing::ExitedWithCode(0), "RESOURCE_EXHAUSTED: context: .*the limit is 0.*ulimit -n");
}

TEST_F(OpenContext, ListenAndResolvePassErrorsOn) {
  Context context = Open();
  EXPECT_EQ(context.Listen(":0").status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(context.Resolve("nowhere:1").status().code(), StatusCode::kNotFound);
}

TEST_F(OpenContext, ListenAndResolveNameTheContextsDevice) {
  Context context = Open();
  impl->next_listener = std::make_unique<fake::Listener>();
  impl->next_listener->waiting = std::make_unique<fake::ConnectionRequest>(&impl->device);
  impl->next_path = std::make_unique<fake::Path>(&impl->device);
  auto listener = context.Listen(":7471");
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ(listener->port(), 7471);
  const auto request = listener->Next();
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(&request->device(), context.devices()[0].get());
  const auto path = context.Resolve("server:7471");
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(&path->device(), context.devices()[0].get());
}

TEST_F(OpenContext, PathOnAnUnknownDeviceIsAnError) {
  Context context = Open();
  fake::Device other(nullptr, "other");
  impl->next_path = std::make_unique<fake::Path>(&other);
  EXPECT_EQ(context.Resolve("server:7471").status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace verbena
