-- SPDX-License-Identifier: Apache-2.0
--
-- What Verbena adds to iWARP, for Wireshark and tshark (4.0 and later): the record and the enhanced
-- words in the private data of MPA frames, control messages (opcode 0xf), immediate data, atomics,
-- the two bits of the RDMAP byte, and the numbers of requests. The layouts are in docs/wire.md.
--
--   tshark -X lua_script:tools/wireshark/verbena.lua -r FILE
--   wireshark -X lua_script:tools/wireshark/verbena.lua FILE
--
-- Runs after Wireshark's own iWARP dissectors and adds a tree of its own, one for each FPDU.

local verbena = Proto("verbena", "Verbena")

local ROLES = { [1] = "Request", [2] = "Reply" }
local CONTROLS = { "ACK", "RNR-NAK", "RESUME", "READY", "NAK", "BYE" }
local REASONS = {
  "remote access error", "remote invalid request", "remote operation error", "protocol error",
}
local ATOMICS = { [0] = "FetchAdd", [2] = "CmpSwap" }
local FEATURES = {
  { 0x01, "acknowledge" }, { 0x02, "rnr" }, { 0x04, "immediate" }, { 0x08, "atomics" },
  { 0x10, "large_fpdu" }, { 0x20, "rendezvous" }, { 0x40, "note" }, { 0x80, "out_of_band" },
  { 0x100, "unreliable" },
}

local WRITE, READ, SEND_FIRST, SEND_LAST = 0, 1, 3, 6
local IMMEDIATE, IMMEDIATE_SE, ATOMIC, ATOMIC_RESPONSE, CONTROL = 8, 9, 10, 11, 15
local MAGIC, RECORD_SIZE = 0x56726231, 16
local TAGGED_SIZE, UNTAGGED_SIZE = 16, 20 -- with the length before them
local ACK, RNR_NAK, RESUME, NAK = 1, 2, 3, 5

local f = verbena.fields
-- The hand-shake.
f.ird = ProtoField.uint16("verbena.mpa.ird", "Reads and atomics served at once (IRD)",
  base.DEC, nil, 0x3fff)
f.peer_to_peer = ProtoField.bool("verbena.mpa.peer_to_peer", "A: peer-to-peer", 16, nil, 0x8000)
f.rtr_send = ProtoField.bool("verbena.mpa.rtr_send", "B: first frame may be a Send",
  16, nil, 0x4000)
f.ord = ProtoField.uint16("verbena.mpa.ord", "Reads and atomics wanted at once (ORD)",
  base.DEC, nil, 0x3fff)
f.rtr_write = ProtoField.bool("verbena.mpa.rtr_write", "C: first frame may be a Write",
  16, nil, 0x8000)
f.rtr_read = ProtoField.bool("verbena.mpa.rtr_read", "D: first frame may be a Read",
  16, nil, 0x4000)
f.private_data = ProtoField.bytes("verbena.private_data", "Private data of the application")
f.record = ProtoField.none("verbena.record", "Record")
f.version = ProtoField.uint8("verbena.record.version", "Version")
f.role = ProtoField.uint8("verbena.record.role", "Role", base.DEC, ROLES)
f.length = ProtoField.uint8("verbena.record.length", "Length")
f.fpdu_kib = ProtoField.uint8("verbena.record.fpdu_kib", "Largest payload of an FPDU, KiB")
for _, set in ipairs({ "features", "required" }) do
  f[set] = ProtoField.uint32("verbena.record." .. set, set:gsub("^%l", string.upper), base.HEX)
  for _, feature in ipairs(FEATURES) do
    f[set .. feature[2]] = ProtoField.bool(
      "verbena.record." .. set .. "." .. feature[2], feature[2]:gsub("_", " "), 32, nil, feature[1])
  end
