-- Puts a job back into its lane. KEYS[FIXED + 1] is its event; ARGV: 4 its id, 5 the mapping that replaces
-- one that failed (empty to keep it).
local id, event = ARGV[4], KEYS[FIXED + 1]
local index = struct.unpack('>I3', id, 12)
local raw = call('HGET', event, index)
-- A marked event is being removed.
if not raw or call('HEXISTS', event, 'x') == 1 then return 'missing' end
local connection, mapping, state, _, tries, due = struct.unpack(RECORD, raw)
if state == QUEUED or call('HEXISTS', HELD, id) == 1 then return 'open' end
local l = lane(connection)
if not l or l[IS_CLOSED] == 1 then return 'closed' end
if ARGV[5] ~= '' and state == MAPPING_FAILED then mapping = ARGV[5] end
if state == WAITS then
  call('ZREM', QUEUE, connection .. 'D' .. number(due, 6) .. id)
else
  join(l, id)
end
call('HSET', event, index, struct.pack(RECORD, connection, mapping, WAITS, 0, tries, now, 0) .. raw:sub(54))
call('ZADD', QUEUE, 0, connection .. 'D' .. number(now, 6) .. id)
finish()
return 'queued'
