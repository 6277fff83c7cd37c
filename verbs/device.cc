// SPDX-License-Identifier: Apache-2.0
#include "verbs/device.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "transport/log.h"
#include "verbs/completion.h"
#include "verbs/listener.h"
#include "verbs/protection_domain.h"
#include "verbs/queue_pair.h"
#include "verbs/shared_receive_queue.h"

namespace verbena::verbs {
namespace {

// A post translates on the stack, so the entries of one request are bounded.
constexpr uint32_t kMostSge = 32;
// What the API promises on every provider: rdma_connect(3) leaves 56 bytes on InfiniBand, accept
// and reject as much as the CM messages hold (IBTA 12.6).
constexpr uint32_t kConnectPrivateData = 56;
constexpr uint32_t kAcceptPrivateData = 196;
constexpr uint32_t kRejectPrivateData = 148;
// Where a driver takes less, data is copied to registered memory of our own at the post.
constexpr uint32_t kLeastInline = 512;

uint32_t Positive(int value) { return static_cast<uint32_t>(std::max(value, 0)); }

Capabilities CapabilitiesOf(const Found& found) {
  const ibv_device_attr& a = found.attributes;
  const bool type2 =
      (a.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)) != 0;
  Capabilities c;
  // RFC 5040 has neither immediate data nor a refusal for want of a receive; RFC 7306 is optional
  // and verbs do not tell whether a peer has it. Completions are local unless IwarpSends confirms.
  c.immediate = c.rnr = !found.iwarp;
  c.remote_completion = true;
  // The Terminate message that says why stays in the driver.
  c.refusal_reasons = !found.iwarp;
  // siw keeps the rights of a queue pair and never looks at them (siw_qp_modify_nonstate).
  c.queue_pair_rights = !(found.iwarp && found.info.software);
  // siw sets none (Linux 6.1 drivers/infiniband/sw/siw has no such code); where hardware does, the
  // accepting end's is settled before Accept.
  c.traffic_class = !found.iwarp;
  c.atomics = a.atomic_cap != IBV_ATOMIC_NONE;
  c.global_atomics = a.atomic_cap == IBV_ATOMIC_GLOB;
  c.memory_windows = type2 && a.max_mw > 0;
  // Soft-RoCE and Soft-iWARP raise none of the events IBV_EVENT_QP_ACCESS_ERR and _REQ_ERR.
  c.responder_events = !found.info.software;
  // InfiniBand needs the subnet's manager for each address (docs/decisions/0022-datagrams.md).
  c.unreliable_datagram = found.info.link == Link::kRoce;
  c.unreliable_connection = !found.iwarp;  // RFC 5040 has no such thing
  c.out_of_band = !found.iwarp;            // docs/decisions/0015-out-of-band.md
  c.send_with_invalidate =
      c.memory_windows && (a.device_cap_flags & IBV_DEVICE_MEM_MGT_EXTENSIONS) != 0;
  return c;
}

DeviceAttributes AttributesOf(const Found& found) {
  const ibv_device_attr& d = found.attributes;
  DeviceAttributes a;
  a.max_queue_pairs = Positive(d.max_qp);
  a.max_completion_queues = Positive(d.max_cq);
  a.max_memory_regions = Positive(d.max_mr);
  a.max_memory_windows = Positive(d.max_mw);
  a.max_shared_receive_queues = Positive(d.max_srq);
  a.max_work_requests = Positive(std::min(d.max_qp_wr, d.max_srq > 0 ? d.max_srq_wr : d.max_qp_wr));
  a.max_sge =
      std::min({Positive(d.max_sge), d.max_srq > 0 ? Positive(d.max_srq_sge) : kMostSge, kMostSge});
  a.max_completions = Positive(d.max_cqe);
  if (found.iwarp) {  // room for IwarpSends' own
    a.max_work_requests /= 2;
    a.max_completions /= 2;
  }
  // rdma_conn_param has a byte for each, and 255 asks for the most there is.
  a.max_initiator_depth = std::min(Positive(d.max_qp_init_rd_atom), 254u);
  a.max_responder_resources = std::min(Positive(d.max_qp_rd_atom), 254u);
  // IBTA 9.7.2: 2^31 bytes at most. Some drivers say 0 or more.
  const uint64_t most = uint64_t{1} << 31;
  a.max_message = found.port_attributes.max_msg_sz;
  if (a.max_message == 0 || a.max_message > most) a.max_message = most;
  if (found.info.link == Link::kRoce) {
    a.max_datagram = 128u << found.port_attributes.active_mtu;  // IBV_MTU_256 is 1
  }
  a.max_region = d.max_mr_size == 0 ? ~uint64_t{0} : d.max_mr_size;
  a.private_data_connect = kConnectPrivateData;
  a.private_data_accept = kAcceptPrivateData;
  a.private_data_reject = kRejectPrivateData;
  return a;
}

}  // namespace

