// SPDX-License-Identifier: Apache-2.0
// What programs are told of a device and its one port.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>

namespace verbena::dropin {

int QueryPort(ibv_context* context, uint8_t port, ibv_port_attr* attr, size_t size);
int QueryDeviceEx(ibv_context* context, const ibv_query_device_ex_input* input,
                  ibv_device_attr_ex* attr, size_t size);
int QueryRealTime(ibv_context* context, ibv_values_ex* values);

// Of completion timestamps: nanoseconds, of a clock that never jumps.
inline constexpr uint64_t kClockKhz = 1'000'000;
uint64_t Timestamp();

}  // namespace verbena::dropin
