// SPDX-License-Identifier: Apache-2.0
// The work of rpc_bench on gRPC's C++ library, as fast as its API goes: completion queues with one
// thread a side where calls are many, its synchronous calls where there is one.
#include "tests/bench/rpc_meter.h"
#include "tests/bench/sides.h"

#ifdef HAVE_GRPC
#include <grpcpp/grpcpp.h>

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/peers/grpc_echo.grpc.pb.cc"  // NOLINT: not compiled where there is no gRPC
#include "tests/bench/system_calls.h"

namespace verbena::bench {
namespace {

using grpc::CompletionQueue;
using grpc::ServerCompletionQueue;
using grpc::Status;

void Check(const Status& status) {
  if (!status.ok()) Die(status.error_message());
}

Text Message(size_t bytes = kMessage) {
  Text message;
  message.set_text(std::string(bytes, 'x'));
  return message;
}

// Something that a completion queue brings back.
struct Tag {
  virtual void Done(bool ok) = 0;

 protected:
  ~Tag() = default;
};

// One at a time until the queue is shut down, or `over`. Polling: never sleeps.
template <typename Over>
void Work(CompletionQueue& queue, bool polling, Over over) {
  void* tag = nullptr;
  bool ok = false;
  while (!over()) {
    if (polling) {
      const auto next = queue.AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC));
      if (next == CompletionQueue::SHUTDOWN) return;
      if (next == CompletionQueue::TIMEOUT) continue;
    } else if (!queue.Next(&tag, &ok)) {
      return;
    }
    static_cast<Tag*>(tag)->Done(ok);
  }
}

class Blocks : public GrpcBench::Service {
 public:
  Status Echo(grpc::ServerContext*, const Text* request, Text* answer) override {
    *answer = *request;
    return Status::OK;
  }
  Status Fetch(grpc::ServerContext*, const Wanted* wanted, Text* answer) override {
    answer->set_text(block_.data(), wanted->bytes());
    return Status::OK;
  }
  Status FetchPieces(grpc::ServerContext*, const Wanted* wanted,
                     grpc::ServerWriter<Text>* writer) override {
    const Text piece = Message(wanted->bytes());
    while (writer->Write(piece)) {
    }
    return Status::OK;
  }

 private:
  const std::string block_ = std::string(kBlock, 'x');
};