absl::Status Device::Use::Check() const {
  if (!device_->gone()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("device ", device_->name(),
                   ": it was removed or failed. Use another, or open a new context."));
}

// The service thread may have something to tell from when the device is open.
void Device::SetHost(provider::Host* host) {
  const std::lock_guard lock(service_->mutex());
  host_ = host;
}

Device::Device(provider::Context* owner, Service* service, Found found)
    : owner_(owner),
      service_(service),
      found_(std::move(found)),
      attributes_(AttributesOf(found_)),
      capabilities_(CapabilitiesOf(found_)) {
  const int fd = found_.context->async_fd;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  service_->AddSource(this);
  Watch();
}

Device::~Device() {
  if (watch_ != nullptr) Lib().destroy_id(watch_);
  if (found_.context != nullptr) service_->RemoveSource(this);
}

// Without it, a context that is idle would not hear of the removal. A device without an address
// has no connections either.
void Device::Watch() {
  for (const std::string& address : found_.info.addresses) {
    absl::StatusOr<Address> at = Address::FromIp(address, 0);
    CmHandler* const handler = this;
    if (!at.ok() || Lib().create_id(service_->channel(), &watch_, handler, RDMA_PS_TCP) != 0) {
      continue;
    }
    if (Lib().bind_addr(watch_, at->raw()) == 0 && watch_->verbs != nullptr) return;
    Lib().destroy_id(watch_);
    watch_ = nullptr;
  }
}

void Device::OnCm(const CmEvent& event) {
  if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL) Gone();
}

void Device::Gone() {
  if (gone_.exchange(true, std::memory_order_seq_cst)) return;
  const absl::Status why = absl::UnavailableError(absl::StrCat(
      "device ", name(), ": it failed or is being removed. Close what was made from it."));
  VERBENA_LOG(kWarn, "verbs", std::string(why.message()));
  Event e;
  e.type = EventType::kDeviceFatal;
  e.status = why;
  Push(this, std::move(e));
  for (const auto& [number, qp] : queue_pairs_) qp->DeviceGone(why);
  for (ConnectionRequest* request : std::exchange(requests_, {})) request->DeviceGone();
  service_->SetDeadline(this, absl::ZeroDuration());
}

void Device::OnDeadline() {
  constexpr absl::Duration kLook = absl::Milliseconds(20);
  if (children_.count() > 0) return service_->SetDeadline(this, kLook);
  LetGo();
}

// librdmacm opens a device for itself, and closes a removed one only when it looks at the list of
// devices again and finds another one there. Its descriptors get another meaning instead, while the
// identifier still keeps it from closing them.
void Device::LetGo() {
  service_->RemoveSource(this);
  found_.context.reset();
  if (watch_ == nullptr) return;
  if (const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC); nothing >= 0) {
    dup3(nothing, watch_->verbs->cmd_fd, O_CLOEXEC);
    dup3(nothing, watch_->verbs->async_fd, O_CLOEXEC);
    close(nothing);
  }
  Lib().destroy_id(watch_);
  watch_ = nullptr;
}

DeviceAttributes Device::attributes() const {
  const std::lock_guard lock(inline_mutex_);
  auto* const self = const_cast<Device*>(this);
  if (!inline_known_) self->inline_known_ = self->ProbeInline();
  return attributes_;
}

// No attribute tells the limit, so the device is asked as ibv_create_qp(3) answers; not before
// somebody wants to know, as a queue pair costs memory of the device.
bool Device::ProbeInline() {
  const Use use(this);
  attributes_.max_inline = kLeastInline;
  if (gone()) return false;
  bool known = false;
  ibv_pd* pd = Lib().alloc_pd(context());
  ibv_cq* cq = pd != nullptr ? Lib().create_cq(context(), 1, nullptr, nullptr, 0) : nullptr;
  for (uint32_t bytes : {1024u, 512u, 256u, 128u, 80u, 64u, 32u}) {
    if (cq == nullptr) break;
    ibv_qp_init_attr attributes{};
    attributes.send_cq = attributes.recv_cq = cq;
    attributes.qp_type = IBV_QPT_RC;
    attributes.cap = {.max_send_wr = 1,
                      .max_recv_wr = 1,
                      .max_send_sge = 1,
                      .max_recv_sge = 1,
                      .max_inline_data = bytes};
    ibv_qp* qp = Lib().create_qp(pd, &attributes);
    // Any other error is no answer: a container's share is used up, say, and later it is not.
    known = qp != nullptr || errno == EINVAL;
    if (qp == nullptr) continue;
    device_inline_ = std::max(attributes.cap.max_inline_data, bytes);
    Lib().destroy_qp(qp);
    break;
  }
  if (cq != nullptr) Lib().destroy_cq(cq);
  if (pd != nullptr) Lib().dealloc_pd(pd);
  attributes_.max_inline = std::max(device_inline_, kLeastInline);
  return known;
}

