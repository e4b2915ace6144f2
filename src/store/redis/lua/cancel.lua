-- Cancels jobs of a closed lane, or those of another that are not wanted. ARGV: 4 the connection, 5 the reason, 6 whether
-- these were all, 7 the time before which jobs are not wanted (0 for a closed lane), 8 the last member that was looked at;
-- then the members of the queue. The key of the n-th one's event is KEYS[FIXED + n]. Answers how many were cancelled, and
-- whether the record is to be told that nothing unwanted is left.
local connection, unwanted = ARGV[4], tonumber(ARGV[7])
local l = lane(connection)
if not l or (l[IS_CLOSED] == 0 and l[UNWANTED] == 0) then
  call('ZREM', CLOSING, connection)
  return { 0, 0 }
end
-- It changed since it was looked at.
if unwanted ~= (l[IS_CLOSED] == 0 and l[UNWANTED] or 0) then return { 0, 0 } end
local cancelled = 0
for at = COMMON + 6, #ARGV do
  local member, event = ARGV[at], KEYS[FIXED + at - COMMON - 5]
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
local told = 0
if unwanted == 0 then
  if ARGV[6] == '1' then call('ZREM', CLOSING, connection) end
elseif ARGV[6] == '0' then
  l[SEEN] = ARGV[8]
elseif l[LEASED] == 0 then
  -- It stays listed until the record is told.
  told = 1
else
  -- What is leased may come back, and brings the lane here again.
  call('ZREM', CLOSING, connection)
end
finish()
return { cancelled, told }