std::unique_ptr<grpc::Server> Listen(grpc::ServerBuilder& builder, grpc::Service& service,
                                     const Options& options, int* port) {
  builder.AddListeningPort(options.address + ":0", grpc::InsecureServerCredentials(), port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  if (server == nullptr || *port == 0) Die("gRPC does not listen");
  return server;
}

// A thread of its own for each call.
void ServeBlocking(const Options& options, Shared& shared) {
  Blocks blocks;
  grpc::ServerBuilder builder;
  int port = 0;
  const auto server = Listen(builder, blocks, options, &port);
  ServeUntilOver(shared, port, SystemCalls);
  server->Shutdown(std::chrono::system_clock::now());
}

using Queued = GrpcBench::WithAsyncMethod_Echo<GrpcBench::WithAsyncMethod_Echoes<Blocks>>;

// One place for a call: waits for it, answers it, waits for the next.
class EchoPlace final : Tag {
 public:
  EchoPlace(Queued& service, ServerCompletionQueue& queue) : service_(service), queue_(queue) {
    Expect();
  }

 private:
  struct Call {
    grpc::ServerContext context;
    Text request;
    grpc::ServerAsyncResponseWriter<Text> writer{&context};
  };
  void Expect() {
    call_ = std::make_unique<Call>();
    answering_ = false;
    service_.RequestEcho(&call_->context, &call_->request, &call_->writer, &queue_, &queue_, this);
  }
  void Done(bool ok) override {
    if (!ok) return;
    if (answering_) return Expect();
    answering_ = true;
    call_->writer.Finish(call_->request, Status::OK, this);
  }

  Queued& service_;
  ServerCompletionQueue& queue_;
  std::unique_ptr<Call> call_;
  bool answering_ = false;
};

// Reads and writes of one stream, each one at a time, as gRPC wants it.
template <typename Stream>
class Duplex {
 public:
  explicit Duplex(Stream& stream) : stream_(stream) {}
  virtual ~Duplex() = default;

  void StartRead() { stream_.Read(&came_, &read_); }
  // `more`: another one follows at once, so that this one may wait for it.
  void StartWrite(const Text& message, bool more) {
    writing_ = true;
    grpc::WriteOptions options;
    if (more) options.set_buffer_hint();
    stream_.Write(message, options, &write_);
  }
  bool writing() const { return writing_; }
  virtual void Came(const Text& message) = 0;
  virtual void Wrote() = 0;

 private:
  struct Read final : Tag {
    explicit Read(Duplex& its) : duplex(its) {}
    void Done(bool ok) override {
      if (ok) duplex.Came(duplex.came_);
    }
    Duplex& duplex;
  };
  struct Write final : Tag {
    explicit Write(Duplex& its) : duplex(its) {}
    void Done(bool ok) override {
      duplex.writing_ = false;
      if (ok) duplex.Wrote();
    }
    Duplex& duplex;
  };
  Stream& stream_;
  Text came_;
  Read read_{*this};
  Write write_{*this};
  bool writing_ = false;
};

using ServerStream = grpc::ServerAsyncReaderWriter<Text, Text>;

class StreamPlace final : Tag, Duplex<ServerStream> {
 public:
  StreamPlace(Queued& service, ServerCompletionQueue& queue) : Duplex(stream_) {
    service.RequestEchoes(&context_, &stream_, &queue, &queue, this);
  }

 private:
  void Done(bool ok) override {
    if (ok) StartRead();
  }
  void Came(const Text& message) override {
    waiting_.push_back(message);
    Answer();
    StartRead();
  }
  void Wrote() override { Answer(); }
  void Answer() {
    if (writing() || waiting_.empty()) return;
    answer_ = std::move(waiting_.front());
    waiting_.pop_front();
    StartWrite(answer_, !waiting_.empty());
  }

  grpc::ServerContext context_;
  ServerStream stream_{&context_};
  std::deque<Text> waiting_;
  Text answer_;
};

void ServeQueued(bool polling, const Options& options, Shared& shared) {
  Queued service;
  grpc::ServerBuilder builder;
  const auto queue = builder.AddCompletionQueue();
  int port = 0;
  const auto server = Listen(builder, service, options, &port);
  std::vector<std::unique_ptr<EchoPlace>> places;
  for (size_t i = 0; i < 2 * kInFlight; ++i) {
    places.push_back(std::make_unique<EchoPlace>(service, *queue));
  }
  StreamPlace stream(service, *queue);
  std::thread worker([&] { Work(*queue, polling, [] { return false; }); });
  ServeUntilOver(shared, port, SystemCalls);
  server->Shutdown(std::chrono::system_clock::now());
  queue->Shutdown();
  worker.join();
}

std::unique_ptr<GrpcBench::Stub> ConnectTo(const Options& options, const Shared& shared) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const std::string to = options.address + ":" + std::to_string(WaitForPort(shared));
  const auto channel = grpc::CreateCustomChannel(to, grpc::InsecureChannelCredentials(), arguments);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
    Die("gRPC does not connect");
  }
  return GrpcBench::NewStub(channel);
}

// OneByOne or ByThreads.
template <typename Meter>
Result EchoBlocking(Meter meter, const Options& options, Shared& shared) {
  const auto stub = ConnectTo(options, shared);
  const Text request = Message();
  const Result result = meter([&] {
    grpc::ClientContext context;
    Text answer;
    Check(stub->Echo(&context, request, &answer));
  });
  sem_post(&shared.finished);
  return result;
}

