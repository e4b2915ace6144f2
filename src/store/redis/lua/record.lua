-- Writes what came of a job that was tried outside its lane, if it still stands as it was made. KEYS[FIXED + 1] is its
-- event, KEYS[FIXED + 2] its connection's totals; ARGV: 4 its id, 5 the reason it was made with, 6 the attempt's number, 7 the attempt, 8 where it ends, 9 the reason, 10 health
-- (0, 1, 2 for neither), 11 wait until, 12 effect on the record as JSON (empty for none), 13 whether that effect closes,
-- 14 from how many failures on the breaker opens (0 for never), 15 when it then probes, 16 the slot of its latency,
-- 17 whether it failed. Answers whether it was taken, how many lanes the ring holds, when something happens by itself
-- next, and connection and effect if its record must change.
local event, index = KEYS[FIXED + 1], struct.unpack('>I3', ARGV[4], 12)
local raw = call('HGET', event, index)
if not raw then return { 0, S[S_RING], next_timer(), {} } end
local connection, mapping, state, attempts, tries = struct.unpack(RECORD, raw)
if state ~= DEAD or tries ~= tonumber(ARGV[6]) - 1 or raw:sub(54) ~= ARGV[5] then
  return { 0, S[S_RING], next_timer(), {} }
end
call('HSET', event, 'a' .. index .. '.' .. ARGV[6], ARGV[7],
  index, struct.pack(RECORD, connection, mapping, tonumber(ARGV[8]), attempts + 1, tries + 1, 0, now) .. ARGV[9])
tally(KEYS[FIXED + 2], ARGV[16], tonumber(ARGV[17]), tonumber(ARGV[8]))
local l = lane(connection)
local changes = l and affect(connection, l, tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14]),
  tonumber(ARGV[15]))
finish()
return { 1, S[S_RING], next_timer(), changes and { connection, ARGV[12] } or {} }
