// SPDX-License-Identifier: Apache-2.0
#include "transport/out_of_band.h"

#include <isa-l/crc.h>
#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace verbena {
namespace {

// All numbers big-endian:
//   magic 4 'Vrba' | version 1 | kind 1 | rdma 1 | ways 1 | notes 1 | length 2 | nonce 16
//   a way: link 1 | name: length 1, text
//     TCP: port 2 | count 1 | addresses, 16 each
//     else: gid 16 | gid type 1 | lid 2 | mtu 1 | responder resources 1 | number 4 | psn 4
//   a note: device: length 1, text | reason: length 1, text
//   crc 4, of all before it
constexpr uint32_t kMagic = 0x56726261;
constexpr uint8_t kVersion = 1;
constexpr size_t kHeader = 27;
constexpr size_t kCrc = 4;
constexpr size_t kWaysAt = 7, kNotesAt = 8, kLengthAt = 9;
constexpr size_t kMaxName = 64;
constexpr size_t kMaxReason = 100;

// CRC-32C (Castagnoli), as of iSCSI and MPA. ISA-L does not write through the pointer.
uint32_t Crc(absl::string_view bytes) {
  auto* const data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~0u);
}

class Writer {
 public:
  void Number(uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) out_.push_back(static_cast<char>(value >> (8 * i)));
  }
  void Bytes(const std::array<uint8_t, 16>& bytes) {
    out_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void Text(absl::string_view text, size_t most) {
    text = text.substr(0, most);
    Number(text.size(), 1);
    out_.append(text.data(), text.size());
  }
  std::string& out() { return out_; }

 private:
  std::string out_;
};

// Reads past the end give zeros and are remembered.
class Reader {
 public:
  explicit Reader(absl::string_view in) : in_(in) {}
  uint64_t Number(int bytes) {
    uint64_t value = 0;
    for (const char c : Take(static_cast<size_t>(bytes))) {
      value = value << 8 | static_cast<uint8_t>(c);
    }
    return value;
  }
  void Bytes(std::array<uint8_t, 16>* out) {
    const absl::string_view from = Take(out->size());
    if (!from.empty()) std::memcpy(out->data(), from.data(), out->size());
  }
  std::string Text() { return PlainText(Take(static_cast<size_t>(Number(1)))); }
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  absl::string_view Take(size_t n) {
    if (n > in_.size()) {
      ok_ = false;
      in_ = {};
      return {};
    }
    const absl::string_view out = in_.substr(0, n);
    in_.remove_prefix(n);
    return out;
  }
  absl::string_view in_;
  bool ok_ = true;
};

std::string EncodeWay(const Way& way, size_t room) {
  Writer w;
  w.Number(static_cast<uint8_t>(way.link), 1);
  w.Text(way.device, kMaxName);
  if (way.link == Link::kNone) {
    const size_t fits = room > w.out().size() + 3 ? (room - w.out().size() - 3) / sizeof(Ip) : 0;
    const size_t count = std::min(way.addresses.size(), fits);
    w.Number(way.port, 2);
    w.Number(count, 1);
    for (size_t i = 0; i < count; ++i) w.Bytes(way.addresses[i]);
    return std::move(w.out());
  }
  w.Bytes(way.gid);
  w.Number(way.gid_type, 1);
  w.Number(way.lid, 2);
  w.Number(way.mtu, 1);
  w.Number(way.responder_resources, 1);
  w.Number(way.qp_number, 4);
  w.Number(way.psn, 4);
  return std::move(w.out());
}

Way DecodeWay(Reader& r) {
  Way way;
  way.link = static_cast<Link>(r.Number(1));
  way.device = r.Text();
  if (way.link == Link::kNone) {
    way.port = static_cast<uint16_t>(r.Number(2));
    const uint64_t count = r.Number(1);
    for (uint64_t i = 0; i < count && r.ok(); ++i) r.Bytes(&way.addresses.emplace_back());
    return way;
  }
  r.Bytes(&way.gid);
  way.gid_type = static_cast<uint8_t>(r.Number(1));
  way.lid = static_cast<uint16_t>(r.Number(2));
  way.mtu = static_cast<uint8_t>(r.Number(1));
  way.responder_resources = static_cast<uint8_t>(r.Number(1));
  way.qp_number = static_cast<uint32_t>(r.Number(4));
  way.psn = static_cast<uint32_t>(r.Number(4));
  return way;
}

absl::Status Invalid(absl::string_view fact) {
  return absl::InvalidArgumentError(
      absl::StrCat("address: ", fact, ". Pass on every byte of what address() gave."));
}

