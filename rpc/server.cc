// SPDX-License-Identifier: Apache-2.0
#include "rpc/server.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "rpc/health.h"

namespace verbena::rpc {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Open(const ServerOptions& options) {
  if (options.threads < 1 || options.handler_threads < 0 || options.max_calls < 1 ||
      options.max_message < kLeastMessage || options.max_message > kMostMessage) {
    return absl::InvalidArgumentError(
        "rpc: a server needs threads >= 1, handler_threads >= 0, max_calls >= 1, and max_message "
        "of 4 KiB to 2 GiB");
  }
  if (options.max_memory < options.max_message) {
    return absl::InvalidArgumentError("rpc: max_memory has to hold one max_message at least");
  }
  auto context = Context::Open(options.context);
  if (!context.ok()) return context.status();
  std::unique_ptr<Server> server(new Server(options, *std::move(context)));
  if (options.health) {
    server->health_ = std::make_unique<HealthService>();
    if (auto status = server->Add(*server->health_); !status.ok()) return status;
    for (auto& [id, handler] : server->handlers_) handler.always = true;
  }
  return server;
}

Server::Server(const ServerOptions& options, Context context)
    : options_(options), memory_(options.max_memory), context_(std::move(context)) {
  for (int i = 0; i < options.threads; ++i) {
    drivers_.push_back(std::make_unique<Driver>(
        context_, DriverOptions{.wait = options.wait, .spin = options.spin, .always = true}));
  }
}

absl::Status Server::Add(Service& service) {
  for (const Handler& handler : service.handlers()) {
    if (!handlers_.try_emplace(handler.method->id, handler).second) {
      return absl::AlreadyExistsError(absl::StrCat("rpc: ", handler.method->name,
                                                   ": there is a method of this name or number, ",
                                                   handlers_[handler.method->id].method->name));
    }
    if (health_ == nullptr) continue;
    const std::vector<std::string> parts = absl::StrSplit(handler.method->name, '/');
    if (parts.size() == 3) health_->SetServing(parts[1], true);  // "/package.Service/Method"
  }
  return absl::OkStatus();
}

void Server::SetServing(const std::string& service, bool serving) {
  if (health_ != nullptr) health_->SetServing(service, serving);
}

absl::Status Server::Start(const std::string& address) {
  auto listener = context_.Listen(address);
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  drivers_.front()->Watch(listener_.fd(), [this] { AcceptWaiting(); });
  for (const auto& driver : drivers_) {
    driver->SetTick([this, its = driver.get()](int64_t now) { return Tick(*its, now); });
    driver->Start();
  }
  for (int i = 0; i < options_.handler_threads; ++i) {
    handler_threads_.emplace_back([this] { HandlerThread(); });
  }
  return absl::OkStatus();
}

std::string Server::address() const { return listener_.address(); }

void Server::AcceptWaiting() {
  for (ConnectionRequest request; (request = listener_.TryNext()).is_open();) {
    if (auto status = Accept(request); !status.ok()) {
      (void)request.Reject(Shortened(status.message(), 64));
    }
  }
}

absl::Status Server::Accept(ConnectionRequest& request) {
  if (auto hello = DecodeHello(request.private_data()); !hello.ok()) return hello.status();
  Driver& driver = *drivers_[next_driver_++ % drivers_.size()];
  auto connection = std::make_unique<Connection>(*this, driver);
  auto session =
      Session::Make(driver, request.device(), options_.max_message, *connection, &memory_);
  if (!session.ok()) return session.status();
  connection->peer = request.info().peer;
  connection->session = *std::move(session);
  Connection& made = *connection;
  // Its own thread may see its end, and want to be rid of it, before this one is through with it.
  made.session->pins.fetch_add(1);
  absl::Status refused = made.session->SetPeer(request.private_data());
  {
    const std::lock_guard lock(lock_);
    if (draining_ && refused.ok()) refused = absl::UnavailableError("the server is shutting down");
    connections_.push_back(std::move(connection));
    if (refused.ok()) ++accepted_;
  }
  absl::Status status = refused;
  if (refused.ok()) {
    status = request.Accept(made.session->queue_pair(), {.private_data = made.session->hello()});
  }
  // Its own thread may be using it by now, as devices flush the receives of one that is refused,
  // and is to take it down.
  driver.Post([this, &made, status] {
    if (!status.ok()) made.session->End(status);
    made.session->pins.fetch_sub(1);
    Reap(made.driver);
  });
  return refused;
}

void Server::HandlerThread() {
  for (;;) {
    IncomingCall* call = nullptr;
    {
      std::unique_lock lock(queue_lock_);
      queued_.wait(lock, [this] { return stop_handlers_ || !queue_.empty(); });
      if (queue_.empty()) return;
      call = queue_.front();
      queue_.pop_front();
    }
    Serve(*call);
  }
}

// Where its handler runs.
void Server::Serve(IncomingCall& call) {
  if (!options_.interceptors.empty()) {
    if (auto refused = Intercept(call); !refused.ok()) return call.Finish(refused, nullptr);
  }
  if (call.wrong_ != nullptr) {
    return call.Finish(
        absl::InvalidArgumentError(absl::StrCat("rpc: ", call.method_->name, ": ", call.wrong_)),
        nullptr);
  }
  call.Handle();
}

// Each as far as one that refuses the call.
absl::Status Server::Intercept(IncomingCall& call) {
  for (const ServerInterceptor& interceptor : options_.interceptors) {
    auto at_end = interceptor(call);
    if (!at_end.ok()) return at_end.status();
    if (*at_end) call.AddAtEnd(*std::move(at_end));
  }
  return absl::OkStatus();
}

void Server::ReapSoon(Driver& driver) {
  driver.Post([this, its = &driver] { Reap(*its); });
}

void Server::Reap(Driver& driver) {
  std::vector<std::unique_ptr<Connection>> over;
  const std::lock_guard lock(lock_);
  const auto stays = std::partition(connections_.begin(), connections_.end(), [&](const auto& it) {
    return &it->driver != &driver || !it->Over();
  });
  std::move(stays, connections_.end(), std::back_inserter(over));
  connections_.erase(stays, connections_.end());
  over.clear();
  if (connections_.empty()) ended_.notify_all();
}

int64_t Server::Tick(Driver& driver, int64_t now) {
  constexpr int64_t kResolutionNs = 1'000'000;
  int64_t next = kNever;
  std::vector<Connection*> mine;
  {
    const std::lock_guard lock(lock_);
    for (const auto& connection : connections_) {
      if (&connection->driver == &driver) mine.push_back(connection.get());
    }
  }
  // Only this thread takes its connections down.
  for (Connection* connection : mine) {
    next = std::min(next, connection->CancelUntil(
                              now, absl::DeadlineExceededError("rpc: the call's time was up")));
  }
  if (!draining_.load()) return std::max(next, now + kResolutionNs);
  for (Connection* connection : mine) connection->EndIfIdle();
  return now + kResolutionNs;
}

void Server::ForEachConnection(const std::function<void(Connection&)>& what) {
  for (const auto& driver : drivers_) {
    driver->Post([this, its = driver.get(), what] {
      std::vector<Connection*> mine;
      {
        const std::lock_guard lock(lock_);
        for (const auto& connection : connections_) {
          if (&connection->driver == its) mine.push_back(connection.get());
        }
      }
      for (Connection* connection : mine) what(*connection);
    });
  }
}

absl::Status Server::Shutdown(absl::Duration timeout) {
  std::unique_lock lock(lock_);
  const bool first = !draining_.exchange(true);
  lock.unlock();
  if (first) {
    if (health_ != nullptr) health_->ShutDown();
    ForEachConnection([](Connection& connection) {
      (void)connection.session->Send({.kind = FrameKind::kGoAway});
      connection.session->FlushSoon();
      connection.driver.TickBy(0);
    });
  }
  lock.lock();
  const auto all_gone = [this] { return connections_.empty(); };
  const auto most = absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24)));
  if (ended_.wait_for(lock, most, all_gone)) return absl::OkStatus();
  const uint64_t running = running_.load();
  lock.unlock();
  ForEachConnection([](Connection& connection) {
    const auto why = absl::UnavailableError("rpc: the server shuts down");
    connection.CancelUntil(kNever, why);
    connection.session->End(why);
  });
  if (running == 0) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("rpc: ", running, " calls had not ended and were cancelled"));
}

Server::~Server() {
  if (listener_.is_open()) {
    (void)Shutdown(absl::ZeroDuration());
    std::unique_lock lock(lock_);
    ended_.wait(lock, [this] { return connections_.empty(); });
  }
  {
    const std::lock_guard lock(queue_lock_);
    stop_handlers_ = true;
    queued_.notify_all();
  }
  for (std::thread& thread : handler_threads_) thread.join();
  for (const auto& driver : drivers_) driver->Stop();
}

ServerCounters Server::counters() const {
  const std::lock_guard lock(lock_);
  return {.connections = accepted_,
          .calls = calls_.load(),
          .refused = refused_.load(),
          .running = running_.load(),
          .memory = memory_.used()};
}

}  // namespace verbena::rpc
