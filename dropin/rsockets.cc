// SPDX-License-Identifier: Apache-2.0
// rsockets (rsocket(7)): the kernel's sockets. What TCP carries here is TCP at its best; only
// riomap(3) and riowrite(3), which place data without a receiver's call, have no counterpart.
#include <fcntl.h>
#include <poll.h>
#include <rdma/rsocket.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>

extern "C" {

int rsocket(int domain, int type, int protocol) { return socket(domain, type, protocol); }
int rbind(int s, const sockaddr* address, socklen_t length) { return bind(s, address, length); }
int rlisten(int s, int backlog) { return listen(s, backlog); }
int raccept(int s, sockaddr* address, socklen_t* length) { return accept(s, address, length); }
int rconnect(int s, const sockaddr* address, socklen_t length) {
  return connect(s, address, length);
}
int rshutdown(int s, int how) { return shutdown(s, how); }
int rclose(int s) { return close(s); }

ssize_t rrecv(int s, void* buf, size_t size, int flags) { return recv(s, buf, size, flags); }
ssize_t rrecvfrom(int s, void* buf, size_t size, int flags, sockaddr* from, socklen_t* length) {
  return recvfrom(s, buf, size, flags, from, length);
}
ssize_t rrecvmsg(int s, msghdr* message, int flags) { return recvmsg(s, message, flags); }
ssize_t rsend(int s, const void* buf, size_t size, int flags) { return send(s, buf, size, flags); }
ssize_t rsendto(int s, const void* buf, size_t size, int flags, const sockaddr* to,
                socklen_t length) {
  return sendto(s, buf, size, flags, to, length);
}
ssize_t rsendmsg(int s, const msghdr* message, int flags) { return sendmsg(s, message, flags); }
ssize_t rread(int s, void* buf, size_t size) { return read(s, buf, size); }
ssize_t rreadv(int s, const iovec* v, int count) { return readv(s, v, count); }
ssize_t rwrite(int s, const void* buf, size_t size) { return write(s, buf, size); }
ssize_t rwritev(int s, const iovec* v, int count) { return writev(s, v, count); }

int rpoll(pollfd* fds, nfds_t count, int timeout) { return poll(fds, count, timeout); }
int rselect(int count, fd_set* read, fd_set* write, fd_set* except, timeval* timeout) {
  return select(count, read, write, except, timeout);
}

int rgetpeername(int s, sockaddr* address, socklen_t* length) {
  return getpeername(s, address, length);
}
int rgetsockname(int s, sockaddr* address, socklen_t* length) {
  return getsockname(s, address, length);
}

// SOL_RDMA's sizes of queues are hints to a device.
int rsetsockopt(int s, int level, int name, const void* value, socklen_t length) {
  return level == SOL_RDMA ? 0 : setsockopt(s, level, name, value, length);
}
int rgetsockopt(int s, int level, int name, void* value, socklen_t* length) {
  return getsockopt(s, level, name, value, length);
}

int rfcntl(int s, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  const long argument = va_arg(arguments, long);
  va_end(arguments);
  return fcntl(s, command, argument);
}

off_t riomap(int, void*, size_t, int, int, off_t) {
  errno = EOPNOTSUPP;
  return -1;
}
int riounmap(int, void*, size_t) {
  errno = EOPNOTSUPP;
  return -1;
}
size_t riowrite(int, const void*, size_t, off_t, int) {
  errno = EOPNOTSUPP;
  return static_cast<size_t>(-1);
}

}  // extern "C"
