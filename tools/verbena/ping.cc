// SPDX-License-Identifier: Apache-2.0
// `verbena ping`: options, and the link that both sides use.
#include "tools/verbena/ping.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/verbena/commands.h"
#include "tools/verbena/exit_status.h"
#include "tools/verbena/flags.h"

namespace verbena::tool {
namespace {

constexpr const char* kUsageText = R"(verbena ping -s [-P] [options]        server side
verbena ping -c -a HOST [options]     client side

Tries a connection with everything that RDMA does: each ping is read by the server from the client's
memory, written back into it, and announced by four messages. Options and wire are rping's, so that
either side may be an rping.

)";

constexpr const char* kExamplesText = R"(
Examples:
  verbena ping -s                            serve one client on port 7174, then end
  verbena ping -s -P -p 0                    serve any number, on a port that is free
  verbena ping -c -a HOST -C 10 -v -V        ten pings, shown and compared
  verbena ping -c -a HOST -C 1 --fault wrong-key
                                             see how both ends report a protection error
)";

FlagSet Flags(PingOptions* o) {
  return FlagSet({
      {'s', "server", "", "server side", &o->server},
      {'c', "client", "", "client side", &o->client},
      {'a', "address", "ADDR", "server: listen there only; client: the server", &o->host},
      {'p', "port", "PORT", "default 7174; a server's 0: one that is free",
       Number{&o->port, 0, 65535}},
      {'I', "source", "ADDR", "client: connect from this address (TCP only)", &o->source},
      {'C', "count", "N", "client: so many pings; default: until stopped (Ctrl-C)",
       Number{&o->count, 0, UINT32_MAX}},
      {'S', "size", "BYTES", "client: of a ping, 4 to 65536, default 64",
       Number{&o->size, kMinPing, kMaxPing}},
      {'v', "verbose", "", "print the data", &o->verbose},
      {'V', "validate", "", "client: compare what came back with what was sent", &o->validate},
      {'P', "persistent", "", "server: serve for ever, several clients at once", &o->persistent},
      {'d', "debug", "", "say each step on stderr", &o->debug},
      {0, "device", "DEVICE", "auto, tcp, or verbs[:NAME]; see `verbena devices`", &o->device},
      {0, "rdma", "WHEN", "off, auto or required; default auto",
       Word{&o->rdma, {"off", "auto", "required"}}},
      {0, "timeout", "SECONDS", "of silence; default 10 for a client, 60 for a server",
       Number{&o->timeout_s, 1, 86400}},
      {0, "fault", "KIND", "client: break the protection, wrong-key or out-of-bounds",
       Word{&o->fault, {"wrong-key", "out-of-bounds"}}},
      {0, "json", "", "print a PingReport as JSON, one line a client", &o->json},
  });
}

absl::Status Check(const PingOptions& options) {
  if (absl::Status status = CheckSide(options); !status.ok()) return status;
  if (options.server && !options.fault.empty()) {
    return absl::InvalidArgumentError("--fault is the client's; the server needs no option for it");
  }
  if (!options.source.empty() && !options.device.empty() && options.device != "auto" &&
      options.device != "tcp") {
    return absl::InvalidArgumentError(
        absl::StrCat("-I chooses a TCP address; it does not go with --device ", options.device));
  }
  return absl::OkStatus();
}

}  // namespace

int Ping(int argc, char** argv) {
  PingOptions options;
  FlagSet flags = Flags(&options);
  absl::Status status = flags.Parse(argc, argv);
  const bool bare = argc == 1;
  if (flags.help_wanted() || bare) {
    fprintf(bare ? stderr : stdout, "%s%s%s", kUsageText, flags.Help().c_str(), kExamplesText);
    return bare ? kUsage : kOk;
  }
  if (status.ok()) status = Check(options);
  if (!options.source.empty()) options.device = "tcp:" + options.source;
  if (!status.ok()) return Misused("ping", status);
  return options.server ? RunPingServer(options) : RunPingClient(options);
}

void PingOptions::Debug(absl::string_view what) const {
  if (debug) Complain("ping", what);
}

absl::StatusOr<AdvertLink> AdvertLink::Make(Device& device, const PingOptions& options) {
  AdvertLink self;
  self.options_ = &options;
  absl::StatusOr<std::unique_ptr<Link>> link = Link::Make(device, {.sends = 16, .receives = 2});
  if (!link.ok()) return link.status();
  self.link_ = *std::move(link);
  absl::StatusOr<Buffer*> messages =
      self.link_->AddBuffer(2 * sizeof(AdvertBytes), Access::kLocalWrite);
  if (!messages.ok()) return messages.status();
  self.messages_ = *messages;
  if (absl::Status status = self.PostReceive(); !status.ok()) return status;
  return self;
}

absl::Status AdvertLink::PostReceive() {
  return link_->PostReceive({.local = messages_->slice(0, sizeof(AdvertBytes))});
}

absl::Status AdvertLink::Send(const RemoteBuffer& advert) {
  // The one before has been received: the peer answered it.
  const AdvertBytes bytes = EncodeAdvert(advert);
  memcpy(messages_->bytes().data() + sizeof bytes, &bytes, sizeof bytes);
  options_->Debug(advert.key == 0 ? std::string("send go-ahead")
                                  : absl::StrFormat("send address 0x%x key 0x%x length %d",
                                                    advert.address, advert.key, advert.length));
  return link_->PostSend(
      {.opcode = Opcode::kSend, .local = messages_->slice(sizeof bytes, sizeof bytes)});
}

absl::StatusOr<RemoteBuffer> AdvertLink::Receive(absl::Duration timeout) {
  absl::StatusOr<WorkCompletion> received = link_->Await(WcOpcode::kReceive, timeout);
  if (!received.ok()) return received.status();
  if (received->length != sizeof(AdvertBytes)) {
    return absl::InternalError(absl::StrCat("the peer ", link_->qp().connection().peer,
                                            " sent a message of ", received->length,
                                            " bytes where ping's have ", sizeof(AdvertBytes),
                                            ". Is it `verbena ping` or rping on the other end?"));
  }
  AdvertBytes bytes;
  memcpy(&bytes, messages_->bytes().data(), sizeof bytes);
  const RemoteBuffer advert = DecodeAdvert(bytes);
  options_->Debug(absl::StrFormat("received address 0x%x key 0x%x length %d", advert.address,
                                  advert.key, advert.length));
  if (absl::Status status = PostReceive(); !status.ok()) return status;
  return advert;
}

}  // namespace verbena::tool
