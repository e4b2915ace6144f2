-- Removes an event whose retention is over, with its jobs, if all of them ended long enough ago. KEYS from FIXED + 1: the event, the
-- tenant's log, the tenant's newest events, then the log of each job's connection. ARGV: 4 the event's
-- entry, 5 its field among the public ids, 6 the time that all of them must have ended before, 7 its type. Of an event of many jobs
-- these went before, and their keys are not given. Answers how many jobs went with it, or -1.
local event, entry = KEYS[FIXED + 1], ARGV[4]
local base, jobs = entry:sub(1, 11), #KEYS - FIXED - 3
-- It got another job since its entry was read.
if not call('ZSCORE', EVENTS, entry) then return -1 end
for index = 0, jobs - 1 do
  local raw = call('HGET', event, index)
  if raw then
    local _, _, state, _, _, _, finished = struct.unpack(RECORD, raw)
    if state <= WAITS or finished >= tonumber(ARGV[6]) then return -1 end
  end
end
call('UNLINK', event)
call('ZREM', EVENTS, entry)
call('ZREM', KEYS[FIXED + 2], entry)
for index = 0, jobs - 1 do
  local log = KEYS[FIXED + 4 + index]
  if log then call('ZREM', log, base .. number(index, 3)) end
end
-- Takes the event out of a field that lists some.
local function forget(key, field)
  local bases = call('HGET', key, field)
  if not bases then return end
  local left = {}
  for at = 1, #bases, 11 do
    local one = bases:sub(at, at + 10)
    if one ~= base then left[#left + 1] = one end
  end
  if #left == 0 then
    call('HDEL', key, field)
  elseif #left * 11 < #bases then
    call('HSET', key, field, table.concat(left))
  end
end
forget(IDS, ARGV[5])
forget(KEYS[FIXED + 3], ARGV[7])
return jobs
