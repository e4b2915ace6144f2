-- Puts a job back into its lane. KEYS[FIXED + 1] is its event; ARGV: 4 its id, 5 the mapping that replaces
-- one that failed (empty to keep it), 6 the reason of what was erased, 7 the replay that does it (empty for a person), 8 whether
-- that replay takes what another one took. A replay takes a job once, and none that is open.
local id, event = ARGV[4], KEYS[FIXED + 1]
local index = struct.unpack('>I3', id, 12)
local raw = call('HGET', event, index)
-- A marked event is being removed.
if not raw or call('HEXISTS', event, 'x') == 1 then return 'missing' end
local connection, mapping, state, _, tries, due = struct.unpack(RECORD, raw)
local replay, by = ARGV[7], 'r' .. index
local before = replay ~= '' and call('HGET', event, by)
if before and (before == replay or ARGV[8] ~= '1') then return 'already' end
if state == QUEUED or call('HEXISTS', HELD, id) == 1 then return 'open' end
if replay ~= '' and state == WAITS then return 'open' end
if raw:sub(54) == ARGV[6] then return 'erased' end
local l = lane(connection)
if not l or l[IS_CLOSED] == 1 then return 'closed' end
if ARGV[5] ~= '' and state == MAPPING_FAILED then mapping = ARGV[5] end
if state == WAITS then
  call('ZREM', QUEUE, connection .. 'D' .. number(due, 6) .. id)
else
  join(l, age_of(id))
end
call('HSET', event, index, struct.pack(RECORD, connection, mapping, WAITS, 0, tries, now, 0) .. raw:sub(54))
if replay ~= '' then call('HSET', event, by, replay) end
call('ZADD', QUEUE, 0, connection .. 'D' .. number(now, 6) .. id)
finish()
return 'queued'