// Null if a queue pair on one may reach one on the other, else why not.
const char* WhyNot(const Way& a, const Way& b) {
  if (a.link == Link::kIwarp) return "an iWARP device connects through its connection manager only";
  if (a.link != b.link) return "the peer has no device of this link";
  if (a.link == Link::kRoce && a.gid_type != b.gid_type) return "the peer's RoCE version differs";
  if (a.link == Link::kRoce && IsV4(a.gid) != IsV4(b.gid)) {
    return "the peer's address is of the other IP family";
  }
  if (a.link == Link::kInfiniband && CommonBits(a.gid, b.gid) < 64) {
    return "the peer is in another InfiniBand subnet";
  }
  return nullptr;
}

struct WayPair {
  const Way* first = nullptr;
  const Way* second = nullptr;
};

WayPair Nearest(const Contact& first, const Contact& second) {
  WayPair best;
  int most = -1;
  for (const Way& a : first.ways) {
    for (const Way& b : second.ways) {
      if (a.link == Link::kNone || WhyNot(a, b) != nullptr) continue;
      if (const int bits = CommonBits(a.gid, b.gid); bits > most) {
        most = bits;
        best = {&a, &b};
      }
    }
  }
  return best;
}

const Way* Tcp(const Contact& contact) {
  for (const Way& way : contact.ways) {
    if (way.link == Link::kNone) return &way;
  }
  return nullptr;
}

std::string WhyLost(const Way& mine, const Contact& theirs, bool off) {
  if (off) return "RDMA is off at one of both ends";
  const char* why = "the peer has no RDMA device in use";
  for (const Way& way : theirs.ways) {
    if (way.link == Link::kNone) continue;
    why = WhyNot(mine, way);
    if (why == nullptr) return "another device is nearer to the peer";
    if (way.link == mine.link) break;
  }
  return why;
}

std::string LinkText(const Way& way) {
  return way.link == Link::kNone ? "TCP" : LinkName(way.link);
}

}  // namespace

Nonce NewNonce() {
  Nonce nonce;
  while (getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
  }
  return nonce;
}

std::string Encode(const Contact& contact) {
  Writer w;
  w.Number(kMagic, 4);
  w.Number(kVersion, 1);
  w.Number(contact.queue_pair ? 1 : 2, 1);
  w.Number(static_cast<uint8_t>(contact.rdma), 1);
  w.Number(0, 2);
  w.Number(0, 2);
  w.Bytes(contact.nonce);
  const auto add = [&w](const std::string& part, size_t count_at) {
    if (w.out().size() + part.size() + kCrc > kMaxContact) return false;
    w.out() += part;
    ++w.out()[count_at];
    return true;
  };
  for (const Way& way : contact.ways) {
    if (!add(EncodeWay(way, kMaxContact - kCrc - w.out().size()), kWaysAt)) break;
  }
  for (const Candidate& each : contact.absent) {
    Writer note;
    note.Text(each.device, kMaxName);
    note.Text(Shortened(each.reason, kMaxReason), kMaxReason);
    if (!add(note.out(), kNotesAt)) break;
  }
  const size_t length = w.out().size() + kCrc;
  w.out()[kLengthAt] = static_cast<char>(length >> 8);
  w.out()[kLengthAt + 1] = static_cast<char>(length);
  w.Number(Crc(w.out()), 4);
  return std::move(w.out());
}

absl::StatusOr<Contact> DecodeContact(absl::string_view text) {
  Reader r(text.substr(0, text.size() - std::min(text.size(), kCrc)));
  if (r.Number(4) != kMagic || !r.ok()) {
    return Invalid(text.size() < kHeader ? "it is cut short" : "this is none of Verbena's");
  }
  if (const uint64_t version = r.Number(1); r.ok() && version != kVersion) {
    return absl::UnimplementedError(
        absl::StrCat("address: it is of version ", version, ", and this end knows ", kVersion,
                     ". Use the same version of Verbena at both ends."));
  }
  if (text.size() > kMaxContact) return Invalid("it is longer than one can be");
  const uint64_t kind = r.Number(1), rdma = r.Number(1), ways = r.Number(1), notes = r.Number(1);
  const uint64_t length = r.Number(2);
  if (!r.ok() || length != text.size()) {
    return Invalid(absl::StrCat("it has ", text.size(), " bytes of ", length));
  }
  if (Reader(text.substr(text.size() - kCrc)).Number(4) !=
      Crc(text.substr(0, text.size() - kCrc))) {
    return Invalid("it was changed on the way (CRC)");
  }
  Contact c;
  c.queue_pair = kind == 1;
  c.rdma = static_cast<Rdma>(rdma);
  r.Bytes(&c.nonce);
  for (uint64_t i = 0; i < ways && r.ok(); ++i) c.ways.push_back(DecodeWay(r));
  for (uint64_t i = 0; i < notes && r.ok(); ++i) {
    std::string device = r.Text();
    c.absent.push_back({std::move(device), false, r.Text()});
  }
  bool sound = r.ok() && r.at_end() && (kind == 1 || kind == 2) && rdma <= 2 &&
               (!c.queue_pair || c.ways.size() == 1);
  for (const Way& way : c.ways) {
    sound = sound && way.link <= Link::kIwarp && way.qp_number < 1u << 24 && way.psn < 1u << 24;
  }
  if (!sound) return Invalid("its content is none of Verbena's");
  return c;
}

