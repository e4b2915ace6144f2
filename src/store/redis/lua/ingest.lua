-- Writes requests of events and their jobs, and leases some of these jobs to the caller. ARGV: 4 the partition, 5 the reason
-- of triggered jobs, 6 how many jobs the caller has room for, 7 the deadline of their leases. Then for each request a head
-- (`REQUEST`: the idempotency key's index in KEYS, 0 for none; its content; the number of events); for each event a head,
-- its meta and its document. An event's head is `EVENT` (base; its field in the bucket of ids; the index of its dedupe key, 0
-- for none; that one's content; the indexes of the event's key, the tenant's log, the bucket, the tenant's newest events; the number of
-- jobs) and a `JOB` for each (connection, mapping, the index of the connection's log, whether it is triggered).
-- Answers for each request: `repeated` and JSON, `reused`, `collision`, `unruled` and connections, or `stored` and for each
-- event the number of its jobs, negative for a duplicate (-1 - jobs), or `reused`. Last a list: how many lanes the ring holds,
-- when something happens by itself next, as far as that is news; then of each lease seven numbers: the
-- event's among all of the call, the job's among those asked for, the job's in the event, token, whether an earlier lease
-- may have been lost (4), and its lane's failures in a row with the time of the first.
-- Requests are decided one after the other, and a refused one writes nothing. One call carries at most 128 events and jobs.
local REQUEST, EVENT, JOB = '>I2c16I2', '>c11c8I2c16I2I2I2I2I2', '>c16c16I2B'
local partition, unanswered, room, deadline = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]

local events, requests, event_keys, connections = {}, {}, {}, {}
local function read_event(head, meta, document)
  local event = { meta = meta, document = document, number = #events, jobs = {} }
  local log, bucket, newest_key, count, at
  event.base, event.field, event.dedupe, event.content, event.key, log, bucket, newest_key, count, at = struct.unpack(EVENT, head)
  event.key, event.tenant_log, event.bucket, event.newest = KEYS[event.key], KEYS[log], KEYS[bucket], KEYS[newest_key]
  for number_of = 1, count do
    local job = { number = number_of - 1 }
    job.connection, job.mapping, job.log, job.triggered, at = struct.unpack(JOB, head, at)
    job.triggered = job.triggered == 1
    connections[job.connection] = true
    event.jobs[number_of] = job
  end
  events[#events + 1] = event
  event_keys[#event_keys + 1] = event.key
  return event
end

local next_at = COMMON + 5
while next_at <= #ARGV do
  local request, count = { events = {} }, nil
  request.key, request.content, count = struct.unpack(REQUEST, ARGV[next_at])
  for n = 1, count do
    local at = next_at + 3 * n - 2
    request.events[n] = read_event(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
  requests[#requests + 1] = request
  next_at = next_at + 1 + 3 * count
end
read_lanes(connections)
-- Names come from clocks and chance; that one is taken is next to impossible, and looked into only then.
local is_some_taken = #event_keys > 0 and call('EXISTS', unpack(event_keys)) > 0

local leases = { 0, 0 }
-- A job may be leased here and now where nothing else would be leased before it: nothing in the whole ring, nor in its lane.
local function may_lease(l)
  if room <= 0 or S[S_RING] > 0 or l[IN_RING] == 1 or l[BATCH] > 1 or l[LEASED] >= l[WIDTH] or is_held(l) then return false end
  if l[CAP] == 1 then return l[OPEN] <= 0 end
  return l[TIMER] == 0 or l[TIMER] > now
end

-- Enters a job and leases it, if that may be.
local function enter(event, index, job)
  local l = touched[job.connection]
  if job.triggered or not may_lease(l) then return enter_job(event.base, index, partition, job) end
  room = room - 1
  local place = event.base .. number(index, 3)
  enter_member(KEYS[job.log], place)
  S[S_SEQ] = S[S_SEQ] + 1
  join(l, place .. partition)
  local token, doubt = give_lease(job.connection, l, 'F' .. number(S[S_SEQ], 6), place .. partition, deadline)
  local at = #leases
  leases[at + 1], leases[at + 2], leases[at + 3] = event.number, job.number, index
  leases[at + 4], leases[at + 5], leases[at + 6], leases[at + 7] = token, doubt, l[FAILURES], l[SINCE]
end

local function write_event(event)
  local made = {}
  for _, job in ipairs(event.jobs) do
    if touched[job.connection][IS_CLOSED] == 0 then made[#made + 1] = job end
  end
  local known = remember_first(event.dedupe, event.content, tostring(#made))
  if known then return known.same and tostring(-1 - tonumber(known.answer)) or 'reused' end
  local fields = { 'm', number(#made, 3) .. event.meta, 'd', event.document }
  for index, job in ipairs(made) do
    fields[#fields + 1] = index - 1
    -- Whoever triggers a job tries it outside its lane, where it has no place.
    fields[#fields + 1] = job.triggered
      and struct.pack(RECORD, job.connection, job.mapping, DEAD, 0, 0, 0, now) .. unanswered
      or struct.pack(RECORD, job.connection, job.mapping, QUEUED, 0, 0, 0, 0)
  end
  call('HSET', event.key, unpack(fields))
  -- What the meta has of the type: 28 bytes, then the tenant and the type with their lengths.
  local _, _, kind = struct.unpack('>c28Bc0Bc0', event.meta)
  enter_event(event.tenant_log, event.bucket, event.newest, event.base, #made, event.field, kind)
  for index, job in ipairs(made) do enter(event, index - 1, job) end
  return tostring(#made)
end

local function decide(request)
  local known = seen(request.key, request.content)
  if known then
    if known.same then return { 'repeated', known.answer } end
    return { 'reused' }
  end
  local unruled = {}
  for _, event in ipairs(request.events) do
    if is_some_taken and call('EXISTS', event.key) == 1 then return { 'collision' } end
    for _, job in ipairs(event.jobs) do
      if not touched[job.connection] then unruled[#unruled + 1] = job.connection end
    end
  end
  if #unruled > 0 then return { 'unruled', unpack(unruled, 1, math.min(#unruled, 500)) } end
  local answer, kept = { 'stored' }, {}
  for at, event in ipairs(request.events) do
    answer[at + 1] = write_event(event)
    if request.key > 0 then
      local _, _, _, after = struct.unpack('>c28Bc0Bc0', event.meta)
      kept[at] = { event.meta:sub(after), answer[at + 1] }
    end
  end
  if request.key > 0 then remember(request.key, request.content, #kept > 0 and cjson.encode(kept) or '[]') end
  return answer
end

local answers = {}
for at, request in ipairs(requests) do answers[at] = decide(request) end
write_entered()
if #leases > 2 then write_leases(server_time()) end
finish()
leases[1] = S[S_RING]
if new_timer < math.huge then leases[2] = next_timer() end
answers[#answers + 1] = leases
return answers