end
-- FPDUs.
f.rsn = ProtoField.uint32("verbena.rsn", "Number of the request (RSN)")
f.wanted = ProtoField.bool("verbena.ack_wanted", "Acknowledgement wanted", 8, nil, 0x20)
f.with_immediate = ProtoField.bool("verbena.with_immediate", "With immediate", 8, nil, 0x10)
f.immediate = ProtoField.uint32("verbena.immediate", "Immediate", base.HEX)
f.type = ProtoField.uint8("verbena.control.type", "Control message", base.DEC, CONTROLS)
f.reason = ProtoField.uint8("verbena.control.code", "Reason", base.DEC, REASONS)
f.control_rsn = ProtoField.uint32("verbena.control.rsn", "Request")
f.about = ProtoField.framenum("verbena.control.about", "Request in frame", base.NONE,
  frametype and frametype.REQUEST)
f.timer = ProtoField.uint32("verbena.control.timer", "Timer code")
f.text = ProtoField.string("verbena.control.text", "Text")
f.code = ProtoField.uint8("verbena.atomic.code", "Operation", base.DEC, ATOMICS, 0x0f)
f.id = ProtoField.uint32("verbena.atomic.id", "Request identifier")
f.stag = ProtoField.uint32("verbena.atomic.stag", "STag", base.HEX)
f.offset = ProtoField.uint64("verbena.atomic.offset", "Offset", base.HEX)
f.operand = ProtoField.uint64("verbena.atomic.operand", "Add or swap", base.HEX)
f.operand_mask = ProtoField.uint64("verbena.atomic.operand_mask", "Add or swap mask", base.HEX)
f.compare = ProtoField.uint64("verbena.atomic.compare", "Compare", base.HEX)
f.compare_mask = ProtoField.uint64("verbena.atomic.compare_mask", "Compare mask", base.HEX)
f.original = ProtoField.uint64("verbena.atomic.original", "Original value", base.HEX)

-- Which library of bit operations there is depends on the version of Lua.
local function has(value, bit) return math.floor(value / bit) % 2 == 1 end

local malformed = ProtoExpert.new("verbena.malformed", "Shorter than its opcode says",
  expert.group.MALFORMED, expert.severity.ERROR)
verbena.experts = { malformed }

local stream_of = Field.new("tcp.stream")
local request_key, reply_key = Field.new("iwarp_mpa.key.req"), Field.new("iwarp_mpa.key.rep")
local private_data = Field.new("iwarp_mpa.privatedata")
local fpdu_length = Field.new("iwarp_mpa.ulpdulength")

-- What was learnt in the first pass over the file.
local streams = {} -- by tcp.stream: the records seen, the initiator, the requests of each sender
local numbers = {} -- by frame: the RSN of each FPDU in it
function verbena.init()
  streams, numbers = {}, {}
end

local function stream_here()
  local number = stream_of()
  if number == nil then return nil end
  local known = streams[number.value]
  if known == nil then
    known = { records = {}, senders = {} }
    streams[number.value] = known
  end
  return known
end

local function sender_of(stream, pinfo, other)
  local address = other and pinfo.dst or pinfo.src
  local port = other and pinfo.dst_port or pinfo.src_port
  local key = tostring(address) .. " " .. port
  stream.senders[key] = stream.senders[key] or { next = 1, frames = {}, fpdus = 0 }
  return stream.senders[key]
end

-- The record stands at the end of the private data, or before zeros.
local function find_record(data)
  local last = data:len()
  while last >= RECORD_SIZE and data(last - 1, 1):uint() == 0 do last = last - 1 end
  for first = math.max(0, last - RECORD_SIZE), last - 4 do
    if first + RECORD_SIZE <= data:len() and data(first, 4):uint() == MAGIC and
        data(first + 4, 1):uint() == 1 and data(first + 6, 1):uint() == RECORD_SIZE then
      return first
    end
  end
  return nil
end

