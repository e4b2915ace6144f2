-- Writes requests of events and their jobs. ARGV: 4 the partition, 5 the reason of triggered jobs; then for each request:
-- the idempotency key's index in KEYS (0 for none), its content, the number of events; for each event: base, meta, document, type, public id, its field
-- in the bucket of ids, dedupe's index (0 for none), its content, the index of the event's key (the tenant's log, the bucket
-- of ids and the tenant's newest events follow it), the number of jobs; for each job: connection, mapping, the index of the
-- connection's log, whether it is triggered.
-- Answers for each request: `repeated` and JSON, `reused`, `collision`, `unruled` and connections, or `stored` and for each
-- event the number of its jobs, negative for a duplicate (-1 - jobs), or `reused`.
-- Requests are decided one after the other, and a refused one writes nothing. One call carries at most 128 events and jobs.
local at = COMMON
local function take()
  at = at + 1
  return ARGV[at]
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
local function write_event(event)
  local known = seen(event.dedupe, event.content)
  if known and known.name then
    -- What is decided here and now goes before a large request that is still on its way in.
    break_off(known.name)
  elseif known then
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
  end
  call('HSET', KEYS[event.key], unpack(fields))
  enter_event(event.key, event.base, #made, event.field, event.kind)
  for index, job in ipairs(made) do enter_job(event.base, index - 1, partition, job) end
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
