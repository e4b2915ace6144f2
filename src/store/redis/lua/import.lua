-- Writes events that another store gave, with their jobs wherever those stand; documents, bodies and attempts are there
-- already. ARGV: 4 the partition; then for each event: base, meta, its field among the public ids, the index of its key in
-- KEYS (the tenant's log and the tenant's newest events follow it), type, the number of jobs; for each job: connection, mapping, state, attempts,
-- tries, due, finished, reason, the index of the connection's log. Answers `unruled` and connections, and writes nothing,
-- or `written` and how many events were new.
local at = COMMON
local function take()
  at = at + 1
  return ARGV[at]
end

local partition = take()
local events, unruled = {}, {}
while at < #ARGV do
  local event = { base = take(), meta = take(), field = take(), key = tonumber(take()), kind = take(), jobs = {} }
  for _ = 1, tonumber(take()) do
    local job = {
      connection = take(), mapping = take(), state = tonumber(take()), attempts = tonumber(take()),
      tries = tonumber(take()), due = tonumber(take()), finished = tonumber(take()), reason = take(), log = tonumber(take()),
    }
    if not lane(job.connection) then unruled[#unruled + 1] = job.connection end
    event.jobs[#event.jobs + 1] = job
  end
  events[#events + 1] = event
end
if #unruled > 0 then return { 'unruled', unpack(unruled, 1, math.min(#unruled, 500)) } end

local written = 0
for _, event in ipairs(events) do
  if call('HEXISTS', KEYS[event.key], 'm') == 0 then
    written = written + 1
    local entry = event.base .. number(#event.jobs, 3)
    for index, job in ipairs(event.jobs) do
      local place = number(index - 1, 3)
      local id = event.base .. place .. partition
      call('HSET', KEYS[event.key], index - 1, struct.pack(RECORD, job.connection, job.mapping, job.state, job.attempts,
        job.tries, job.due, job.finished) .. job.reason)
      call('ZADD', KEYS[job.log], 0, event.base .. place)
      if job.state <= WAITS then
        local l = lane(job.connection)
        -- The other store may have had it leased when it was stopped.
        l[DOUBT] = math.max(l[DOUBT], made_at(id))
        local order
        if job.state == WAITS then
          order = 'D' .. number(job.due, 6)
        else
          S[S_SEQ] = S[S_SEQ] + 1
          order = 'F' .. number(S[S_SEQ], 6)
        end
        call('ZADD', QUEUE, 0, job.connection .. order .. id)
        join(l, age_of(id))
        if l[IS_CLOSED] == 1 then call('ZADD', CLOSING, now, job.connection) end
      end
    end
    call('ZADD', EVENTS, 0, entry)
    call('ZADD', KEYS[event.key + 1], 0, entry)
    local others = call('HGET', IDS, event.field) or ''
    call('HSET', IDS, event.field, event.base .. others:sub(1, 11 * 15))
    local newest = call('HGET', KEYS[event.key + 2], event.kind)
    if newest or call('HLEN', KEYS[event.key + 2]) < 256 then
      call('HSET', KEYS[event.key + 2], event.kind, event.base .. (newest or ''):sub(1, 11 * 99))
    end
    call('HSET', KEYS[event.key], 'm', number(#event.jobs, 3) .. event.meta)
  end
end
finish()
return { 'written', written }
