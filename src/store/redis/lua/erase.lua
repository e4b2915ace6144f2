-- Erases what an event told, and what some of its jobs kept of it. KEYS[FIXED + 1] is the event. ARGV: 4 the partition, 5 its
-- base, 6 what its document becomes, 7 the reason, 8 the first job, 9 how many. An open job is cancelled, and its lease, if it
-- has one, is lost; one that waits for its first try keeps its place, with nothing in it, until its turn comes. Answers
-- how many lanes the ring holds, when something happens by itself next, how many jobs there were, and how many were cancelled.
-- `KEPT_ATTEMPTS` of the port.
local TRIES_KEPT = 100
local event, partition, base, reason = KEYS[FIXED + 1], ARGV[4], ARGV[5], ARGV[7]
if call('HEXISTS', event, 'm') == 0 then return { S[S_RING], next_timer(), 0, 0 } end
call('HSET', event, 'd', ARGV[6])
S[S_ERASED] = S[S_ERASED] + 1
local jobs, cancelled = 0, 0
for index = tonumber(ARGV[8]), tonumber(ARGV[8]) + tonumber(ARGV[9]) - 1 do
  local raw = call('HGET', event, index)
  if raw then
    jobs = jobs + 1
    local connection, mapping, state, attempts, tries, due, finished = struct.unpack(RECORD, raw)
    local fields = { 'b' .. index }
    for try = math.max(1, tries - TRIES_KEPT + 1), tries do fields[#fields + 1] = 'a' .. index .. '.' .. try end
    call('HDEL', event, unpack(fields))
    if state <= WAITS then
      local id = base .. number(index, 3) .. partition
      local held = held_by(id)
      local l = held and end_lease(id, held[3]) or lane(connection)
      if held or call('ZREM', QUEUE, connection .. 'D' .. number(due, 6) .. id) == 1 then
        if l then leave(l, id) end
        state, due, finished, cancelled = CANCELLED, 0, now, cancelled + 1
      end
    end
    call('HSET', event, index,
      struct.pack(RECORD, connection, mapping, state, attempts, tries, due, finished) .. reason)
  end
end
finish()
return { S[S_RING], next_timer(), jobs, cancelled }
