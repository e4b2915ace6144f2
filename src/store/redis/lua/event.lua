-- How an event and its jobs are entered, shared by the scripts that write them.
local IDS_KEPT = 16

-- Enters an event with so many jobs into the logs. The keys of the tenant's log and of the bucket of ids follow the event's.
local function enter_event(key, base, jobs, field)
  local entry = base .. number(jobs, 3)
  call('ZADD', EVENTS, 0, entry)
  call('ZADD', KEYS[key + 1], 0, entry)
  local others = call('HGET', KEYS[key + 2], field) or ''
  call('HSET', KEYS[key + 2], field, base .. others:sub(1, 11 * (IDS_KEPT - 1)))
end

-- Puts a new job into its lane and into its connection's log.
local function enter_job(base, index, partition, job)
  local place = number(index, 3)
  local id = base .. place .. partition
  local l = lane(job.connection)
  S[S_SEQ] = S[S_SEQ] + 1
  call('ZADD', QUEUE, 0, job.connection .. 'F' .. number(S[S_SEQ], 6) .. id)
  call('ZADD', KEYS[job.log], 0, base .. place)
  join(l, id)
  -- In a lane that is not strict a fresh job may go at once, whatever else waits there.
  if l[IN_RING] == 0 and l[CAP] > 1 and l[LEASED] < l[WIDTH] and not is_held(l) then enter_ring(job.connection, l) end
end