absl::Status Device::Refused(int error, const std::string& what, Resource resource,
                             const std::string& remedy) const {
  return NoMore(error, absl::StrCat(what, " on device ", name()), resource, found_.attributes,
                InUse(name(), resource), remedy);
}

DeviceCounters Device::counters() const {
  DeviceCounters c;
  {
    const std::lock_guard lock(service_->mutex());
    c.queue_pairs = queue_pairs_.size();
  }
  c.regions = counts_.regions;
  c.registered_bytes = counts_.registered_bytes;
  c.connects = counts_.connects;
  c.accepts = counts_.accepts;
  c.rejects = counts_.rejects;
  c.handshake_failures = counts_.handshake_failures;
  c.service_wakeups = service_->wakeups();
  return c;
}

absl::StatusOr<std::unique_ptr<provider::ProtectionDomain>> Device::AllocateProtectionDomain() {
  const Use use(this);
  if (absl::Status s = use.Check(); !s.ok()) return s;
  return ProtectionDomain::Create(this);
}

absl::StatusOr<std::unique_ptr<provider::CompletionChannel>> Device::CreateCompletionChannel() {
  const Use use(this);
  if (absl::Status s = use.Check(); !s.ok()) return s;
  return CompletionChannel::Create(this);
}

absl::StatusOr<std::unique_ptr<provider::CompletionQueue>> Device::CreateCompletionQueue(
    const CqOptions& options) {
  const Use use(this);
  if (absl::Status s = use.Check(); !s.ok()) return s;
  return CompletionQueue::Create(this, options);
}

void Device::Push(const void* object, Event event) {
  if (host_ == nullptr) return;
  host_->Push(object, std::move(event));
  service_->Changed();
}

void Device::Changed() {
  if (host_ != nullptr) host_->Changed();
  service_->Changed();
}

void Device::Forget(const void* object) {
  if (host_ != nullptr) host_->Forget(object);
}

void Device::ReportFailure(uint32_t qp_number, WcStatus status, const char* what, uint32_t key) {
  // The service's own thread holds its mutex whenever it polls.
  std::unique_lock lock(service_->mutex(), std::defer_lock);
  if (!service_->on_its_thread()) lock.lock();
  const auto it = queue_pairs_.find(qp_number);
  if (it != queue_pairs_.end()) it->second->CompletionFailed(status, what, key);
}

// Under the mutex. Acknowledged at once: ibv_destroy_qp(3) waits for that.
void Device::OnEvents() {
  ibv_async_event event;
  while (Lib().get_async_event(context(), &event) == 0) {
    Dispatch(event);
    Lib().ack_async_event(&event);
  }
  if (errno == EAGAIN || errno == EINTR) return;
  // A device that was pulled out has nothing more to say, and its descriptor never falls silent.
  service_->RemoveSource(this);
  Gone();
}

void Device::Dispatch(const ibv_async_event& event) {
  switch (event.event_type) {
    case IBV_EVENT_CQ_ERR:
      static_cast<CompletionQueue*>(event.element.cq->cq_context)->OnOverflow();
      return;
    case IBV_EVENT_SRQ_LIMIT_REACHED:
    case IBV_EVENT_SRQ_ERR:
      static_cast<SharedReceiveQueue*>(event.element.srq->srq_context)
          ->OnEvent(event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED);
      return;
    case IBV_EVENT_DEVICE_FATAL:
      return Gone();
    case IBV_EVENT_PORT_ACTIVE:
    case IBV_EVENT_PORT_ERR:
      VERBENA_LOG(kInfo, "verbs", "device ", name(), ": port ", event.element.port_num,
                  event.event_type == IBV_EVENT_PORT_ACTIVE ? " is active" : " went down");
      return;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      DispatchQueuePair(event);
      return;
    default:
      return;  // path migration, subnet management: not ours
  }
}

void Device::DispatchQueuePair(const ibv_async_event& event) {
  // Probes have no context, and are gone before anybody hears of them.
  auto* qp = static_cast<QueuePair*>(event.element.qp->qp_context);
  if (qp != nullptr) qp->OnAsync(event.event_type);
}

uint64_t Device::RnrNaks(bool received) const {
  static constexpr const char* kReceived[] = {"rcvd_rnr_err"};
  static constexpr const char* kSent[] = {"send_rnr_err", "out_of_buffer"};
  uint64_t sum = 0;
  const auto add = [&](const char* counter) {
    const std::string path = absl::StrCat("/sys/class/infiniband/", name(), "/ports/",
                                          int{found_.port}, "/hw_counters/", counter);
    std::FILE* file = std::fopen(path.c_str(), "re");
    if (file == nullptr) return;
    unsigned long long value = 0;
    if (std::fscanf(file, "%llu", &value) == 1) sum += value;
    std::fclose(file);
  };
  for (const char* counter : kReceived) {
    if (received) add(counter);
  }
  for (const char* counter : kSent) {
    if (!received) add(counter);
  }
  return sum;
}

}  // namespace verbena::verbs
