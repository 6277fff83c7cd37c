// SPDX-License-Identifier: Apache-2.0
// Ids of RDMA_PS_UDP: service ID resolution instead of connecting, and multicast groups.
#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "dropin/cm_id.h"
#include "dropin/datagrams.h"
#include "dropin/errors.h"
#include "transport/log.h"

namespace verbena::dropin {
namespace {

// What rdma_connect(3) and rdma_accept(3) take for datagrams.
constexpr size_t kMostOfRequest = 180;
constexpr size_t kMostOfReply = 136;
// IBTA 12.11.2, as events carry them.
constexpr int kSidrUnsupported = 1, kSidrReject = 2;

std::string DataOf(const rdma_conn_param* p) {
  if (p == nullptr || p->private_data == nullptr) return {};
  return {static_cast<const char*>(p->private_data), p->private_data_len};
}

ibv_gid GidOf(const Ip& ip) {
  ibv_gid gid;
  std::copy(ip.begin(), ip.end(), std::begin(gid.raw));
  return gid;
}

}  // namespace

// param.ud and param.conn begin alike, with the private data.
void ConnectionId::PushDatagrams(CmEvent* e, const ibv_gid& gid, uint32_t qp_number,
                                 uint32_t qkey) {
  rdma_ud_param& ud = e->param.ud;
  ud.ah_attr = AttributesOf(gid);
  ud.qp_num = qp_number;
  ud.qkey = qkey;
  std::lock_guard lock(ManagerMutex());
  EventChannel::Of(channel)->events.Push(e);
}

int ConnectionId::ListenDatagrams() {
  Process* const process = Process::Get();
  if (process == nullptr) return errno;
  provider::Address at = provider::Address::From(&route.addr.src_addr);
  if (route.addr.src_addr.sa_family == AF_UNSPEC) {
    at = provider::Address::FromIp("0.0.0.0", 0).value();
  }
  // What requests will be of is opened here: the service only looks it up.
  for (Device* each : Device::All()) {
    Context* const opened = ManagerContext(each);
    if (opened == nullptr || ManagerDomain(opened) == nullptr) return errno;
  }
  sidr_listener_ = SidrListener::Start(
      &process->device().hub(), at,
      [this](const SidrCaller& caller, const SidrMessage& m) { TakeCaller(caller, m); });
  if (sidr_listener_ == nullptr) return errno;
  at.set_port(sidr_listener_->port());
  SetAddresses(at, {});
  return 0;
}

void ConnectionId::TakeCaller(const SidrCaller& caller, const SidrMessage& m) {
  Device* const device = Device::At(caller.to);
  Context* const opened = device == nullptr ? nullptr : ManagerContext(device);
  if (opened == nullptr) return;
  auto* const id = new ConnectionId(process_, channel, context, ps);
  id->verbs = &opened->context;
  id->port_num = 1;
  id->pd = ManagerDomain(opened);
  provider::Address local = device->address();
  local.set_port(provider::Address::From(&route.addr.src_addr).port());
  id->SetAddresses(local, caller.from);
  id->sidr_caller_ = caller;
  auto* const e = new CmEvent(id, RDMA_CM_EVENT_CONNECT_REQUEST, 0);
  e->listen_id = this;
  e->SetPrivateData(m.private_data);
  PushDatagrams(e, GidOf(caller.from.bytes()), m.qp_number, m.qkey);
}

int ConnectionId::ConnectDatagrams(const rdma_conn_param* p) {
  Process* const process = Process::Get();
  const provider::Address to = provider::Address::From(&route.addr.dst_addr);
  if (process == nullptr || to.empty() || sidr_call_ != nullptr) return EINVAL;
  SidrMessage request;
  request.private_data = DataOf(p);
  if (request.private_data.size() > kMostOfRequest) return EINVAL;
  (void)!getrandom(&request.id, sizeof(request.id), 0);
  if (qp != nullptr) request.qp_number = qp->qp_num;
  request.qkey = RDMA_UDP_QKEY;
  sidr_call_ = SidrCall::Start(
      &process->device().hub(), provider::Address::From(&route.addr.src_addr), to, request,
      [this](const SidrMessage* answer, int error) { Answered(answer, error); });
  return sidr_call_ == nullptr ? errno : 0;
}

void ConnectionId::Answered(const SidrMessage* answer, int error) {
  const bool well = answer != nullptr && answer->kind == SidrKind::kReply;
  int status = 0;
  if (!well) status = answer != nullptr ? kSidrReject : -error;
  if (error == ECONNREFUSED) status = kSidrUnsupported;
  auto* const e =
      new CmEvent(this, well ? RDMA_CM_EVENT_ESTABLISHED : RDMA_CM_EVENT_UNREACHABLE, status);
  if (answer != nullptr) e->SetPrivateData(answer->private_data);
  PushDatagrams(e, route.addr.addr.ibaddr.dgid, well ? answer->qp_number : 0,
                well ? answer->qkey : 0);
}

int ConnectionId::AnswerCaller(SidrKind kind, uint32_t qp_number, const std::string& data) {
  if (!sidr_caller_ || data.size() > kMostOfReply) return EINVAL;
  SidrMessage m;
  m.kind = kind;
  m.id = sidr_caller_->id;
  m.qp_number = qp_number;
  m.qkey = RDMA_UDP_QKEY;
  m.private_data = data;
  SidrListener::Answer(*sidr_caller_, m);
  sidr_caller_.reset();
  return 0;
}

int ConnectionId::AcceptDatagrams(const rdma_conn_param* p) {
  if (qp == nullptr && p == nullptr) return EINVAL;
  return AnswerCaller(SidrKind::kReply, qp != nullptr ? qp->qp_num : p->qp_num, DataOf(p));
}

int ConnectionId::RejectDatagrams(const void* data, uint8_t length) {
  return AnswerCaller(SidrKind::kRefusal, 0,
                      data == nullptr ? "" : std::string(static_cast<const char*>(data), length));
}

// Before the id goes: from here on nothing comes from the service.
void ConnectionId::StopDatagrams() {
  sidr_listener_.reset();
  sidr_call_.reset();
  if (sidr_caller_) (void)AnswerCaller(SidrKind::kRefusal, 0, "");
}

// --- groups

int ConnectionId::JoinMulticast(const sockaddr* address, void* whose) {
  if (verbs == nullptr) return EINVAL;
  const provider::Address group = provider::Address::From(address);
  if (group.empty()) return EAFNOSUPPORT;
  const ibv_gid gid = GidOfGroup(group.bytes());
  int error = 0;
  if (qp != nullptr) error = ibv_attach_mcast(qp, &gid, 0);
  auto* const e = new CmEvent(
      this, error == 0 ? RDMA_CM_EVENT_MULTICAST_JOIN : RDMA_CM_EVENT_MULTICAST_ERROR, -error);
  e->param.ud.private_data = whose;  // librdmacm's way to tell which
  PushDatagrams(e, gid, kMulticastQpNumber, RDMA_UDP_QKEY);
  return 0;
}

int ConnectionId::LeaveMulticast(const sockaddr* address) {
  const provider::Address group = provider::Address::From(address);
  if (group.empty()) return EAFNOSUPPORT;
  const ibv_gid gid = GidOfGroup(group.bytes());
  return qp == nullptr ? 0 : ibv_detach_mcast(qp, &gid, 0);
}

}  // namespace verbena::dropin
