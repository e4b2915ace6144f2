-- Accepts a staged request, or refuses it as a whole. KEYS[FIXED + 1] is where it is staged, the next, if there is an
-- idempotency key, is that; then come the keys of the events, then those of their dedupes. ARGV: 4 its name, 5 in how many
-- parts, 6 whether there is an idempotency key, 7 its content, 8 the number of events; for each of them: public id, dedupe's
-- index in KEYS (0 for none), its content, the number of its jobs.
-- Answers as `ingest` does. Once accepted, `apply` writes the parts: all that is written here is what tells repeats.
local staging, name, parts = KEYS[FIXED + 1], ARGV[4], tonumber(ARGV[5])
local key, content, events = tonumber(ARGV[6]) * (FIXED + 2), ARGV[7], tonumber(ARGV[8])
local EACH, SOME = 4, 1000
local first_event = FIXED + 1 + tonumber(ARGV[6])

local function drop(answer)
  call('UNLINK', staging)
  call('ZREM', STAGED, name)
  return answer
end

-- Upkeep removed it, or another one has its name.
if call('HLEN', staging) ~= parts then return { 'collision' } end
local known = seen(key, content)
if known then return drop(known.same and { 'repeated', known.answer } or { 'reused' }) end
for from = first_event + 1, first_event + events, SOME do
  local upto = math.min(from + SOME - 1, first_event + events)
  if call('EXISTS', unpack(KEYS, from, upto)) > 0 then return drop({ 'collision' }) end
end
-- One look for all dedupes, by their index in KEYS.
local before = {}
for from = first_event + events + 1, #KEYS, SOME do
  for offset, raw in ipairs(call('MGET', unpack(KEYS, from, math.min(from + SOME - 1, #KEYS)))) do
    before[from + offset - 1] = raw or nil
  end
end
local answer, kept, fresh, mine = { 'stored' }, {}, 0, {}
for n = 0, events - 1 do
  local at = COMMON + 6 + n * EACH
  local dedupe, same, jobs = tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  -- The same one may come twice in a request.
  local earlier = dedupe > 0 and (mine[KEYS[dedupe]] or read_seen(before[dedupe], same))
  local written
  if earlier then
    written = (earlier.content or same) == same and earlier.same and tostring(-1 - tonumber(earlier.answer)) or 'reused'
    call('HSET', staging, 'x' .. n, '')
  else
    written = jobs
    remember(dedupe, same, written)
    if dedupe > 0 then mine[KEYS[dedupe]] = { same = true, content = same, answer = written } end
    fresh = fresh + 1
  end
  answer[#answer + 1] = written
  if key > 0 then kept[#kept + 1] = { ARGV[at], written } end
end
remember(key, content, #kept > 0 and cjson.encode(kept) or '[]')
if fresh == 0 then return drop(answer) end
call('HSET', staging, 'left', parts, 'parts', parts)
call('ZADD', STAGED, now, name)
-- Should this process die now, another one goes on.
call('PUBLISH', channel, 'staged')
return answer
