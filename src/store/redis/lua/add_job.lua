-- Makes one more job for an event. KEYS from FIXED + 1: the event, the tenant's log, the connection's log. ARGV: 4 the
-- partition, 5 the event's base, 6 the connection, 7 the mapping, 8 how many jobs it must have. Answers what became of it.
local event, tenant_log, base, connection = KEYS[FIXED + 1], KEYS[FIXED + 2], ARGV[5], ARGV[6]
local meta = call('HGET', event, 'm')
-- A marked event is being removed.
if not meta or call('HEXISTS', event, 'x') == 1 then return { 'missing' } end
local jobs = struct.unpack('>I3', meta)
if jobs ~= tonumber(ARGV[8]) then return { 'changed' } end
local l = lane(connection)
if not l then return { 'unruled' } end
if l[IS_CLOSED] == 1 then return { 'closed' } end
-- The logs name an event with the number of its jobs.
for _, log in ipairs({ EVENTS, tenant_log }) do
  call('ZREM', log, base .. number(jobs, 3))
  call('ZADD', log, 0, base .. number(jobs + 1, 3))
end
call('HSET', event, 'm', number(jobs + 1, 3) .. meta:sub(4),
  jobs, struct.pack(RECORD, connection, ARGV[7], QUEUED, 0, 0, 0, 0))
enter_job(base, jobs, ARGV[4], { connection = connection, log = FIXED + 3 })
write_entered()
finish()
return { 'made', S[S_RING], next_timer() }
