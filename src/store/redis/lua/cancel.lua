-- Cancels jobs of a closed lane. ARGV: 4 the connection, 5 the reason, 6 whether these were all; then the members of the
-- queue. The key of the n-th one's event is KEYS[FIXED + n]. Answers how many were cancelled.
local connection = ARGV[4]
local l = lane(connection)
if not l or l[IS_CLOSED] == 0 then
  call('ZREM', CLOSING, connection)
  return 0
end
local cancelled = 0
for at = COMMON + 4, #ARGV do
  local member, event = ARGV[at], KEYS[FIXED + at - COMMON - 3]
  if call('ZREM', QUEUE, member) == 1 then
    local id = member:sub(-16)
    local index = struct.unpack('>I3', id, 12)
    local raw = call('HGET', event, index)
    if raw then
      local _, mapping, _, attempts, tries = struct.unpack(RECORD, raw)
      call('HSET', event, index,
        struct.pack(RECORD, connection, mapping, CANCELLED, attempts, tries, 0, now) .. ARGV[5])
    end
    leave(l, id)
    cancelled = cancelled + 1
  end
end
if ARGV[6] == '1' then call('ZREM', CLOSING, connection) end
finish()
return cancelled