Result EchoOneByOne(const Options& options, Shared& shared) {
  return EchoBlocking([&](auto call) { return OneByOne(options, SystemCalls, call); }, options,
                      shared);
}
Result EchoByThreads(const Options& options, Shared& shared) {
  return EchoBlocking([&](auto call) { return ByThreads(options, SystemCalls, call); }, options,
                      shared);
}

// A call that starts the next one when it is answered.
template <typename Request, auto Prepare>
class CallPlace final : Tag {
 public:
  CallPlace(GrpcBench::Stub& stub, CompletionQueue& queue, const Request& request,
            Progress& progress, size_t& running)
      : stub_(stub), queue_(queue), request_(request), progress_(progress), running_(running) {
    ++running_;
    Start();
  }

 private:
  struct Call {
    grpc::ClientContext context;
    Text answer;
    Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<Text>> reader;
  };
  void Start() {
    call_ = std::make_unique<Call>();
    call_->reader = (stub_.*Prepare)(&call_->context, request_, &queue_);
    call_->reader->StartCall();
    call_->reader->Finish(&call_->answer, &call_->status, this);
  }
  void Done(bool) override {
    Check(call_->status);
    if (progress_.Next()) return Start();
    --running_;
  }

  GrpcBench::Stub& stub_;
  CompletionQueue& queue_;
  const Request& request_;
  Progress& progress_;
  size_t& running_;
  std::unique_ptr<Call> call_;
};

using EchoCall = CallPlace<Text, &GrpcBench::Stub::PrepareAsyncEcho>;
using FetchCall = CallPlace<Wanted, &GrpcBench::Stub::PrepareAsyncFetch>;

// `in_flight` of them, on one queue and thread.
template <typename Call, typename Request>
Result Many(const Request& request, size_t in_flight, size_t bytes, const Options& options,
            Shared& shared) {
  const auto stub = ConnectTo(options, shared);
  CompletionQueue queue;
  Progress progress(options.seconds, bytes == 0 ? kCallsALook : 1);
  size_t running = 0;
  const Cost cost(SystemCalls);
  std::vector<std::unique_ptr<Call>> calls;
  for (size_t i = 0; i < in_flight; ++i) {
    calls.push_back(std::make_unique<Call>(*stub, queue, request, progress, running));
  }
  Work(queue, false, [&] { return running == 0; });
  Result result = progress.Figure(bytes);
  result.client = cost.Report(progress.calls());
  sem_post(&shared.finished);
  return result;
}

Result EchoPolling(const Options& options, Shared& shared) {
  const auto stub = ConnectTo(options, shared);
  const Text request = Message();
  CompletionQueue queue;
  struct Answered final : Tag {
    void Done(bool) override { there = true; }
    bool there = false;
  } answered;
  const Result result = OneByOne(options, SystemCalls, [&] {
    grpc::ClientContext context;
    Text answer;
    Status status;
    const auto reader = stub->PrepareAsyncEcho(&context, request, &queue);
    reader->StartCall();
    answered.there = false;
    reader->Finish(&answer, &status, &answered);
    Work(queue, true, [&] { return answered.there; });
    Check(status);
  });
  sem_post(&shared.finished);
  return result;
}

using ClientStream = grpc::ClientAsyncReaderWriter<Text, Text>;

class StreamCaller final : public Duplex<ClientStream> {
 public:
  StreamCaller(ClientStream& stream, Progress& progress) : Duplex(stream), progress_(progress) {}
  void Begin() {
    StartRead();
    Wrote();
  }
  bool over() const { return over_ && in_flight_ == 0 && !writing(); }

 private:
  void Came(const Text&) override {
    --in_flight_;
    over_ = !progress_.Next();
    if (in_flight_ > 0 || !over_) StartRead();
    Wrote();
  }
  void Wrote() override {
    if (writing() || over_ || in_flight_ == kInFlight) return;
    ++in_flight_;
    StartWrite(message_, in_flight_ < kInFlight);
  }