local function add_record(data, tree)
  local branch = tree:add(f.record, data)
  branch:add(f.version, data(4, 1))
  branch:add(f.role, data(5, 1))
  branch:add(f.length, data(6, 1))
  branch:add(f.fpdu_kib, data(7, 1))
  local names = {}
  for i, set in ipairs({ "features", "required" }) do
    local range = data(4 + 4 * i, 4)
    local bits = branch:add(f[set], range)
    for _, feature in ipairs(FEATURES) do
      bits:add(f[set .. feature[2]], range)
      if i == 1 and has(range:uint(), feature[1]) then
        names[#names + 1] = feature[2]
      end
    end
  end
  branch:append_text(": version " .. data(4, 1):uint() .. ", " .. table.concat(names, ", "))
end

local function hand_shake(pinfo, root, stream)
  local private = private_data()
  if private == nil then return end
  local data = private.range
  local tree = root:add(verbena, data, "Verbena: MPA private data")
  local first = 0
  local flags = private.source(private.offset - 4, 1):uint()
  if has(flags, 0x10) and data:len() >= 4 then
    for _, field in ipairs({ f.peer_to_peer, f.rtr_send, f.ird }) do tree:add(field, data(0, 2)) end
    for _, field in ipairs({ f.rtr_write, f.rtr_read, f.ord }) do tree:add(field, data(2, 2)) end
    stream.peer_to_peer = data(0, 1):uint() >= 0x80
    first = 4
  end
  local record = find_record(data)
  local last = record or data:len()
  if last > first then tree:add(f.private_data, data(first, last - first)) end
  if record ~= nil then
    local role = data(record + 5, 1):uint()
    stream.records[role] = true
    add_record(data(record, RECORD_SIZE), tree)
  end
end

-- The number of a request, counted as its two ends do; nil if it is none.
local function count(stream, sender, pinfo, fpdu)
  local opcode = fpdu.opcode
  sender.fpdus = sender.fpdus + 1
  -- The first frame of a peer-to-peer connection only says that its sender is ready.
  if sender.fpdus == 1 and sender == stream.initiator and stream.peer_to_peer then
    stream.ready_frame = pinfo.number
    return nil
  end
  if opcode == CONTROL and fpdu.control == RESUME then sender.next = fpdu.rsn end
  local ends
  if opcode == WRITE then
    ends = fpdu.last and not fpdu.with_immediate
  elseif opcode >= SEND_FIRST and opcode <= SEND_LAST then
    ends = fpdu.last
  elseif opcode == READ or opcode == ATOMIC or opcode == IMMEDIATE or opcode == IMMEDIATE_SE then
    ends = true
  else
    return nil
  end
  local number = sender.next
  sender.frames[number] = pinfo.number
  if ends then sender.next = number + 1 end
  return number
end

local function describe_control(data, tree, stream, pinfo)
  local type, rsn = data(4, 1):uint(), data(12, 4):uint()
  local info = (CONTROLS[type] or "control message " .. type)
  tree:add(f.type, data(4, 1))
  if type == NAK then
    tree:add(f.reason, data(5, 1))
    info = info .. " (" .. (REASONS[data(5, 1):uint()] or "?") .. ")"
  end
  if rsn ~= 0 then
    tree:add(f.control_rsn, data(12, 4))
    info = info .. " request " .. rsn
    -- A RESUME is about the sender's own request, the others about the peer's.
    local frame = sender_of(stream, pinfo, type ~= RESUME).frames[rsn]
    if frame ~= nil then tree:add(f.about, data(12, 4), frame):set_generated() end
  end
  if type == RNR_NAK then tree:add(f.timer, data(16, 4)) end
  if type == NAK and data:len() > UNTAGGED_SIZE then
    tree:add(f.text, data(UNTAGGED_SIZE))
    info = info .. ": " .. data(UNTAGGED_SIZE):string()
  end
  return info
end

local function describe_atomic(data, tree)
  tree:add(f.code, data(23, 1))
  tree:add(f.id, data(24, 4))
  tree:add(f.stag, data(28, 4))
  tree:add(f.offset, data(32, 8))
  tree:add(f.operand, data(40, 8))
  tree:add(f.operand_mask, data(48, 8))
  tree:add(f.compare, data(56, 8))
  tree:add(f.compare_mask, data(64, 8))
  return ATOMICS[data(23, 1):uint() % 16] or "atomic operation"
end

-- Bytes that an opcode needs, with header and length.
local NEEDS = { [IMMEDIATE] = 28, [IMMEDIATE_SE] = 28, [ATOMIC] = 72, [ATOMIC_RESPONSE] = 32,
  [CONTROL] = UNTAGGED_SIZE }

-- `data` is an FPDU without padding and CRC. What the column says, and whether in place of
-- Wireshark's words or after them.
local function describe(fpdu, data, tree, stream, pinfo)
  local opcode = fpdu.opcode
  if opcode == CONTROL then return describe_control(data, tree, stream, pinfo), true end
  if opcode == ATOMIC then return describe_atomic(data, tree), true end
  if opcode == ATOMIC_RESPONSE then
    tree:add(f.id, data(20, 4))
    tree:add(f.original, data(24, 8))
  elseif opcode == IMMEDIATE or opcode == IMMEDIATE_SE then
    tree:add(f.immediate, data(20, 4))
    return string.format("Immediate 0x%08x", data(20, 4):uint()), true
  elseif fpdu.with_immediate and opcode ~= WRITE then
    tree:add(f.immediate, data(4, 4))
    return string.format("immediate 0x%08x", data(4, 4):uint()), false
  end
  return nil, false
end

local function one_fpdu(field, pinfo, root, stream, index)
  local data = field.source(field.offset)
  local size = field.value + 2
  if data:len() < size or size < TAGGED_SIZE then return nil end
  data = data(0, size)
  local control, rdmap = data(2, 1):uint(), data(3, 1):uint()
  local fpdu = { opcode = rdmap % 16, with_immediate = has(rdmap, 0x10), last = has(control, 0x40) }
  local tagged = control >= 0x80
  fpdu.payload = size - (tagged and TAGGED_SIZE or UNTAGGED_SIZE)
  local short = fpdu.payload < 0 or size < (NEEDS[fpdu.opcode] or 0)
  if not short and fpdu.opcode == CONTROL then
    fpdu.control, fpdu.rsn = data(4, 1):uint(), data(12, 4):uint()
  end
  if not short and not pinfo.visited then
    numbers[pinfo.number] = numbers[pinfo.number] or {}
    numbers[pinfo.number][index] = count(stream, sender_of(stream, pinfo), pinfo, fpdu)
  end

  local tree = root:add(verbena, data)
  if short then
    tree:add_proto_expert_info(malformed)
    return nil
  end
  local number = stream.records[2] and (numbers[pinfo.number] or {})[index]
  if number then tree:add(f.rsn, data(2, 2), number):set_generated() end
  if stream.records[2] then
    tree:add(f.wanted, data(3, 1))
    tree:add(f.with_immediate, data(3, 1))
  end
  local words, instead = describe(fpdu, data, tree, stream, pinfo)
  local parts = {}
  if words then parts[1] = words end
  if index == 1 and stream.ready_frame == pinfo.number then parts[1] = "ready to receive (RTR)" end
  if number then parts[#parts + 1] = "request " .. number end
  local said = table.concat(parts, ", ")
  if said ~= "" then tree:append_text(": " .. said) end
  return said, instead
end

function verbena.dissector(_, pinfo, root)
  local stream = stream_here()
  if stream == nil then return end
  if request_key() ~= nil then stream.initiator = sender_of(stream, pinfo) end
  if request_key() ~= nil or reply_key() ~= nil then hand_shake(pinfo, root, stream) end
  for index, field in ipairs({ fpdu_length() }) do
    local said, instead = one_fpdu(field, pinfo, root, stream, index)
    if instead then
      pinfo.cols.protocol = "Verbena"
      pinfo.cols.info = pinfo.src_port .. " > " .. pinfo.dst_port .. " " .. said
    elseif said and said ~= "" then
      pinfo.cols.info:append(", " .. said)
    end
  end
end

register_postdissector(verbena)

-- Wireshark guesses what Sends carry, and takes short ones for RPC over RDMA. Here it is the
-- application's.
verbena:register_heuristic("iwarp_ddp_rdmap", function(buffer, pinfo, tree)
  local stream = stream_here()
  if stream == nil or next(stream.records) == nil then return false end
  Dissector.get("data"):call(buffer, pinfo, tree)
  return true
end)
