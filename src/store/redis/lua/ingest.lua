-- Writes requests of events and their jobs, and leases some of these jobs to the caller. KEYS from FIXED + 1: the logs of
-- the connections, the events, and whatever is named by its index. ARGV: 4 the partition, 5 how many jobs the caller has room for, 6 the
-- deadline of their leases, 7 the connections, 8 how many events there are, 9 how many records of jobs, each of which many jobs may
-- have, and these. Then for each request its `REQUEST`: the idempotency key's index in KEYS (0 for none), its content, the number
-- of events. For each event its `EVENT`: base; base with the number of jobs; its field among the public ids; indexes of its dedupe
-- key (0 for none), of its tenant's log, and of the tenant's newest events; the number of jobs; its type; then a `JOB`
-- for each: its connection's number, its record's, whether it is triggered. After that what the dedupe key is to stand
-- for, its meta and its document, as they are written.
-- Answers for each request: `repeated` and JSON, `reused`, `collision`, `unruled` or `closed` and connections, or `stored` and for each
-- event the number of its jobs, negative for a duplicate (-1 - jobs), or `reused`. Last a list: how many lanes the ring holds,
-- when something happens by itself next, as far as that is news, how often something was erased here, and the leases (`LEASE`):
-- the event's number among all of the call, the job's in it, token, whether an earlier lease may have been lost (4), and its
-- lane's failures in a row with the time of the first.
-- Requests are decided one after the other, and a refused one writes nothing. One call carries at most 128 events and jobs.
-- What the caller knows it has put together: what Lua does here for each event costs more than what Redis does.
local REQUEST, EVENT, JOB = '>I2c16I2', '>c11c14c8I2I2I2I2Bc0', '>I2I2B'
local LEASE = '>I2I2I6BI4I6'
local partition, room, deadline, count = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[8])
local FIRST_RECORD, records = COMMON + 6, tonumber(ARGV[9])

local connections, lanes, all_take = {}, {}, true
for at = 1, #ARGV[7], 16 do connections[#connections + 1] = ARGV[7]:sub(at, at + 15) end
read_lanes(connections)
for at, connection in ipairs(connections) do
  local l = touched[connection]
  lanes[at] = l or false
  all_take = all_take and l and l[IS_CLOSED] == 0
end
local FIRST_LOG, FIRST_EVENT = FIXED, FIXED + #connections
-- Names come from clocks and chance; that one is taken is next to impossible, and looked into only then.
local is_some_taken = count > 0 and call('EXISTS', unpack(KEYS, FIRST_EVENT + 1, FIRST_EVENT + count)) > 0

local leases = {}
-- Numbers of jobs, as their places and as the fields of their records have them.
local places, fields_of = {}, {}

-- A job may be leased here and now where nothing else would be leased before it: nothing in the whole ring, nor in its lane.
local function may_lease(l)
  if room <= 0 or S[S_RING] > 0 or l[IN_RING] == 1 or l[BATCH] > 1 or l[LEASED] >= l[WIDTH] or is_held(l) then return false end
  if l[CAP] == 1 then return l[OPEN] <= 0 end
  return l[TIMER] == 0 or l[TIMER] > now
end

