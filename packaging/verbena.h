// SPDX-License-Identifier: Apache-2.0
//
// Everything of Verbena's public API: what an installed program includes.
// tests/install checks that each header of //transport:public_headers is here.
#pragma once

#include "transport/access.h"
#include "transport/capabilities.h"
#include "transport/completion_queue.h"
#include "transport/connection.h"
#include "transport/context.h"
#include "transport/counters.h"
#include "transport/datagram.h"
#include "transport/device.h"
#include "transport/events.h"
#include "transport/handle.h"
#include "transport/ip.h"
#include "transport/memory.h"
#include "transport/options.h"
#include "transport/out_of_band.h"
#include "transport/protection_domain.h"
#include "transport/qp_state.h"
#include "transport/queue_pair.h"
#include "transport/shared_receive_queue.h"
#include "transport/work_completion.h"
#include "transport/work_request.h"
