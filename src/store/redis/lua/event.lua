-- How an event and its jobs are entered, shared by the scripts that write them, which end with `write_newest`.
local IDS_KEPT = 16
-- `NEWEST_EVENTS` and `NEWEST_TYPES` of the port.
local NEWEST, TYPES = 100, 256
-- Bases written by this call, oldest first, by the key of the tenant's newest events and type.
local newest = {}

local function note_newest(key, kind, base)
  newest[key] = newest[key] or {}
  local kinds = newest[key]
  kinds[kind] = kinds[kind] or {}
  table.insert(kinds[kind], base)
end

local function write_newest()
  for key, kinds in pairs(newest) do
    for kind, bases in pairs(kinds) do
      local others = call('HGET', key, kind)
      if others or call('HLEN', key) < TYPES then
        local list = {}
        for at = #bases, math.max(1, #bases - NEWEST + 1), -1 do list[#list + 1] = bases[at] end
        list[#list + 1] = (others or ''):sub(1, 11 * (NEWEST - #list))
        call('HSET', key, kind, table.concat(list))
      end
    end
  end
end

-- Enters an event with so many jobs into the logs. The keys of the tenant's log, of the bucket of ids and of the tenant's
-- newest events follow the event's.
local function enter_event(key, base, jobs, field, kind)
  local entry = base .. number(jobs, 3)
  call('ZADD', EVENTS, 0, entry)
  call('ZADD', KEYS[key + 1], 0, entry)
  local others = call('HGET', KEYS[key + 2], field) or ''
  call('HSET', KEYS[key + 2], field, base .. others:sub(1, 11 * (IDS_KEPT - 1)))
  note_newest(KEYS[key + 3], kind, base)
end

-- Puts a new job into its connection's log, and, if it is not triggered, into its lane.
local function enter_job(base, index, partition, job)
  local place = number(index, 3)
  local id = base .. place .. partition
  local l = lane(job.connection)
  call('ZADD', KEYS[job.log], 0, base .. place)
  if job.triggered then return end
  S[S_SEQ] = S[S_SEQ] + 1
  call('ZADD', QUEUE, 0, job.connection .. 'F' .. number(S[S_SEQ], 6) .. id)
  join(l, id)
  -- In a lane that is not strict a fresh job may go at once, whatever else waits there.
  if l[IN_RING] == 0 and l[CAP] > 1 and l[LEASED] < l[WIDTH] and not is_held(l) then enter_ring(job.connection, l) end
end