local function write_job(event, base, index, lane_number, triggered, age)
  places[index] = places[index] or number(index, 3)
  local place = base .. places[index]
  enter_member(KEYS[FIRST_LOG + lane_number], place)
  -- Whoever triggers a job tries it outside its lane, where it has no place.
  if triggered == 1 then return end
  local l, connection, id = lanes[lane_number], connections[lane_number], place .. partition
  if not may_lease(l) then return enter_lane(connection, l, id, age) end
  room = room - 1
  S[S_SEQ] = S[S_SEQ] + 1
  join(l, age)
  local token, doubt = give_lease(connection, l, struct.pack('>c1I6', 'F', S[S_SEQ]), id, deadline)
  leases[#leases + 1] = struct.pack(LEASE, event, index, token, doubt, l[FAILURES], l[SINCE])
end

-- Writes the event that begins at `at`, one of so many in the call; gives what became of it.
local function write_event(event, at)
  local head = ARGV[at]
  local base, entry, field, dedupe, log, newest_key, jobs, kind, next_job = struct.unpack(EVENT, head)
  local known = dedupe > 0 and remember_first(dedupe, ARGV[at + 1])
  if known then return known.same and tostring(-1 - tonumber(known.answer)) or 'reused' end
  enter_event(KEYS[log], KEYS[newest_key], base, entry, field, kind)
  local age = jobs > 0 and age_of(base)
  local fields = { 'm', ARGV[at + 2], 'd', ARGV[at + 3] }
  for index = 0, jobs - 1 do
    local lane_number, record, triggered
    lane_number, record, triggered, next_job = struct.unpack(JOB, head, next_job)
    fields_of[index] = fields_of[index] or tostring(index)
    fields[2 * index + 5], fields[2 * index + 6] = fields_of[index], ARGV[FIRST_RECORD + record]
    write_job(event - 1, base, index, lane_number, triggered, age)
  end
  call('HSET', KEYS[FIRST_EVENT + event], unpack(fields))
  return fields_of[jobs] or tostring(jobs)
end

-- Notes the connections of an event whose lanes are not known or closed.
local function note_refused(head, unruled, closed)
  local _, _, _, _, _, _, jobs, _, next_job = struct.unpack(EVENT, head)
  for _ = 1, jobs do
    local lane_number
    lane_number, _, _, next_job = struct.unpack(JOB, head, next_job)
    local l = lanes[lane_number]
    if not l then
      unruled[#unruled + 1] = connections[lane_number]
    elseif l[IS_CLOSED] == 1 then
      closed[#closed + 1] = connections[lane_number]
    end
  end
end

-- Where each of so many events begins after `first` of the call, where the next request does, and what refuses all of it,
-- if anything does.
local function read_request(first, events, at)
  local begins, taken, unruled, closed = {}, false, { 'unruled' }, { 'closed' }
  for n = 1, events do
    begins[n] = at
    taken = taken or (is_some_taken and call('EXISTS', KEYS[FIRST_EVENT + first + n]) == 1)
    if not all_take then note_refused(ARGV[at], unruled, closed) end
    at = at + 4
  end
  local refusal = taken and { 'collision' } or (#unruled > 1 and unruled) or (#closed > 1 and closed)
  return begins, at, refusal or nil
end

local function decide(first, key, content, begins, refusal)
  local known = seen(key, content)
  if known then
    if known.same then return { 'repeated', known.answer } end
    return { 'reused' }
  end
  if refusal then return refusal end
  local answer, kept = { 'stored' }, {}
  for n, at in ipairs(begins) do
    answer[n + 1] = write_event(first + n, at)
    if key > 0 then
      -- The count of jobs and 28 bytes; tenant and type with their lengths; the id.
      local _, _, _, after = struct.unpack('>c31Bc0Bc0', ARGV[at + 2])
      kept[n] = { ARGV[at + 2]:sub(after), answer[n + 1] }
    end
  end
  if key > 0 then remember(key, content, #kept > 0 and cjson.encode(kept) or '[]') end
  return answer
end

local answers, first, next_at = {}, 0, FIRST_RECORD + 1 + records
while next_at <= #ARGV do
  local key, content, events = struct.unpack(REQUEST, ARGV[next_at])
  local begins, refusal
  begins, next_at, refusal = read_request(first, events, next_at + 1)
  answers[#answers + 1] = decide(first, key, content, begins, refusal)
  first = first + events
end
write_entered()
if #leases > 0 then write_leases(server_time(), deadline) end
finish()
answers[#answers + 1] = { S[S_RING], new_timer < math.huge and next_timer() or 0, S[S_ERASED], table.concat(leases) }
return answers
