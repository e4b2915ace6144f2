-- Writes requests of events and their jobs. ARGV: 4 the partition, 5 the reason of triggered jobs; then for each request:
-- the idempotency key's index in KEYS (0 for none), its content, the number of events; for each event: base, meta, document, type, public id, its field
-- in the bucket of ids, dedupe's index (0 for none), its content, the index of the event's key (the tenant's log, the bucket
-- of ids and the tenant's newest events follow it), the number of jobs; for each job: connection, mapping, the index of the
-- connection's log, whether it is triggered.
-- Answers for each request: `repeated` and JSON, `reused`, `collision`, `unruled` and connections, or `stored` and for each
-- event the number of its jobs, negative for a duplicate (-1 - jobs), or `reused`.
-- Requests are decided one after the other, and a refused one writes nothing.
local DAY = 86400000
local IDS_KEPT = 16
-- `NEWEST_EVENTS` and `NEWEST_TYPES` of the port.
local NEWEST, TYPES = 100, 256
local at = COMMON
local function take()
  at = at + 1
  return ARGV[at]
end

local function seen(index, content)
  if index == 0 then return nil end
  local raw = call('GET', KEYS[index])
  if not raw then return nil end
  local expires, known, answer = struct.unpack('>I6c16', raw)
  if expires <= now then return nil end
  return { same = known == content, answer = raw:sub(23) }
end

local function remember(index, content, answer)
  if index == 0 then return end
  call('SET', KEYS[index], number(now + DAY, 6) .. content .. answer, 'PX', DAY)
end

local function read_request()
  local request = { key = tonumber(take()), content = take(), events = {} }
  for _ = 1, tonumber(take()) do
    local event = {
      base = take(), meta = take(), document = take(), kind = take(), id = take(), field = take(),
      dedupe = tonumber(take()), content = take(), key = tonumber(take()), jobs = {},
    }
    for _ = 1, tonumber(take()) do
      event.jobs[#event.jobs + 1] = { connection = take(), mapping = take(), log = tonumber(take()), triggered = take() == '1' }
    end
    request.events[#request.events + 1] = event
  end
  return request
end

local partition, unanswered = take(), take()
local answers = {}
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

local function write_event(event)
  local known = seen(event.dedupe, event.content)
  if known then
    if known.same then return -1 - tonumber(known.answer) end
    return 'reused'
  end
  local made = {}
  for _, job in ipairs(event.jobs) do
    if lane(job.connection)[IS_CLOSED] == 0 then made[#made + 1] = job end
  end
  local fields = { 'm', number(#made, 3) .. event.meta, 'd', event.document }
  for index, job in ipairs(made) do
    fields[#fields + 1] = index - 1
    -- Whoever triggers a job tries it outside its lane, where it has no place.
    fields[#fields + 1] = job.triggered
      and struct.pack(RECORD, job.connection, job.mapping, DEAD, 0, 0, 0, now) .. unanswered
      or struct.pack(RECORD, job.connection, job.mapping, QUEUED, 0, 0, 0, 0)
    -- A call takes a few thousand values at the most.
    if #fields > 2000 then
      call('HSET', KEYS[event.key], unpack(fields))
      fields = {}
    end
  end
  if #fields > 0 then call('HSET', KEYS[event.key], unpack(fields)) end
  local entry = event.base .. number(#made, 3)
  call('ZADD', EVENTS, 0, entry)
  call('ZADD', KEYS[event.key + 1], 0, entry)
  local others = call('HGET', KEYS[event.key + 2], event.field) or ''
  call('HSET', KEYS[event.key + 2], event.field, event.base .. others:sub(1, 11 * (IDS_KEPT - 1)))
  note_newest(KEYS[event.key + 3], event.kind, event.base)
  for index, job in ipairs(made) do
    local place = number(index - 1, 3)
    local id = event.base .. place .. partition
    local l = lane(job.connection)
    call('ZADD', KEYS[job.log], 0, event.base .. place)
    if not job.triggered then
      S[S_SEQ] = S[S_SEQ] + 1
      call('ZADD', QUEUE, 0, job.connection .. 'F' .. number(S[S_SEQ], 6) .. id)
      join(l, id)
      -- In a lane that is not strict a fresh job may go at once, whatever else waits there.
      if l[IN_RING] == 0 and l[CAP] > 1 and l[LEASED] < l[WIDTH] and not is_held(l) then enter_ring(job.connection, l) end
    end
  end
  remember(event.dedupe, event.content, tostring(#made))
  return #made
end

local function decide(request)
  local known = seen(request.key, request.content)
  if known then
    if known.same then return { 'repeated', known.answer } end
    return { 'reused' }
  end
  local unruled = {}
  for _, event in ipairs(request.events) do
    if call('EXISTS', KEYS[event.key]) == 1 then return { 'collision' } end
    for _, job in ipairs(event.jobs) do
      if not lane(job.connection) then unruled[#unruled + 1] = job.connection end
    end
  end
  if #unruled > 0 then return { 'unruled', unpack(unruled, 1, math.min(#unruled, 500)) } end
  local answer, kept = { 'stored' }, {}
  for _, event in ipairs(request.events) do
    local written = tostring(write_event(event))
    answer[#answer + 1] = written
    kept[#kept + 1] = { event.id, written }
  end
  remember(request.key, request.content, #kept > 0 and cjson.encode(kept) or '[]')
  return answer
end

while at < #ARGV do
  answers[#answers + 1] = decide(read_request())
end
write_newest()
finish()
return answers