absl::StatusOr<Contact> AsSeen(const Contact& whole) {
  absl::StatusOr<Contact> seen = DecodeContact(Encode(whole));
  if (!seen.ok()) return seen;
  seen->absent = whole.absent;
  for (size_t i = seen->ways.size(); i < whole.ways.size(); ++i) {
    seen->absent.push_back({whole.ways[i].device, false, "the address has no room for it"});
  }
  return seen;
}

absl::Status CheckPeer(const Contact& mine, const Contact& theirs) {
  if (!theirs.queue_pair) {
    return absl::InvalidArgumentError(
        "connect: that is a context's address, which is for Choose. Use the one that the peer's "
        "queue pair gives.");
  }
  if (mine.nonce == theirs.nonce) {
    return absl::InvalidArgumentError(
        "connect: that is this queue pair's own address. Use the peer's.");
  }
  const Way& here = mine.ways.front();
  const Way& there = theirs.ways.front();
  const char* why = here.link == Link::kNone && there.link == Link::kNone ? nullptr
                    : here.link == there.link                             ? WhyNot(here, there)
                                              : "both ends must use the same kind of device";
  if (why == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("connect: this queue pair is on device ", here.device, " (", LinkText(here),
                   "), the peer's on ", there.device, " (", LinkText(there), "): ", why,
                   ". Make both on the devices that Context::Choose names."));
}

absl::StatusOr<DevicePair> ChooseDevices(const Contact& mine, const Contact& theirs) {
  if (mine.queue_pair || theirs.queue_pair) {
    return absl::InvalidArgumentError(
        "choose: that is a queue pair's address, which is for Connect. Use Context::address().");
  }
  if (mine.nonce == theirs.nonce) {
    return absl::InvalidArgumentError("choose: that is this context's own address");
  }
  const bool off = mine.rdma == Rdma::kOff || theirs.rdma == Rdma::kOff;
  const bool required = mine.rdma == Rdma::kRequired || theirs.rdma == Rdma::kRequired;
  WayPair pair;  // {mine, theirs}
  if (!off) {
    const bool lower = mine.nonce < theirs.nonce;
    pair = lower ? Nearest(mine, theirs) : Nearest(theirs, mine);
    if (!lower) std::swap(pair.first, pair.second);
  }
  const bool rdma = pair.first != nullptr;
  if (!rdma && !required) pair = {Tcp(mine), Tcp(theirs)};
  DevicePair choice;
  std::string reasons;
  for (const Way& way : mine.ways) {
    const bool chosen = &way == pair.first;
    std::string why =
        chosen ? rdma ? "nearest of the devices that both ends have" : "no RDMA device serves"
        : way.link == Link::kNone ? rdma ? "an RDMA device serves" : "RDMA is required"
                                  : WhyLost(way, theirs, off);
    if (!chosen) absl::StrAppend(&reasons, "; not ", way.device, ": ", why);
    choice.candidates.push_back({way.device, chosen, std::move(why)});
  }
  for (const Candidate& each : mine.absent) {
    absl::StrAppend(&reasons, "; not ", each.device, ": ", each.reason);
    choice.candidates.push_back(each);
  }
  for (const Candidate& each : theirs.absent) {
    absl::StrAppend(&reasons, "; not the peer's ", each.device, ": ", each.reason);
  }
  if (pair.first == nullptr || pair.second == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("choose: ", required ? "RDMA is required, and " : "",
                     "no device of this end reaches one of the peer's", reasons,
                     ". `verbena devices` shows at each end what there is."));
  }
  choice.device = pair.first->device;
  choice.peer_device = pair.second->device;
  return choice;
}

}  // namespace verbena
