// SPDX-License-Identifier: Apache-2.0
#include "transport/thread.h"

#include <csignal>
#include <string>

#include "gtest/gtest.h"

namespace verbena::provider {
namespace {

TEST(StartThread, TakesNoSignalsOfTheApplication) {
  // Expect: the thread has blocked what applications handle, and no fault; the caller nothing new.
  sigset_t seen, before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  pthread_t thread;
  const auto main = [](void* self) -> void* {
    pthread_sigmask(SIG_SETMASK, nullptr, static_cast<sigset_t*>(self));
    return nullptr;
  };
  ASSERT_TRUE(StartThread("verbena-test", main, &seen, &thread).ok());
  pthread_join(thread, nullptr);
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(sigismember(&seen, SIGINT), 1);
  EXPECT_EQ(sigismember(&seen, SIGUSR1), 1);
  EXPECT_EQ(sigismember(&seen, SIGSEGV), 0);
  EXPECT_EQ(sigismember(&after, SIGUSR1), sigismember(&before, SIGUSR1));
}

TEST(StartThread, NoThreadIsAnErrorAndNoException) {
  // No address space has room for such a stack.
  pthread_attr_t large, former;
  ASSERT_EQ(pthread_getattr_default_np(&former), 0);
  pthread_attr_init(&large);
  ASSERT_EQ(pthread_attr_setstacksize(&large, size_t{1} << 47), 0);
  ASSERT_EQ(pthread_setattr_default_np(&large), 0);
  pthread_t thread;
  const auto main = [](void* self) -> void* { return self; };
  const absl::Status status = StartThread("verbena-test", main, nullptr, &thread);
  ASSERT_EQ(pthread_setattr_default_np(&former), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_NE(std::string(status.message()).find("pids.max"), std::string::npos) << status;
  pthread_attr_destroy(&large);
  pthread_attr_destroy(&former);
}

}  // namespace
}  // namespace verbena::provider