  Progress& progress_;
  const Text message_ = Message();
  size_t in_flight_ = 0;
  bool over_ = false;
};

Result Stream(const Options& options, Shared& shared) {
  const auto stub = ConnectTo(options, shared);
  grpc::ClientContext context;
  CompletionQueue queue;
  struct Begun final : Tag {
    void Done(bool) override { there = true; }
    bool there = false;
  } begun;
  const auto stream = stub->AsyncEchoes(&context, &queue, &begun);
  Work(queue, false, [&] { return begun.there; });
  Progress progress(options.seconds, kCallsALook);
  const Cost cost(SystemCalls);
  StreamCaller caller(*stream, progress);
  caller.Begin();
  Work(queue, false, [&] { return caller.over(); });
  Result result = progress.Figure();
  result.client = cost.Report(progress.calls());
  context.TryCancel();
  Begun ended;
  Status status;
  stream->Finish(&status, &ended);
  Work(queue, false, [&] { return ended.there; });
  sem_post(&shared.finished);
  return result;
}

Wanted Bytes(size_t bytes) {
  Wanted wanted;
  wanted.set_bytes(bytes);
  return wanted;
}

Result Pieces(size_t piece, const Options& options, Shared& shared) {
  const auto stub = ConnectTo(options, shared);
  grpc::ClientContext context;
  Text came;
  Progress progress(options.seconds);
  const Cost cost(SystemCalls);
  const auto reader = stub->FetchPieces(&context, Bytes(piece));
  while (reader->Read(&came) && progress.Next()) {
  }
  Result result = progress.Figure(piece);
  // For the same 16 MiB as elsewhere.
  result.client = cost.Report(progress.calls() * piece / kBlock);
  context.TryCancel();
  while (reader->Read(&came)) {
  }
  reader->Finish();
  sem_post(&shared.finished);
  return result;
}

Row PiecesRow(const char* name, size_t piece) {
  return {name, ServeBlocking, [piece](const Options& options, Shared& shared) {
            return Pieces(piece, options, shared);
          }};
}

void ServeSleeping(const Options& options, Shared& shared) { ServeQueued(false, options, shared); }
void ServePolling(const Options& options, Shared& shared) { ServeQueued(true, options, shared); }

std::vector<Row> Rows() {
  return {{"echo_block", ServeBlocking, EchoOneByOne},
          {"echo_threads", ServeBlocking, EchoByThreads},
          {"echo_poll", ServePolling, EchoPolling},
          {"echo_deep", ServeSleeping,
           [](const Options& options, Shared& shared) {
             return Many<EchoCall>(Message(), kInFlight, 0, options, shared);
           }},
          {"stream_deep", ServeSleeping, Stream},
          {"fetch", ServeBlocking,
           [](const Options& options, Shared& shared) {
             return Many<FetchCall>(Bytes(kBlock), kBlocksInFlight, kBlock, options, shared);
           }},
          PiecesRow("pieces_64k", size_t{64} << 10),
          PiecesRow("pieces_256k", size_t{256} << 10),
          PiecesRow("pieces_1m", size_t{1} << 20)};
}

}  // namespace
}  // namespace verbena::bench

int main(int argc, char** argv) { return verbena::bench::Main(argc, argv, verbena::bench::Rows()); }

#else

int main(int argc, char** argv) {
  using namespace verbena::bench;  // NOLINT: the whole program is in it
  const auto lack = [] {
    return std::string(
        "built without gRPC; tools/setup --full, then bazel "
        "sync --configure");
  };
  std::vector<Row> rows;
  for (const char* name : {"echo_block", "echo_threads", "echo_poll", "echo_deep", "stream_deep",
                           "fetch", "pieces_64k", "pieces_256k", "pieces_1m"}) {
    rows.push_back({name, nullptr, nullptr, lack});
  }
  return Main(argc, argv, rows);
}
#endif
